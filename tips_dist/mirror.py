"""Copy a run folder to an address while its study runs (docs/storage.md says why a mirror)."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tips_dist.addresses import redacted
from tips_dist.files import UserError, home, write_json
from tips_dist.runfolder import layout
from tips_dist.runfolder.record import json_object
from tips_dist.runfolder.records import Holder, MirrorNote, StudyRecord
from tips_dist.storage import PATIENCE_SECONDS, Store, below, inside

INTERVAL_SECONDS = 30.0
MOST_WAIT = 60.0  # seconds to tell whether another driver still mirrors to a place
NOWHERE = "none"  # for --storage: go on without the mirror that an earlier driver had
HEAVY_INTERVALS = 10  # checkpoints and depths are copied that much rarer (benchmarks/scale.py says why)
PARALLEL = 8  # copies at a time


class Mirror:
    """Copies a run folder to an address: changed files at intervals, everything once more at the end.

    Order matters: a copy must be a state that a killed study might have left behind, as ``resume`` takes those. So of
    the files found, the search's journal goes first (trials without a journal entry do not exist, entries without
    trials do), then histories, depths and candidates, then checkpoints (history beyond a checkpoint is cut, a
    checkpoint beyond its history would be lost work), then the trials' records. Checkpoints and depths, which are large
    and change all the time, join in every tenth round only, and never for more than a tenth of the time.
    """

    def __init__(self, run: Path, url: str, interval: float = INTERVAL_SECONDS, patience: float = PATIENCE_SECONDS):
        """Prepare a mirror of ``run`` below ``url`` (the run folder's name is appended)."""
        self.run, self.url, self.interval = run, url, interval
        self.store = Store(below(url, run.name), patience)
        self.failure: str | None = None  # why the last round failed
        self._there: dict[str, tuple[int, int]] | None = None  # name -> (size, mtime in ns) as last copied
        self._next_heavy = 0.0
        self._lock = threading.Lock()

    def claim(self) -> int:
        """See that the place is empty or carries this run's mark, and that no other driver mirrors to it; mark it.

        Returns:
            How many files that took.

        Raises:
            UserError: it holds something else, or somebody else's driver works on it.
            StorageError: storage does not answer.
        """
        shown, study, note = redacted(self.store.url), layout.STUDY.name, layout.MIRROR.name
        own = StudyRecord.load(layout.STUDY.at(self.run))
        there = self.store.list()
        if study in there:
            other = StudyRecord.parse(self.store.read(study), f"{shown}/{study}")
            if other.identity != own.identity:
                raise UserError(
                    f"{shown}: holds another run ({other.name} of {other.created}) than {self.run} ({own.name} of "
                    f"{own.created}); name another place with --storage"
                )
            if note in there:
                self._wait_for_the_last(MirrorNote.parse(self.store.read(note), f"{shown}/{note}"))
        elif there:
            raise UserError(
                f"{shown}: holds {len(there)} files that are not of {self.run}; name another place with --storage"
            )
        else:
            self.store.put(layout.STUDY.at(self.run), study)
            return 1
        return 0

    def _wait_for_the_last(self, note: MirrorNote) -> None:
        """A driver on another machine that was heard of lately is dead or alive: alive, it will be heard of again."""
        lately = time.time() - note.time < 4 * note.interval_seconds + 60
        if note.ended or not lately or (note.host, note.pid) == (socket.gethostname(), os.getpid()):
            return
        if note.host == socket.gethostname():
            return  # it would hold the folder's lock
        deadline = time.monotonic() + min(MOST_WAIT, 1.5 * note.interval_seconds)
        while time.monotonic() < deadline:
            time.sleep(min(1.0, note.interval_seconds / 4))
            now = MirrorNote.parse(self.store.read(layout.MIRROR.name), layout.MIRROR.name)
            if now.time != note.time and not now.ended:
                raise UserError(
                    f"{redacted(self.store.url)}: process {note.pid} on {note.host} works on this run and copies it "
                    "here; wait for it or stop it"
                )

    def round(self, *, ended: bool = False) -> int:
        """Copy what has changed, drop what has gone; returns the number of files copied.

        Raises:
            UserError, StorageError: storage refuses or stays away.
        """
        with self._lock:
            marked = 0
            if self._there is None:
                marked = self.claim()
                self._there = self._already_there()
            self._note(ended)
            found = dict(_files(self.run))
            begun = time.monotonic()
            heavy = ended or begun >= self._next_heavy
            names = sorted(
                (name for name in found if heavy or layout.file_kind(name) not in layout.HEAVY), key=layout.order
            )
            with ThreadPoolExecutor(PARALLEL) as pool:  # parallel within a group, one group after another
                copied = sum(
                    sum(pool.map(self._copy, group))
                    for _, group in itertools.groupby(names, key=lambda name: layout.order(name)[0])
                )
            if heavy:
                spent = time.monotonic() - begun
                self._next_heavy = time.monotonic() + max(HEAVY_INTERVALS * self.interval, HEAVY_INTERVALS * spent)
            for name in [name for name in self._there if name not in found and layout.in_layout(name)]:
                self.store.delete(name)
                del self._there[name]
            return copied + marked

    def _copy(self, name: str) -> bool:
        assert self._there is not None
        try:
            state = _state(self.run / name)
            if self._there.get(name) == state:
                return False
            self.store.put(self.run / name, name)
        except FileNotFoundError:
            return False
        self._there[name] = state
        return True

    def watch(self, done: threading.Event) -> None:
        """Make rounds until told to end; a round that fails is not fatal, the next one makes up for it."""
        while not done.wait(self.interval):
            try:
                self.round()
                self.failure = None
            except (UserError, OSError) as error:
                self.failure = str(error)

    def _note(self, ended: bool) -> None:
        MirrorNote(
            url=self.url,
            host=socket.gethostname(),
            pid=os.getpid(),
            time=time.time(),
            interval_seconds=self.interval,
            ended=ended,
        ).save(layout.MIRROR.at(self.run))

    def _already_there(self) -> dict[str, tuple[int, int]]:
        """Files that an earlier driver copied and that have not changed since."""
        there: dict[str, tuple[int, int]] = {}
        for name, entry in self.store.list().items():
            path = inside(self.run, name)
            here = _state(path) if path.is_file() else (0, 0)
            unchanged = here[0] == entry.size and here[1] / 1e9 <= entry.changed
            there[name] = here if unchanged else (-1, 0)
        return there


@contextmanager
def mirrored(run: Path, url: str | None, interval: float = INTERVAL_SECONDS) -> Iterator[None]:
    """Mirror a run folder while the body works in it.

    Args:
        run: the run folder.
        url: below which the copy lies; None goes on with the address an earlier driver used, if there was one.
        interval: seconds between two rounds.

    Raises:
        UserError: the address cannot be used; said before the body starts.
        StorageError: the last round failed; the run folder itself is complete.
    """
    if url is None:
        url = mirror_of(run)
    if url is None or url == NOWHERE:
        if url == NOWHERE:
            _remember(run, None)
        yield
        return
    mirror = Mirror(run, url, interval)
    mirror.round()
    _remember(run, url)
    done = threading.Event()
    thread = threading.Thread(target=mirror.watch, args=(done,), name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        mirror.round(ended=True)


def mirror_once(run: Path) -> str | None:
    """Copy what was written after the study's end; the address of the copy, or None if the run has no mirror."""
    url = mirror_of(run)
    if url is None:
        return None
    Mirror(run, url).round(ended=True)
    return below(url, run.name)


def mirror_of(run: Path) -> str | None:
    """The address that a driver on this machine was told to mirror this run to.

    What the run folder itself says decides nothing: it may have come from elsewhere.

    Raises:
        UserError: the folder says that it was mirrored, but this machine knows nothing of it.
    """
    try:
        record = StudyRecord.load(layout.STUDY.at(run))
        told = str(json_object(_memory(record).read_bytes(), str(_memory(record))).get("url") or "")
    except (OSError, UserError):
        told = None
    if told is not None:
        return told or None
    path = layout.MIRROR.at(run)
    if not path.exists():
        return None
    url = redacted(MirrorNote.load(path).url)
    raise UserError(
        f"{run}: was mirrored to {url}, but not by this machine; go on mirroring with --storage ADDRESS, or without "
        f"with --storage {NOWHERE}"
    )


def _memory(record: StudyRecord) -> Path:
    """This machine's own note of where a run is mirrored to."""
    base = Path(os.environ.get("XDG_STATE_HOME") or home() / ".local" / "state")
    return base / "tips-dist" / "mirrors" / f"{record.identity}.json"


def _remember(run: Path, url: str | None) -> None:
    write_json(_memory(StudyRecord.load(layout.STUDY.at(run))), {"url": url, "run": str(run)})


def mirrored_by(run: Path) -> Holder | None:
    """In a fetched copy: who works on the run, if its driver was heard of lately."""
    try:
        note = MirrorNote.load(layout.MIRROR.at(run))
    except UserError:
        return None
    lately = time.time() - note.time < 4 * note.interval_seconds + 60
    if note.ended or not lately or note.host == socket.gethostname():
        return None
    return Holder(host=note.host, pid=note.pid)


def _files(run: Path) -> Iterator[tuple[str, Path]]:
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.is_file() and not path.is_symlink() and layout.copied(name):
            yield name, path


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
