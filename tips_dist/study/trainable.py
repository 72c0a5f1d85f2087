"""A trial on a worker: configuration -> training loop -> report.

It finds its own state in the trial's folder and goes on from it, whoever killed the last worker. It writes the
trial's record itself, so that a finished trial is finished even if nobody is left to hear of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tips_dist.config import Configuration
from tips_dist.files import StorageError, write_text
from tips_dist.runfolder import Alive, Outcome, Trial, TrialState, layout, read_trial
from tips_dist.runfolder.lock import alone_in, timestamp
from tips_dist.study.records import patiently

if TYPE_CHECKING:
    from tips_dist.data.store import Poses
    from tips_dist.training.loop import Progress

VERDICT = "verdicts/"  # prefix of the reported number of seeds with a verdict
SPENT = "spent/"  # prefix of the reported seconds, by what they went to (runfolder/spent.py)
NO_RISK = 1.0e9  # reported while a trial has no risk yet: a number, as one NaN upsets Ray's schedulers


class Train(Protocol):
    """The signature of :func:`tips_dist.training.loop.train`, which tests replace by a fake."""

    def __call__(
        self,
        configuration: Configuration,
        seeds: Sequence[int],
        poses: Poses,
        folder: Path,
        *,
        report: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        threads: int | None = None,
        device: str = "cpu",
        thaw: Sequence[int] = (),
    ) -> Outcome:
        """Train all seeds; see the loop."""
        ...


Report = dict[str, str | int | float | bool]  # what Ray passes on: plain numbers and words
Tell = Callable[[Report], None]


def run_trial(
    run: Path,
    identity: str,
    poses: Poses,
    train: Train,
    tell: Tell,
    *,
    threads: int = 1,
    device: str = "cpu",
    heartbeat: float = 60.0,
    node: str = "",
) -> None:
    """Train one trial to its end, or until it is asked to stop, and keep its record.

    Args:
        run: the run folder.
        identity: the trial's id; its record exists.
        poses: the data set.
        train: the training loop.
        tell: takes a dictionary of plain numbers and strings at every evaluation step; whatever it raises stops the
            trial (this is how Ray does it).
        threads: for the tensor library.
        device: "cpu" or "cuda".
        heartbeat: the worker shows a sign of life at least five times in this many seconds.
        node: where this worker runs, for whoever must kill it.

    The record ends as ``finished``, ``failed`` (the training code raised; the message is in the record, the traceback
    in ``error.txt``) or ``pending`` (interrupted, state saved).

    Raises:
        StorageError: storage is full or stayed away; the record is as the last write left it.
        WorkerLost: one of several workers died; so does this one, and the trial starts again from its checkpoint.
    """
    trial = read_trial(run, identity)
    if trial.state.final or layout.STOP.at(run).exists():
        return
    folder = trial.folder(run)
    with alone_in(folder), _alive(folder, heartbeat, node) as alive:
        started, attempts = trial.started or timestamp(), trial.attempts + 1
        trial = trial.now(state=TrialState.RUNNING, error=None, started=started, attempts=attempts)
        patiently(lambda: trial.write(run))
        clock = time.monotonic()

        again = {"thaw": trial.thaw} if trial.thaw else {}
        asked_to_stop = StopFlag(layout.STOP.at(run))

        def report(progress: Progress) -> None:
            alive(progress)
            tell(_metrics(trial, progress))

        def work() -> Outcome:
            return train(
                trial.configuration,
                trial.seeds,
                poses,
                folder,
                report=report,
                should_stop=asked_to_stop,
                threads=threads,
                device=device,
                **again,
            )

        try:
            ended = trial.now(state=TrialState.FINISHED, outcome=patiently(work), ended=timestamp())
        except StorageError:
            raise
        except Exception as error:
            if asked_to_stop.seen:  # the loop's way out, after it saved its state
                patiently(lambda: trial.now(state=TrialState.PENDING, wall_seconds=_wall(trial, clock)).write(run))
                return
            with contextlib.suppress(StorageError):
                write_text(layout.ERROR.at(run, identity), traceback.format_exc())
            if _worker_lost(error):
                raise
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            ended = trial.now(state=TrialState.FAILED, error=message, ended=timestamp())
        patiently(lambda: ended.now(wall_seconds=_wall(trial, clock)).write(run))


class StopFlag:
    """Whether somebody asked the study to stop; looks at the disk twice a second at most."""

    def __init__(self, path: Path) -> None:
        self._path, self._next, self.seen = path, 0.0, False

    def __call__(self) -> bool:
        """True from the first look that finds the file."""
        now = time.monotonic()
        if not self.seen and now >= self._next:
            self._next = now + 0.5
            self.seen = self._path.exists()
        return self.seen


def _worker_lost(error: Exception) -> bool:
    from tips_dist.training.execution import WorkerLost  # torch: only trials need it

    return isinstance(error, WorkerLost)


def _wall(trial: Trial, since: float) -> float:
    return round(trial.wall_seconds + time.monotonic() - since, 3)


def _metrics(trial: Trial, progress: Progress) -> Report:
    return {
        "trial": trial.id,
        "state": TrialState.RUNNING.value,
        "risk": NO_RISK if progress.risk is None else float(progress.risk),
        "judged": progress.risk is not None,
        "step": progress.step,
        "steps": progress.steps,
        "steps_per_second": float(progress.steps_per_second),
        **{SPENT + name: seconds for name, seconds in progress.spent.model_dump().items()},
        **{VERDICT + verdict: n for verdict, n in Counter(progress.verdicts.values()).items()},
    }


@contextlib.contextmanager
def _alive(folder: Path, heartbeat: float, node: str) -> Iterator[Callable[[Progress], None]]:
    """Keep ``alive.json`` fresh from a thread (a stopped process cannot), with the last progress in it."""
    path = layout.ALIVE.beside(folder)
    who = Alive(host=socket.gethostname(), pid=os.getpid(), node=node)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(min(heartbeat / 5, 5.0)):
            with contextlib.suppress(OSError):
                os.utime(path)

    def progress(now: Progress) -> None:
        changes = {
            "step": now.step,
            "steps": now.steps,
            "risk": now.risk,
            "verdicts": dict(Counter(now.verdicts.values())),
            "steps_per_second": now.steps_per_second,
            "active_seeds": now.active_seeds,
            "message": now.message,
            "time": timestamp(),
        }
        who.model_copy(update=changes).save(path)

    patiently(lambda: who.model_copy(update={"time": timestamp()}).save(path))
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        done.set()
        thread.join(timeout=1.0)
