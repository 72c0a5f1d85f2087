"""Who works in a run folder: one process at a time, and only on a folder that is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from tips_dist.files import StorageError, UserError, drop_unfinished
from tips_dist.runfolder import layout
from tips_dist.runfolder.records import Holder


def timestamp() -> str:
    """The local time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


@contextlib.contextmanager
def locked(run: Path, *, patience: float = 0.5, fetching: bool = False) -> Iterator[None]:
    """Hold the run folder's lock: one ``run``, ``resume`` or ``fetch`` works in a folder at a time.

    The kernel drops the lock with the process that holds it, so a dead holder never blocks anyone; what such a one left
    unfinished is removed.

    Args:
        run: the folder.
        patience: seconds to wait for the holder; not none, as ``status`` may look at the lock just now.
        fetching: the body completes the folder.

    Raises:
        UserError: another process holds it (the message names its host and process id), or only a part of the run was
            fetched into the folder, or the disk has no locks.
    """
    with _opened(layout.LOCK.at(run), "a+") as stream:
        if not _flock(stream, patience):
            stream.seek(0)
            raise UserError(f"{run}: {_said(stream.read())} works on this run; wait for it or stop it")
        if not fetching and layout.FETCHING.at(run).exists():
            raise UserError(f"{run}: only a part of this run was fetched; fetch it again to complete it")
        stream.seek(0)
        stream.truncate()
        json.dump(Holder(host=socket.gethostname(), pid=os.getpid(), since=timestamp()).plain(), stream)
        stream.flush()
        try:
            drop_unfinished(run)
            yield
        finally:
            stream.seek(0)
            stream.truncate()


def holder(run: Path) -> Holder | None:
    """Who works on the run now, or None. Never blocks, never takes the lock for long."""
    try:
        with os.fdopen(os.open(layout.LOCK.at(run), os.O_RDONLY | os.O_NONBLOCK)) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return _read_holder(stream.read())
    except OSError:
        return None


def abandoned(run: Path) -> bool:
    """Whether nobody works on the run; not if its disk is away, or it was never worked on."""
    try:
        with os.fdopen(os.open(layout.LOCK.at(run), os.O_RDONLY | os.O_NONBLOCK)) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


@contextlib.contextmanager
def alone_in(folder: Path, patience: float = 30.0) -> Iterator[None]:
    """Keep a second worker out of a trial's folder while a first one, believed dead, may still write there.

    Raises:
        StorageError: the other worker is still there after ``patience`` seconds.
        UserError: the disk has no locks.
    """
    with _opened(layout.TRIAL_LOCK.beside(folder), "a") as stream:
        if not _flock(stream, patience):
            raise StorageError(f"{folder}: another worker still writes here")
        yield


def _opened(path: Path, mode: str) -> IO[str]:
    """The lock file, opened for locking; never what a link leads to."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UserError(f"{path}: is no ordinary file, so it cannot be the run's lock; remove it")
        return os.fdopen(descriptor, mode)
    except OSError as error:
        raise StorageError(f"{path}: cannot be used as a lock ({error.strerror})") from error


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
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise UserError(
                    f"{stream.name}: this disk has no file locks ({error.strerror}), and a run must hold one; put the "
                    "runs on another disk (--runs FOLDER), or mount this one with locks (NFS: without nolock)"
                ) from None
            raise StorageError(f"{stream.name}: cannot be locked ({error.strerror})") from error


def _read_holder(text: str) -> Holder:
    try:
        return Holder.parse(text, "lock")
    except UserError:  # it is being written
        return Holder(host="unknown", pid=0)


def _said(text: str) -> str:
    found = _read_holder(text)
    return f"process {found.pid} on {found.host} (since {found.since})" if found.since else "another process"
