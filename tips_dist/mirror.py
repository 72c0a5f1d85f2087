"""Copy a run folder to an address while its study runs (docs/storage.md says why a mirror)."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tips_dist.addresses import redacted
from tips_dist.files import UserError, home, write_json
from tips_dist.runfolder import layout
from tips_dist.runfolder.layout import FileKind
from tips_dist.runfolder.record import json_object
from tips_dist.runfolder.records import Holder, MirrorNote, StudyRecord
from tips_dist.storage import PATIENCE_SECONDS, Store, below, inside

INTERVAL_SECONDS = 30.0
MOST_WAIT = 60.0  # seconds to tell whether another driver still mirrors to a place
NOWHERE = "none"  # for --storage: go on without the mirror that an earlier driver had
HEAVY_INTERVALS = 10  # checkpoints and depths are copied that much rarer (benchmarks/scale.py says why)
PARALLEL = 8  # copies at a time
TRIES = 10  # to copy what checkpoints speak of before the trial has written others
OWN = ""  # the group of files that belong to no trial

_State = tuple[int, int]  # of a file: size, and mtime in ns
_Files = dict[str, tuple[FileKind, _State]]  # by name
_Open = tuple[str, IO[bytes]]  # a file's name, and what it held when it was opened


class Mirror:
    """Copies a run folder to an address: changed files at intervals, everything once more at the end.

    Order matters: a copy must be a state that a killed study might have left behind, as ``resume`` takes those. So the
    trials are found before the search's journal goes (trials without a journal entry do not exist, entries without
    trials do), then trial after trial, then what speaks of all of them. Of each the histories, depths and candidates
    go before the checkpoints (history beyond a checkpoint is cut, a checkpoint beyond its history would be lost work),
    and its record last. What speaks of other files is opened before they are looked for: as it is replaced whole, it
    goes as it was then.

    Checkpoints and depths, which are large and change all the time, join in every tenth round only, and never for more
    than a tenth of the time; but where a trial's record has changed, all of the trial goes with it. What has gone here
    is removed there only with the checkpoints that no longer speak of it.
    """

    def __init__(self, run: Path, url: str, interval: float = INTERVAL_SECONDS, patience: float = PATIENCE_SECONDS):
        """Prepare a mirror of ``run`` below ``url`` (the run folder's name is appended)."""
        self.run, self.url, self.interval = run, url, interval
        self.store = Store(below(url, run.name), patience)
        self.failure: str | None = None  # why the last round failed
        self._there: dict[str, dict[str, _State]] | None = None  # group -> name -> what was last copied
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
            begun = time.monotonic()
            heavy = ended or begun >= self._next_heavy
            copied = self._round(self._there, heavy)
            if heavy:
                spent = time.monotonic() - begun
                self._next_heavy = time.monotonic() + max(HEAVY_INTERVALS * self.interval, HEAVY_INTERVALS * spent)
            return copied + marked

    def _round(self, there: dict[str, dict[str, _State]], heavy: bool) -> int:
        own, found = there.setdefault(OWN, {}), _files(self.run, OWN)
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(PARALLEL) as pool:
            last = self._opened(stack, own, found, FileKind.RECORD, FileKind.NOTE)
            trials = {group: there.setdefault(group, {}) for group in _trials(self.run)}
            copied = self._copied(own, found, FileKind.JOURNAL)
            copied += sum(pool.map(self._trial, trials, trials.values(), itertools.repeat(heavy)))
            others = (kind for kind in FileKind if kind not in (FileKind.JOURNAL, FileKind.RECORD, FileKind.NOTE))
            copied += sum(pool.map(self._copy, itertools.repeat(own), _changed(own, found, *others)))
            for group in there.keys() - trials.keys():
                self._remove(there[group], there[group].keys() - found.keys())
            return copied + sum(self._put(own, *one) for one in last)

    def _trial(self, group: str, there: dict[str, _State], heavy: bool) -> int:
        found, record = _files(self.run, group), f"{group}/{layout.TRIAL.name}"
        with contextlib.ExitStack() as stack:
            records = self._opened(stack, there, found, FileKind.RECORD)
            whole = heavy or any(name == record for name, _ in records)
            copied, states = self._held(stack, group, there) if whole else (0, None)
            now = _files(self.run, group) if whole else found
            kinds = (FileKind.SERIES, FileKind.CANDIDATES, FileKind.FROZEN, FileKind.EVENTS, FileKind.OTHER)
            copied += self._copied(there, now, *kinds, *([FileKind.DEPTHS] if whole else []))
            if states is not None:
                copied += sum(self._put(there, *one) for one in states)
                self._remove(there, there.keys() - found.keys() - now.keys())
            return copied + sum(self._put(there, *one) for one in records)

    def _held(
        self, stack: contextlib.ExitStack, group: str, there: dict[str, _State]
    ) -> tuple[int, list[_Open] | None]:
        """Changed checkpoints, opened, once what they speak of has been copied; None if they change faster than that.

        The loop drops a candidate only after it has written a further checkpoint: if there is one, all is done again.
        """
        copied = 0
        for _ in range(TRIES):
            with contextlib.ExitStack() as trying:
                found = _files(self.run, group)
                states = self._opened(trying, there, found, FileKind.STATE)
                copied += self._copied(there, _files(self.run, group), FileKind.CANDIDATES, FileKind.FROZEN)
                if _changed({}, _files(self.run, group), FileKind.STATE) == _changed({}, found, FileKind.STATE):
                    stack.enter_context(trying.pop_all())
                    return copied, states
        return copied, None

    def _opened(
        self, stack: contextlib.ExitStack, there: dict[str, _State], found: _Files, *kinds: FileKind
    ) -> list[_Open]:
        """The files of some kinds that have changed, as they are now."""
        opened: list[_Open] = []
        for name in _changed(there, found, *kinds):
            with contextlib.suppress(FileNotFoundError):
                opened.append((name, stack.enter_context((self.run / name).open("rb"))))
        return opened

    def _copied(self, there: dict[str, _State], found: _Files, *kinds: FileKind) -> int:
        return sum(self._copy(there, name) for name in _changed(there, found, *kinds))

    def _copy(self, there: dict[str, _State], name: str) -> bool:
        with contextlib.suppress(FileNotFoundError), (self.run / name).open("rb") as stream:
            return self._put(there, name, stream)
        return False

    def _put(self, there: dict[str, _State], name: str, stream: IO[bytes]) -> bool:
        state = _state(os.fstat(stream.fileno()))
        self.store.put(stream, name)
        there[name] = state
        return True

    def _remove(self, there: dict[str, _State], names: Iterable[str]) -> None:
        for name in sorted(names, key=layout.order, reverse=True):  # checkpoints before what they speak of
            if layout.in_layout(name):
                self.store.delete(name)
                del there[name]

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

    def _already_there(self) -> dict[str, dict[str, _State]]:
        """Files that an earlier driver copied and that have not changed since."""
        there: dict[str, dict[str, _State]] = {}
        for name, entry in self.store.list().items():
            path = inside(self.run, name)
            here = _state(path.stat()) if path.is_file() else (0, 0)
            unchanged = here[0] == entry.size and here[1] / 1e9 <= entry.changed
            there.setdefault(_group(name), {})[name] = here if unchanged else (-1, 0)
        return there


@contextlib.contextmanager
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


def _group(name: str) -> str:
    """What a file belongs to: its trial's folder, or :data:`OWN`."""
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] == layout.TRIALS and len(parts) > 2 else OWN


def _files(run: Path, group: str) -> _Files:
    """The files of a group that are copied."""
    found: _Files = {}
    prefix = f"{run}/"
    for entry in _walk(run / group, layout.TRIALS if group == OWN else ""):
        name = entry.path.removeprefix(prefix)
        kind = layout.file_kind(name)
        if kind is not FileKind.LOCAL:
            with contextlib.suppress(FileNotFoundError):
                found[name] = kind, _state(entry.stat(follow_symlinks=False))
    return found


def _walk(folder: str | Path, without: str = "") -> Iterator[os.DirEntry[str]]:
    """All ordinary files below a folder (of many thousands each question to the disk counts); not through links."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != without:
                    yield from _walk(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry


def _changed(there: dict[str, _State], found: _Files, *kinds: FileKind) -> list[str]:
    """Those of some kinds that are not there as they are here, in the order of the layout."""
    names = [(kind, name) for name, (kind, state) in found.items() if kind in kinds and there.get(name) != state]
    return [name for _, name in sorted(names)]


def _trials(run: Path) -> list[str]:
    """The groups of trials."""
    place = run / layout.TRIALS
    if place.is_symlink() or not place.is_dir():
        return []
    return sorted(f"{layout.TRIALS}/{path.name}" for path in place.iterdir() if path.is_dir() and not path.is_symlink())


def _state(about: os.stat_result) -> _State:
    return about.st_size, about.st_mtime_ns
