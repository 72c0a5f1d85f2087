"""The courier brings what a trial writes on its own node to the office (:mod:`tips_dist.study.office`), and back.

A worker that sees the driver's run folder works there. Any other works in a scratch run folder of its own node: its
trials' files as the run folder holds them, and what the loop writes. The courier compares it with what it has sent and
sends what has changed, so nothing that reads or writes trials knows of it.

Whatever the sending is cut off at is a state that a killed worker might have left (as in :mod:`tips_dist.mirror`):
histories, depths, candidates and frozen seeds before the checkpoint that names them, then deletions, the trial's
record last. Histories and the sign of life go at every evaluation, before Ray hears of it, so that who
decides on reports finds them; the rest in the background, for a small share of a processor's time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from tips_dist.files import StorageError, UserError
from tips_dist.runfolder import layout
from tips_dist.runfolder.layout import FileKind
from tips_dist.runfolder.lock import alone_in
from tips_dist.study.office import PARCEL_BYTES, Parcel, Superseded, files_of, sees
from tips_dist.study.trainable import Report, Tell

TICK_SECONDS = 0.5  # between two signs of life, and two looks whether the study is to stop
SHARE = 0.02  # of a processor's time, for sending in the background
TIMES_NS = 100_000_000  # by which times of files may be coarser than writes
COMPARED_BYTES = 2**20  # pieces in which a file that is written anywhere is compared with what was sent of it
SCRATCH = "tips-dist-node-"  # how the names of scratch folders begin
LEFT_SECONDS = 600.0  # after which a scratch folder that nobody holds is removed


class Desk(Protocol):
    """The office as a courier reaches it: the thing itself, or through Ray. See :class:`.office.Office`."""

    run: Path
    mark: str

    def open(self, session: str, trials: Sequence[str], direct: bool) -> dict[str, int]: ...  # noqa: D102
    def read(self, session: str, name: str, offset: int) -> bytes: ...  # noqa: D102
    def take(self, session: str, parcels: Sequence[Parcel]) -> None: ...  # noqa: D102
    def close(self, session: str) -> None: ...  # noqa: D102
    def stopped(self) -> bool: ...  # noqa: D102


@contextlib.contextmanager
def at_hand(run: Path, trials: Sequence[str], desk: Desk | None, tell: Tell) -> Iterator[tuple[Path, Tell]]:
    """A run folder in which these trials can be worked on here: the driver's own, or a scratch one and a courier.

    Args:
        run: the driver's run folder.
        trials: the ids of the trials that this worker takes on.
        desk: the office; None where there is but one machine.
        tell: takes a trial's reports.

    Yields:
        The folder, and who takes reports instead: what they speak of has reached the driver then.

    Raises:
        StorageError: the driver's disk, or this node's, is full or stays away.
        WorkerLost: the trial is no longer this worker's, or the office is gone; it goes on from its checkpoint.
    """
    if desk is None:
        yield run, tell
        return
    session = secrets.token_hex(8)
    if sees(run, desk.mark):
        with _in_words():
            desk.open(session, trials, True)
        yield run, tell
        return
    with _scratch(run) as folder, Courier(desk, session, folder, trials) as courier:

        def tell_too(report: Report) -> None:
            courier.post() if "step" in report else courier.deliver()
            tell(report)

        yield folder, tell_too


class Courier:
    """Keeps the run folder's files of some trials equal to those in a scratch folder, while it is open."""

    def __init__(self, desk: Desk, session: str, folder: Path, trials: Sequence[str]) -> None:
        self.desk, self.session, self.folder, self.trials = desk, session, folder, trials
        self._there: dict[str, _Sent] = {}  # by name, what the run folder holds
        self._posting, self._going_round = threading.Lock(), threading.Lock()
        self._done = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def __enter__(self) -> Courier:
        with _in_words():
            for name, size in self.desk.open(self.session, self.trials, False).items():
                self._fetch(name, size)
            self._look_for_stop()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Deliver everything; where something else went wrong, as much as can be."""
        self._done.set()
        self._thread.join()
        try:
            with _in_words():
                self.deliver()
                self.desk.close(self.session)
        except Exception:
            if kind is None:
                raise
        finally:
            for sent in self._there.values():
                sent.stream.close()

    def check(self) -> None:
        """Raise what went wrong in the background."""
        if self._failure is not None:
            raise self._failure

    def post(self) -> None:
        """Send histories and signs of life, as far as they are written.

        Raises:
            StorageError, WorkerLost: that, or something in the background before, failed.
        """
        with _in_words(), self._posting:
            self.check()
            self._post()

    def deliver(self) -> None:
        """Send everything as it is now; see :meth:`post`."""
        with _in_words():
            self.check()
            self.round()

    def _post(self) -> None:
        parcels: list[Parcel] = []
        sent: dict[str, _Sent] = {}
        for name in self._prompt():
            opened = self._open(name)
            if opened is not None:
                parcels += opened.changes(self._there.get(name))
                sent[name] = opened
            elif name in self._there:
                parcels.append(Parcel(name, None))
                self._there.pop(name).stream.close()
        if parcels:
            self.desk.take(self.session, parcels)
        for name, opened in sent.items():
            self._now(name, opened)

    def round(self) -> None:
        """Send everything that has changed, in the order that makes every part of it a state to go on from."""
        with self._going_round:
            self._round()

    def _round(self) -> None:
        # What speaks of other files is opened before they are looked for. As it is replaced whole, it stays as it was
        # then, and all that it speaks of is there. What is to go is looked for before the checkpoints that follow it.
        records = self._opened(FileKind.RECORD)
        gone = self._there.keys() - set(self._names()) - set(self._prompt())
        others, states = self._together()
        with self._posting:
            self._post()
        for name, now in [*others, *states]:
            self._send(name, now)
        for name in sorted(gone, key=layout.order, reverse=True):  # checkpoints before what they speak of
            self.desk.take(self.session, [Parcel(name, None)])
            self._there.pop(name).stream.close()
        for name, now in records:
            self._send(name, now)

    def _together(self) -> tuple[list[tuple[str, _Sent]], list[tuple[str, _Sent]]]:
        """Everything between, and the checkpoints, with all that they speak of.

        The loop drops a candidate only after it has written a further checkpoint: if there is one, we look again.
        """
        while True:
            states = self._opened(FileKind.STATE)
            others = self._opened(*(kind for kind in FileKind if kind not in (FileKind.RECORD, FileKind.STATE)))
            again = self._opened(FileKind.STATE)
            same = [(name, now.number) for name, now in states] == [(name, now.number) for name, now in again]
            for _, now in again if same else [*states, *others, *again]:
                now.stream.close()
            if same:
                return others, states

    def _opened(self, *kinds: FileKind) -> list[tuple[str, _Sent]]:
        """The files of some kinds, without those that are posted, in the order of the layout."""
        names = [name for name in self._names() if layout.file_kind(name) in kinds]
        names = sorted(set(names) - set(self._prompt()), key=layout.order)
        return [(name, now) for name in names if (now := self._open(name)) is not None]

    def _send(self, name: str, now: _Sent) -> None:
        for parcel in now.changes(self._there.get(name)):
            self.desk.take(self.session, [parcel])
            if self._thread is threading.current_thread() and time.monotonic() > self._next_sign:
                self._sign()
        self._now(name, now)

    def _now(self, name: str, now: _Sent) -> None:
        before = self._there.get(name)
        self._there[name] = now
        if before is not None:
            before.stream.close()

    _next_sign = 0.0

    def _sign(self) -> None:
        """Show life, and see whether the study is to stop: between large parcels too."""
        self._next_sign = time.monotonic() + TICK_SECONDS
        self._look_for_stop()
        self.post()

    def _look_for_stop(self) -> None:
        if self.desk.stopped():
            layout.STOP.at(self.folder).touch()

    def _work(self) -> None:
        due = 0.0
        try:
            while not self._done.wait(TICK_SECONDS):
                self._sign()
                if time.monotonic() >= due:
                    begun = time.thread_time()
                    self.round()
                    due = time.monotonic() + (time.thread_time() - begun) / SHARE
        except Exception as error:
            self._failure = error

    def _fetch(self, name: str, size: int) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            while stream.tell() < size and (content := self.desk.read(self.session, name, stream.tell())):
                stream.write(content)
        opened = self._open(name)
        assert opened is not None
        for _ in opened.changes(None):  # learns what it holds
            pass
        self._there[name] = opened

    def _open(self, name: str) -> _Sent | None:
        try:
            return _Sent(name, (self.folder / name).open("rb"))
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        return [name for trial in self.trials for name, _ in files_of(self.folder, trial)]

    def _prompt(self) -> list[str]:
        """What goes at every evaluation."""
        files = (layout.HISTORY, layout.ALIVE)
        return [file.at(Path(), trial).as_posix() for trial in self.trials for file in files]


@dataclass
class _Sent:
    """A file as it was sent. It is kept open: as long as it is, no other file is taken for it (by its number)."""

    name: str
    stream: IO[bytes]
    pieces: list[bytes] = field(default_factory=list)  # digests, of a file that is written anywhere

    def __post_init__(self) -> None:
        found = os.fstat(self.stream.fileno())
        self.number, self.size, self.changed = found.st_ino, found.st_size, found.st_mtime_ns
        self.settled = time.time_ns() - self.changed > TIMES_NS  # else it may change without another time

    def changes(self, before: _Sent | None) -> Iterator[Parcel]:
        """What brings the file from what was sent of it to what it is now."""
        if before is None or before.number != self.number or before.size > self.size:
            yield from self._whole()
        elif (before.size, before.changed) == (self.size, self.changed) and before.settled:
            self.pieces = before.pieces
        elif layout.file_kind(self.name) is FileKind.DEPTHS:
            yield from self._pieces(before.pieces)
        else:
            yield from self._tail(before.size)

    def _whole(self) -> Iterator[Parcel]:
        anywhere = layout.file_kind(self.name) is FileKind.DEPTHS
        for offset in range(0, max(self.size, 1), PARCEL_BYTES):
            content = self._read(offset, PARCEL_BYTES)
            if anywhere:
                self.pieces += _digests(content)
            yield Parcel(self.name, content, offset, self.size)

    def _tail(self, offset: int) -> Iterator[Parcel]:
        """What was appended; of a file that was only touched, that it was."""
        for begin in range(offset, max(self.size, offset + 1), PARCEL_BYTES):
            yield Parcel(self.name, self._read(begin, PARCEL_BYTES), begin)

    def _pieces(self, before: Sequence[bytes]) -> Iterator[Parcel]:
        for offset in range(0, self.size, PARCEL_BYTES):
            content = self._read(offset, PARCEL_BYTES)
            first, found = len(self.pieces), _digests(content)
            self.pieces += found
            other = [place for place, digest in enumerate(found) if [digest] != list(before[first + place :][:1])]
            if other:
                begin, end = other[0] * COMPARED_BYTES, (other[-1] + 1) * COMPARED_BYTES
                yield Parcel(self.name, content[begin:end], offset + begin)

    def _read(self, offset: int, most: int) -> bytes:
        """Up to the size that it had when it was opened."""
        self.stream.seek(offset)
        return self.stream.read(min(most, self.size - offset))


def _digests(content: bytes) -> list[bytes]:
    places = range(0, len(content), COMPARED_BYTES)
    return [hashlib.blake2b(content[place : place + COMPARED_BYTES], digest_size=16).digest() for place in places]


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Errors of the office as those that a trial ends with."""
    from tips_dist.training.execution import WorkerLost  # torch: only trials need it

    try:
        yield
    except Superseded as error:
        raise WorkerLost(str(error)) from error
    except StorageError as error:  # nobody need try again: the office has waited for its disk
        raise StorageError(str(error)) from PermissionError(errno.EPERM, "given up by the office")


@contextlib.contextmanager
def _scratch(run: Path) -> Iterator[Path]:
    """An own run folder on this node, gone in the end; those of workers that were killed are removed too."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{SCRATCH}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{run.name}-", dir=place))
    try:
        with alone_in(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove a scratch folder of this user whose worker is gone: the kernel drops a lock with its holder."""
    with contextlib.suppress(OSError, UserError):
        about = folder.lstat()
        mine = about.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
        if mine and time.time() - about.st_mtime > LEFT_SECONDS:
            with alone_in(folder, patience=0.0):
                shutil.rmtree(folder, ignore_errors=True)
