"""The office writes the run folder for workers that do not see the driver's disk: it lies with the driver, they do not.

Parts of files come as parcels from couriers (:mod:`tips_dist.study.courier`), each for the trials that its worker
works on; a worker that starts a trial anew gets back what lies here. Who takes a trial on takes it from whoever had it
before: what comes late from a worker that was given up is refused. Nothing here knows of Ray, which carries the calls
(:mod:`tips_dist.study.desk`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tips_dist.files import StorageError, UserError, storage_error, write_bytes, write_with
from tips_dist.runfolder import layout
from tips_dist.runfolder.lock import abandoned, alone_in
from tips_dist.storage import linked
from tips_dist.study.records import patiently

PARCEL_BYTES = 8 * 2**20  # at most, of one parcel: a worker has one under way


class Superseded(RuntimeError):  # noqa: N818
    """A trial is no longer this worker's: another one has taken it on, or it has ended."""


@dataclass(frozen=True)
class Parcel:
    """A part of a file on its way to the run folder."""

    name: str  # relative to the run folder
    content: bytes | None  # None: the file is gone; empty: it was touched
    offset: int = 0  # of the content in the file
    size: int | None = None  # the whole file's, which is put in place when all of it has come; None: changed in place


class Office:
    """The one writer of a run folder, for workers on nodes that do not see it."""

    def __init__(self, run: Path, mark: str) -> None:
        """``mark`` is what this driver wrote into the folder (see :func:`sees`)."""
        self.run, self.mark = run, mark
        self._held: dict[str, _Held] = {}  # trial -> by whom

    def open(self, session: str, trials: Sequence[str], direct: bool) -> dict[str, int]:
        """Take trials on.

        Args:
            session: a name that nobody else has.
            trials: their ids.
            direct: the worker sees the run folder and works there itself; nothing is taken from it here.

        Returns:
            What their folders hold: bytes of each file, by its name relative to the run folder.

        Raises:
            StorageError: an earlier worker still writes in one of the folders, or the driver's own node does not see
                the driver's disk.
        """
        if not sees(self.run, self.mark):
            raise StorageError(f"{self.run}: the driver's own Ray node does not see this folder; give both one disk")
        found: dict[str, int] = {}
        for trial in trials:
            self.release(trial)
            if not direct:
                lock = contextlib.ExitStack()
                lock.enter_context(alone_in(layout.trial_folder(self.run, trial)))
                self._held[trial] = _Held(session, lock)
                found |= {name: path.stat().st_size for name, path in files_of(self.run, trial)}
        return found

    def release(self, trial: str) -> None:
        """Take a trial from whoever has it: nothing more of it is accepted, and nothing is under way any more."""
        held = self._held.pop(trial, None)
        if held is not None:
            with held.busy:
                held.lock.close()
                for left in layout.trial_folder(self.run, trial).rglob(f".*.{held.session}.tmp"):
                    left.unlink(missing_ok=True)

    def close(self, session: str) -> None:
        """Release all trials of a session."""
        for trial in [trial for trial, held in list(self._held.items()) if held.session == session]:
            self.release(trial)

    def read(self, session: str, name: str, offset: int) -> bytes:
        """A part of a file, at most :data:`PARCEL_BYTES`.

        Raises:
            Superseded: the trial is another worker's by now.
        """
        with self._place(session, name) as path, path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(PARCEL_BYTES)

    def take(self, session: str, parcels: Sequence[Parcel]) -> None:
        """Put parcels where they belong, in their order.

        Raises:
            Superseded: the trial is another worker's by now, or the run another driver's.
            UserError: a name that no trial of this session has, or that is reached through a link.
            StorageError: the disk is full or stays away.
        """
        if self._displaced():
            raise Superseded(f"{self.run}: another driver works here")
        for parcel in parcels:
            with self._place(session, parcel.name) as path:
                patiently(functools.partial(_put, path, parcel, session))

    def stopped(self) -> bool:
        """Whether the study was asked to stop, or is another driver's: what this one's workers hold is let go then."""
        if not self._displaced():
            return layout.STOP.at(self.run).exists()
        for trial in list(self._held):
            self.release(trial)
        return True

    def over(self) -> bool:
        """Whether our driver is gone: nobody holds its lock, or another one has begun to work here."""
        return self._displaced() or abandoned(self.run)

    def _displaced(self) -> bool:
        """Whether another driver has begun to work here: this one is dead, though its workers may not know yet."""
        try:
            return layout.DRIVER.at(self.run).read_text() != self.mark
        except FileNotFoundError:
            return layout.STUDY.at(self.run).exists()
        except (OSError, UnicodeDecodeError):
            return False  # storage is away

    @contextlib.contextmanager
    def _place(self, session: str, name: str) -> Iterator[Path]:
        """Where a file of a trial lies, which is not taken from the session meanwhile."""
        parts = name.split("/")
        trial = parts[1] if len(parts) > 2 and parts[0] == layout.TRIALS else ""
        if not {"", ".", ".."}.isdisjoint(parts) or not trial or not layout.in_layout(name) or not layout.copied(name):
            raise UserError(f"{name!r}: no file of a trial; not accepted")
        held = self._held.get(trial)
        with held.busy if held is not None else contextlib.nullcontext():
            if held is None or held.session != session or self._held.get(trial) is not held:
                raise Superseded(f"{trial} is no longer this worker's")
            yield linked(self.run, name)


@dataclass
class _Held:
    """A trial that a session has taken on."""

    session: str
    lock: contextlib.ExitStack  # its folder's, against workers that see the disk
    busy: threading.Lock = field(default_factory=threading.Lock)  # while something of it is read or written


def sees(run: Path, mark: str) -> bool:
    """Whether this process sees a driver's very run folder and may write there, not only one at the same place.

    A copy, or another node's folder of the same name, holds another driver's mark, or none.
    """
    try:
        return layout.DRIVER.at(run).read_text() == mark and os.access(run / layout.TRIALS, os.W_OK)
    except (OSError, UnicodeDecodeError):
        return False


def files_of(run: Path, trial: str) -> Iterator[tuple[str, Path]]:
    """The files of a trial that travel: name relative to the run folder, and path."""
    for place, _, names in os.walk(layout.trial_folder(run, trial), followlinks=False):
        for path in (Path(place, name) for name in names):
            name = path.relative_to(run).as_posix()
            if layout.in_layout(name) and layout.copied(name) and path.is_file() and not path.is_symlink():
                yield name, path


def _put(path: Path, parcel: Parcel, session: str) -> None:
    content, whole = parcel.content, parcel.size
    if content is None:
        path.unlink(missing_ok=True)
    elif whole is None:
        _patch(path, parcel.offset, content, os.O_WRONLY)
    elif whole == len(content):
        write_bytes(path, content)
    else:
        part = path.with_name(f".{path.name}.{session}.tmp")
        _patch(part, parcel.offset, content, os.O_WRONLY | (os.O_CREAT if parcel.offset else os.O_CREAT | os.O_TRUNC))
        if parcel.offset + len(content) == whole:
            write_with(path, lambda temporary: _move(part, temporary))


def _patch(path: Path, offset: int, content: bytes, how: int) -> None:
    """Write into a file that lies there, or behind its end; never through a link, never leaving a hole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, how | os.O_NOFOLLOW, 0o666), "wb") as stream:
            if os.fstat(stream.fileno()).st_size < offset:
                raise Superseded(f"{path}: shorter than what was sent of it; somebody else changed it")
            stream.seek(offset)
            stream.write(content)
        if not content:
            os.utime(path)
    except OSError as error:
        raise storage_error(path, error) from error


def _move(part: Path, place: Path) -> None:
    part.replace(place)
