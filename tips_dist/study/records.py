"""Working in a run folder: the lock, who holds it, events, patience with storage that is away for a moment."""

from __future__ import annotations

import contextlib
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
from typing import IO, TypeVar

from tips_dist.files import StorageError, UserError
from tips_dist.patience import patiently as again
from tips_dist.runfolder import layout
from tips_dist.runfolder.records import Holder

PATIENCE_SECONDS = 60.0
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

T = TypeVar("T")


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


def timestamp() -> str:
    """The local time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def patiently(action: Callable[[], T], patience: float | None = None) -> T:
    """Do ``action``; while the run folder's storage is away, try again for up to ``patience`` seconds.

    A full, read-only or forbidden disk is not waited for: somebody has to act. ``action`` must be safe to repeat.

    Raises:
        StorageError: storage did not come back, or is full or read-only.
    """
    try:
        return again(
            action,
            PATIENCE_SECONDS if patience is None else patience,
            errors=(StorageError, OSError),
            hopeless=_hopeless,
            longest=4.0,
        )
    except OSError as error:
        raise StorageError(f"{error.filename or 'run folder'}: storage failed: {error.strerror}") from error


def _hopeless(error: Exception) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in _HOPELESS


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder's lock: one ``run`` or ``resume`` works in a folder at a time.

    The kernel drops the lock with the process that holds it, so a dead holder never blocks anyone.

    Raises:
        UserError: another process holds it; the message names its host and process id.
    """
    with layout.LOCK.at(run).open("a+") as stream:
        if not _flock(stream, patience=0.5):  # half a second, as `status` may look at the lock just now
            stream.seek(0)
            raise UserError(f"{run}: {_holder(stream.read())} works on this run; wait for it or stop it")
        stream.seek(0)
        stream.truncate()
        json.dump(Holder(host=socket.gethostname(), pid=os.getpid(), since=timestamp()).plain(), stream)
        stream.flush()
        try:
            yield
        finally:
            stream.seek(0)
            stream.truncate()


def holder(run: Path) -> Holder | None:
    """Who works on the run now, or None. Never blocks, never takes the lock for long."""
    try:
        with layout.LOCK.at(run).open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return _read_holder(stream.read())
    except OSError:
        return None


def _read_holder(text: str) -> Holder:
    try:
        return Holder.parse(text, "lock")
    except UserError:  # it is being written
        return Holder(host="unknown", pid=0)


def _holder(text: str) -> str:
    found = _read_holder(text)
    return f"process {found.pid} on {found.host} (since {found.since})" if found.since else "another process"


@contextlib.contextmanager
def alone_in(folder: Path, patience: float = 30.0) -> Iterator[None]:
    """Keep a second worker out of a trial's folder while a first one, believed dead, may still write there.

    Raises:
        StorageError: the other worker is still there after ``patience`` seconds.
    """
    with layout.TRIAL_LOCK.beside(folder).open("a") as stream:
        if not _flock(stream, patience):
            raise StorageError(f"{folder}: another worker still writes here")
        yield


def _flock(stream: IO[str], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
