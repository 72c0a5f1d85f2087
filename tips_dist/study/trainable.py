"""Trials on a worker: configuration -> training loop -> report; one, or several as one program.

Each finds its own state in its folder and goes on from it, whoever killed the last worker. The worker writes the
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
from typing import TYPE_CHECKING, Any, Protocol

from tips_dist.config import Configuration
from tips_dist.files import StorageError, write_text
from tips_dist.runfolder import Alive, Outcome, Trial, TrialState, layout, read_trial
from tips_dist.runfolder.lock import alone_in, timestamp
from tips_dist.study.records import patiently

if TYPE_CHECKING:
    from tips_dist.data.store import Poses
    from tips_dist.training.job import Ended, Job
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


class Together(Protocol):
    """The signature of :func:`tips_dist.training.together.train_together`."""

    def __call__(
        self,
        jobs: Sequence[Job],
        poses: Poses,
        ended: Ended,
        *,
        should_stop: Callable[[], bool] | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        """Train all jobs, and tell of each how it ended; see there."""
        ...


def one_by_one(train: Train) -> Together:
    """Train jobs one after another."""

    def together(
        jobs: Sequence[Job],
        poses: Poses,
        ended: Ended,
        *,
        should_stop: Callable[[], bool] | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        for place, job in enumerate(jobs):
            again = {"thaw": job.thaw} if job.thaw else {}
            try:
                what: Outcome | Exception = train(
                    job.configuration,
                    job.seeds,
                    poses,
                    job.folder,
                    report=job.report,
                    should_stop=should_stop,
                    threads=threads,
                    device=device,
                    **again,
                )
            except Exception as error:
                what = error
            ended(place, what)

    return together


def run_trial(run: Path, identity: str, poses: Poses, train: Train, tell: Tell, **others: Any) -> None:
    """Train one trial to its end by itself; see :func:`run_pack`."""
    run_pack(run, [identity], poses, one_by_one(train), tell, **others)


def run_pack(
    run: Path,
    trials: Sequence[str],
    poses: Poses,
    together: Together,
    tell: Tell,
    *,
    threads: int = 1,
    device: str = "cpu",
    heartbeat: float = 60.0,
    node: str = "",
) -> None:
    """Train trials to their ends, or until they are asked to stop, and keep their records.

    Args:
        run: the run folder.
        trials: their ids; their records exist.
        poses: the data set.
        together: the training loop.
        tell: takes a dictionary of plain numbers and strings at every evaluation step of a trial, and where one of
            several has ended; whatever it raises stops them all (this is how Ray does it).
        threads: for the tensor library.
        device: "cpu" or "cuda".
        heartbeat: the worker shows a sign of life at least five times in this many seconds.
        node: where this worker runs, for whoever must kill it.

    A record ends as ``finished``, ``failed`` (the training code raised; the message is in the record, the traceback
    in ``error.txt``) or ``pending`` (interrupted, state saved).

    Raises:
        StorageError: storage is full or stayed away; the records are as the last write left them.
        WorkerLost: one of several workers died; so does this one, and the trial starts again from its checkpoint.
    """
    asked_to_stop = StopFlag(layout.STOP.at(run))
    if layout.STOP.at(run).exists():
        return
    with contextlib.ExitStack() as stack:
        left = [
            stack.enter_context(Attempt(run, trial, asked_to_stop, tell, heartbeat, node))
            for trial in (read_trial(run, identity) for identity in trials)
            if not trial.state.final
        ]

        def work() -> None:
            trying, away = [*left], list[StorageError]()

            def ended(place: int, what: Outcome | Exception) -> None:
                if isinstance(what, StorageError):
                    away.append(what)
                    return
                trying[place].end(what)
                left.remove(trying[place])
                if len(trials) > 1:
                    tell({"trial": trying[place].trial.id, "ended": True})

            jobs = [attempt.job() for attempt in trying]
            together(jobs, poses, ended, should_stop=asked_to_stop, threads=threads, device=device)
            if away:
                raise away[0]  # those are tried again, from their checkpoints

        patiently(work)


class Attempt:
    """A worker's attempt at a trial: the lock of its folder, its sign of life, its record."""

    def __init__(self, run: Path, trial: Trial, stop: StopFlag, tell: Tell, heartbeat: float, node: str) -> None:
        self.run, self.trial, self._stop, self._tell = run, trial, stop, tell
        self._heartbeat, self._node = heartbeat, node
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Attempt:
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone_in(self.trial.folder(self.run)))
            self._alive = stack.enter_context(_alive(self.trial.folder(self.run), self._heartbeat, self._node))
            started, attempts = self.trial.started or timestamp(), self.trial.attempts + 1
            self.trial = self.trial.now(state=TrialState.RUNNING, error=None, started=started, attempts=attempts)
            patiently(lambda: self.trial.write(self.run))
            self._stack = stack.pop_all()
        self._clock = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def job(self) -> Job:
        """What is to be trained."""
        from tips_dist.training.job import Job

        trial = self.trial
        return Job(trial.configuration, trial.seeds, trial.folder(self.run), report=self._report, thaw=trial.thaw)

    def _report(self, progress: Progress) -> None:
        self._alive(progress)
        self._tell(_metrics(self.trial, progress))

    def end(self, what: Outcome | Exception) -> None:
        """Write how the trial ended into its record, and let its folder go.

        Raises:
            WorkerLost: that is no end.
        """
        ends: dict[str, Any]
        if not isinstance(what, Exception):
            ends = {"state": TrialState.FINISHED, "outcome": what, "ended": timestamp()}
        elif self._stop.seen:  # the loop's way out, after it saved its state
            ends = {"state": TrialState.PENDING}
        else:
            with contextlib.suppress(StorageError):
                write_text(layout.ERROR.at(self.run, self.trial.id), "".join(traceback.format_exception(what)))
            if _worker_lost(what):
                raise what
            message = f"{type(what).__name__}: {what}".splitlines()[0]
            ends = {"state": TrialState.FAILED, "error": message, "ended": timestamp()}
        wall = round(self.trial.wall_seconds + time.monotonic() - self._clock, 3)
        self.trial = self.trial.now(**ends, wall_seconds=wall)
        patiently(lambda: self.trial.write(self.run))
        self._stack.close()


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
