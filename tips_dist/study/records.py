"""The run folder as the study sees it: trial records, the lock, patience with storage that is away for a moment."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from tips_dist.files import StorageError, UserError, read_json, write_json

STOP_FILE = ".stop"  # its presence asks every running trial to save its state and return
FINAL = ("finished", "failed", "stopped")
PATIENCE_SECONDS = 60.0
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """One trial's record, ``trials/<id>/trial.json``: what was asked, where it stands, what came out."""

    id: str
    representation: str
    number: int
    parameters: dict[str, Any]
    configuration: dict[str, Any]
    seeds: list[int]
    state: str = "pending"  # pending, running, finished, failed, stopped
    error: str | None = None
    started: str | None = None
    ended: str | None = None
    wall_seconds: float = 0.0  # summed over attempts
    attempts: int = 0
    outcome: dict[str, Any] | None = None
    schema: int = field(default=1)

    def folder(self, run: Path) -> Path:
        """Where this trial's files lie."""
        return run / "trials" / self.id

    def write(self, run: Path) -> Trial:
        """Write the record atomically and return it."""
        write_json(self.folder(run) / "trial.json", dataclasses.asdict(self))
        return self

    def now(self, **changes: Any) -> Trial:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class StudyEvent:
    """Something happened to a trial; for live views. Made on the driver, in the order things became known."""

    trial: str
    representation: str
    state: str  # a trial's state, or "queued"
    step: int = 0
    steps: int = 0
    risk: float | None = None  # median over the seeds of the best risk so far
    verdicts: Mapping[str, int] = field(default_factory=dict)  # verdict -> number of seeds
    steps_per_second: float | None = None  # seed-steps
    error: str | None = None


def read_trial(run: Path, identity: str) -> Trial:
    """Read one trial's record.

    Raises:
        UserError: it is missing, damaged or of another schema.
    """
    path = run / "trials" / identity / "trial.json"
    values = read_json(path)
    names = {f.name for f in dataclasses.fields(Trial)}
    if not isinstance(values, dict) or values.get("schema") != 1:
        raise UserError(f"{path}: not a trial record of schema 1")
    try:
        return Trial(**{key: value for key, value in values.items() if key in names})
    except TypeError as error:
        raise UserError(f"{path}: not a trial record ({error})") from None


def read_trials(run: Path) -> list[Trial]:
    """Every trial that has a record, ordered by number, then representation."""
    paths = sorted((run / "trials").glob("*/trial.json"))
    trials = [read_trial(run, path.parent.name) for path in paths]
    return sorted(trials, key=lambda trial: (trial.number, trial.representation))


def timestamp() -> str:
    """The local time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def patiently(action: Callable[[], T], patience: float | None = None) -> T:
    """Do ``action``; while storage is away, try again for up to ``patience`` seconds.

    A full, read-only or forbidden disk is not waited for: somebody has to act. ``action`` must be safe to repeat.

    Raises:
        StorageError: storage did not come back, or is full or read-only.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    pause, first_failure = 0.25, 0.0
    while True:
        begun = time.monotonic()
        try:
            return action()
        except (StorageError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            now = time.monotonic()
            if not first_failure or now - begun > patience:  # the first, or after a good while of working storage
                pause, first_failure = 0.25, now
            if number in _HOPELESS or now + pause - first_failure > patience:
                if isinstance(error, StorageError):
                    raise
                raise StorageError(f"{error.filename or 'run folder'}: storage failed: {error.strerror}") from error
            time.sleep(pause)
            pause = min(2 * pause, 4.0)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder's lock: one ``run`` or ``resume`` works in a folder at a time.

    The kernel drops the lock with the process that holds it, so a dead holder never blocks anyone.

    Raises:
        UserError: another process holds it; the message names its host and process id.
    """
    with (run / "lock").open("a+") as stream:
        if not _flock(stream, patience=0.5):  # half a second, as `status` may look at the lock just now
            stream.seek(0)
            raise UserError(f"{run}: {_holder(stream.read())} works on this run; wait for it or stop it")
        stream.seek(0)
        stream.truncate()
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": timestamp()}, stream)
        stream.flush()
        try:
            yield
        finally:
            stream.seek(0)
            stream.truncate()


def holder(run: Path) -> dict[str, Any] | None:
    """Who works on the run now (``host``, ``pid``, ``since``), or None. Never blocks, never takes the lock for long."""
    try:
        with (run / "lock").open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return dict(json.loads(stream.read() or "{}"))
    except (OSError, json.JSONDecodeError):
        return None


def _holder(text: str) -> str:
    try:
        values = json.loads(text)
        return f"process {values['pid']} on {values['host']} (since {values['since']})"
    except (json.JSONDecodeError, KeyError):
        return "another process"


@contextlib.contextmanager
def alone_in(folder: Path, patience: float = 30.0) -> Iterator[None]:
    """Keep a second worker out of a trial's folder while a first one, believed dead, may still write there.

    Raises:
        StorageError: the other worker is still there after ``patience`` seconds.
    """
    with (folder / ".lock").open("a") as stream:
        if not _flock(stream, patience):
            raise StorageError(f"{folder}: another worker still writes here")
        yield


def _flock(stream: IO[str], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise UserError(
                    f"{stream.name}: this disk has no file locks ({error.strerror}), and a run must hold one; put the "
                    "runs on another disk (--runs FOLDER), or mount this one with locks (NFS: without nolock)"
                ) from None
            if not isinstance(error, BlockingIOError):
                raise
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
