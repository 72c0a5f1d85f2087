"""Start, resume and look at a study. The run folder is the only truth; read :func:`resume` to know the whole path."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from tips_dist import terminal
from tips_dist.config import Resources, Study
from tips_dist.files import UserError
from tips_dist.mirror import NOWHERE, mirrored
from tips_dist.phases import listening, phase
from tips_dist.runfolder import RunFolder, TrialState, layout, read_trials
from tips_dist.runfolder.choices import StudentRecord
from tips_dist.runfolder.fetching import fetch_run
from tips_dist.runfolder.lock import locked
from tips_dist.runfolder.poses import expect, run_poses, study_poses
from tips_dist.runfolder.records import StudyRecord
from tips_dist.runfolder.spent import BETWEEN, TRAINING
from tips_dist.storage import Store, below
from tips_dist.study import space, thawing
from tips_dist.study.cluster import Machine, connected
from tips_dist.study.folder import check_plugins, check_unchanged, create, extend, own_study
from tips_dist.study.mending import mend
from tips_dist.study.place import GRACE, grace_seconds
from tips_dist.study.records import StudyEvent
from tips_dist.study.sessions import timed
from tips_dist.study.status import PhaseNote, status
from tips_dist.study.trainable import Train
from tips_dist.trackers import check_trackers, tracked

if TYPE_CHECKING:
    from tips_dist.data.store import Poses

__all__ = ["StudyEvent", "StudyInterrupted", "open_recorded", "resume", "start", "status", "unfinished"]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

Conclude = Callable[[Path, "Poses"], None]


class StudyInterrupted(KeyboardInterrupt):
    """The user stopped the study; ``run`` goes on with it, from what :meth:`words` says was saved."""

    def __init__(self, run: Path, unsaved: Sequence[str] = (), seconds: float = 0.0) -> None:
        super().__init__(f"tips-dist resume {run}")
        self.run, self.unsaved, self.seconds = run, tuple(unsaved), seconds

    def words(self) -> str:
        """Whether everything was saved; trials that did not come to it go on from their last checkpoints."""
        if not self.unsaved:
            return "the state is saved"
        some = ", ".join([*self.unsaved[:3], *(["…"] if len(self.unsaved) > 3 else [])])
        return (
            f"{len(self.unsaved)} running trial{'s' * (len(self.unsaved) > 1)} ({some}) could not save within "
            f"{self.seconds:.0f} s and will go on from the last checkpoint ({GRACE}=SECONDS waits longer)"
        )


def start(
    study: Study,
    *,
    study_path: Path,
    text: str,
    overrides: Sequence[str] = (),
    runs: Path = Path("runs"),
    address: str | None = None,
    progress: Callable[[StudyEvent], None] | None = None,
    train: Train | None = None,
    conclude: Conclude | None = None,
    storage: str | None = None,
    track: Sequence[str] = (),
    made: Callable[[Path], None] | None = None,
) -> Path:
    """Make a run folder for a study and do all of its work there, by :func:`resume`.

    Args:
        study: the resolved study (``text`` with ``overrides`` applied).
        study_path: the study file; a relative ``data.poses`` is relative to its folder.
        text: the study file's text, kept as given.
        overrides: the ``key=value`` arguments, kept in the record.
        runs: where run folders lie.
        address: of a Ray cluster; None works on this machine.
        progress: hears of every event.
        train: replaces the training loop (tests).
        conclude: replaces :func:`select_and_distil`.
        storage: an address below which the run folder is mirrored while it runs.
        track: trackers to copy curves and verdicts to while it runs, by their registered names.
        made: hears of the run folder before anything is done in it.

    Returns:
        The run folder.

    Raises:
        UserError: bad input, a study that cannot be placed, a run folder that exists already; nothing is left.
        StorageError: the disk is full or not writable.
        StudyInterrupted: Ctrl-C; the state is saved.
    """
    grace_seconds()  # a wrong one, and a wrong address, should be said before anything is made
    poses = study_poses(study.data, study_path.parent)
    if storage is not None and storage != NOWHERE:
        Store(storage).list(few=True)
    check_trackers(track)
    with timed(), _ray(study.resources, address, poses, space.budgets(study)):
        run = create(study, poses, study_path, text, overrides, runs)
        if made is not None:
            made(run)
        return resume(
            run,
            address=address,
            progress=progress,
            train=train,
            conclude=conclude,
            poses=poses,
            storage=storage,
            track=track,
        )


def resume(
    run: Path,
    *,
    trials: int | None = None,
    study_path: Path | None = None,
    address: str | None = None,
    progress: Callable[[StudyEvent], None] | None = None,
    train: Train | None = None,
    conclude: Conclude | None = None,
    poses: Poses | None = None,
    storage: str | None = None,
    track: Sequence[str] = (),
    notice: Callable[[str], None] | None = None,
    thaw: Sequence[str] | None = None,
) -> Path:
    """Bring a study to its end from whatever its folder holds: nothing, some trials, or all of them.

    Args:
        run: the run folder.
        trials: extends the budget by so many trials per representation, for good.
        study_path: a study file that must equal the recorded one.
        address: as for :func:`start`.
        progress: likewise.
        train: likewise.
        conclude: likewise.
        poses: the data set, where the caller has it open already.
        storage: as for :func:`start`; None goes on mirroring to where an earlier driver did.
        track: as for :func:`start`.
        notice: hears what was damaged and what became of it (study/mending.py), and other things that a person should
            know; standard error by default.
        thaw: frozen seeds that are to go on (study/thawing.py); an empty list means all of them, None no one.

    Raises:
        UserError: not a run folder; another process works on it; the study file or the data differ from the record.
        StorageError: the disk is full or not writable.
        StudyInterrupted: Ctrl-C; the state is saved.
    """
    run, say, grace = run.resolve(), notice or terminal.notice, grace_seconds()
    record = RunFolder(run).study
    with _resumable(run), locked(run), mirrored(run, storage), tracked(run, track), timed() as keeper:
        check_plugins(run, record)
        for note in mend(run, record):
            say(note)
        check_unchanged(run, record, study_path)
        if trials is not None:
            record = extend(run, record, trials)
        if thaw is not None:
            for note in thawing.thaw_seeds(run, thaw):
                say(note)
        study = record.study
        if (why := thawing.one_seed(study)) is not None:
            say(why)
        poses = poses if poses is not None else run_poses(run, record)
        left = space.budgets(study) - sum(trial.state.final for trial in read_trials(run))
        with _none_running(run), _ray(study.resources, address, poses, left) as machine:
            from tips_dist.study.search import TrialSearch
            from tips_dist.study.tuning import run_trials

            def told(event: StudyEvent) -> None:
                keeper.beat()
                if event.step:
                    _import_ahead()
                (progress or _ignore)(event)

            more: StudyRecord | None = record
            keeper.keep(run, machine)
            keeper.do(TRAINING)
            with _interruptible(run, grace):
                while more is not None:
                    search = TrialSearch(more.study, run)
                    unfinished = search.recover()
                    run_trials(more.study, run, poses, search, unfinished, told, train)
                    more = None if layout.STOP.at(run).exists() else thawing.give_back(run, more)
        keeper.do(BETWEEN)
        with listening(PhaseNote(run)):
            (conclude or select_and_distil)(run, poses)
    return run


def unfinished(study: Study, runs: Path, storage: str | None = None) -> Path | None:
    """The newest run of this very study that is not done, in ``runs`` or (fetched to there) at ``storage``.

    This is how a job that was submitted, requeued or preempted goes on instead of starting anew.
    """
    if storage is not None and storage != NOWHERE:
        names = {name.split("/")[0] for name in Store(storage).list() if name.endswith(f"/{layout.STUDY.name}")}
        for name in names - {path.name for path in runs.glob("*") if not layout.FETCHING.at(path).exists()}:
            if name.startswith(f"{study.name}-"):
                fetch_run(below(storage, name), folder=runs / name)
    for run in sorted(runs.glob(f"{study.name}-*"), reverse=True):
        with contextlib.suppress(UserError):
            record = RunFolder(run).study
            if record.asks_for(study, own_study(run, record)) and not layout.STUDENT.at(run).exists():
                return run
    return None


def open_recorded(run: Path, study: Study, base: Path) -> Poses:
    """Open the poses that a study file names, for a run that was begun with the same ones at another place.

    Raises:
        UserError: they are others than those of the run.
    """
    return expect(study_poses(study.data, base), RunFolder(run).study, run, study.data.poses or "procedural data")


def select_and_distil(run: Path, poses: Poses, decided: Callable[[], None] = lambda: None) -> None:
    """Choose teachers from all trials, then teach the student; a student of the same teachers is kept.

    Args:
        run: the run folder.
        poses: those of the run.
        decided: called once everything is chosen and only the student is left to be taught.
    """
    from tips_dist.dependence import record_dependence
    from tips_dist.distillation import distill
    from tips_dist.second_look import Looker
    from tips_dist.selection import select
    from tips_dist.study.artifacts import attach_lift
    from tips_dist.study.search import TrialSearch

    path = layout.SELECTION.at(run)
    before = path.read_bytes() if path.is_file() else None
    with phase("selecting checkpoints"):
        select(run, Looker(poses, RunFolder(run).study.data.scale))
    with phase("recording what depths depend on"):
        record_dependence(run, poses)
    decided()
    if path.read_bytes() != before or not _taught(run):
        distill(run, poses)
    else:
        with phase("distilling the student") as told:
            told.note("nothing to do, its teachers are the same")
    with phase("drawing for Optuna's dashboard") as told:
        told.note(attach_lift(run, poses, TrialSearch(RunFolder(run).study.study, run).studies))


@contextlib.contextmanager
def _ray(resources: Resources, address: str | None, poses: Poses, trials: int) -> Iterator[Machine]:
    """Ray, with workers that get ready for so many trials."""
    with contextlib.ExitStack() as stack:
        with phase("starting Ray"):
            machine = stack.enter_context(connected(resources, address, poses.poses.nbytes, trials))
        try:
            yield machine
        finally:
            if _import_ahead.cache_info().currsize:
                _import_ahead().join()  # handles of Ray that its garbage collection lets go must find Ray alive


@functools.cache
def _import_ahead() -> threading.Thread:
    """While trials train the driver has time for what it needs after them, seconds of imports."""
    needed = ("tips_dist.second_look", "tips_dist.dependence", "tips_dist.distillation")
    thread = threading.Thread(target=lambda: [importlib.import_module(name) for name in needed], daemon=True)
    thread.start()
    return thread


def _taught(run: Path) -> bool:
    """Whether there is a whole student: its record reads, and its weights are those that the record tells of."""
    try:
        record, weights = StudentRecord.load(layout.STUDENT.at(run)), layout.STUDENT_WEIGHTS.at(run)
        return weights.is_file() and hashlib.sha256(weights.read_bytes()).hexdigest() == record.digest
    except (UserError, OSError):
        return False


@contextlib.contextmanager
def _resumable(run: Path) -> Iterator[None]:
    """Say of an interrupt at any phase which run goes on where it was: every write is whole or not there.

    Raises:
        StudyInterrupted: the body was interrupted.
    """
    try:
        yield
    except StudyInterrupted:
        raise
    except KeyboardInterrupt:
        raise StudyInterrupted(run) from None


@contextlib.contextmanager
def _none_running(run: Path) -> Iterator[None]:
    """When Ray and its workers have gone, however that came, no trial is on record as running any more."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError, UserError):
            for trial in read_trials(run):
                if trial.state is TrialState.RUNNING:
                    trial.now(state=TrialState.PENDING).write(run)


def _ignore(event: StudyEvent) -> None:
    pass


@contextlib.contextmanager
def _interruptible(run: Path, grace: float) -> Iterator[None]:
    """Turn Ctrl-C (or another of ``INTERRUPTS``) into a request that trials save; a second one, or time, ends it hard.

    Args:
        run: the run folder.
        grace: seconds that the place grants (:func:`tips_dist.study.place.grace_seconds`).

    Raises:
        StudyInterrupted: after the trials have saved, or when time was up; it knows which did not.
    """
    flag = layout.STOP.at(run)
    flag.unlink(missing_ok=True)
    asked = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(grace, 0.01))
        with contextlib.suppress(OSError):
            flag.touch()

    def give_up(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    wanted = {**dict.fromkeys(INTERRUPTS, ask), signal.SIGALRM: give_up}
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()} if main else {}
    try:
        yield
        if asked:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise StudyInterrupted(run, _running(run), time.monotonic() - asked if asked else 0.0) from None
    finally:
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):
            flag.unlink(missing_ok=True)


def _running(run: Path) -> list[str]:
    """Trials whose workers have not said that they saved their state."""
    with contextlib.suppress(OSError, UserError):
        return [trial.id for trial in read_trials(run) if trial.state is TrialState.RUNNING]
    return []
