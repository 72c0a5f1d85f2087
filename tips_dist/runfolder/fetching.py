"""A run folder at an address: a copy of what a command needs of it, which never harms what lies here already.

Whatever is overwritten or removed lies in a folder that carries the mark of the very run that is fetched, under that
folder's lock, is a file of the layout, and is not reached through a link. A fetch that was cut off leaves a note, so
that nobody takes the part for the whole and the next fetch completes it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from tips_dist.addresses import redacted
from tips_dist.files import UserError, write_text
from tips_dist.phases import phase
from tips_dist.runfolder import layout
from tips_dist.runfolder.lock import locked
from tips_dist.runfolder.record import json_object
from tips_dist.runfolder.records import StudyRecord, TrialState
from tips_dist.storage import Store, StoredFile, cache_folder, inside, linked, matches, same

CACHE_PATIENCE = 600.0  # seconds to wait for another command that fills the same copy


class FileSource(Protocol):
    """Where a run folder is fetched from: an address (:class:`tips_dist.storage.Store`), the node of a job's driver."""

    @property
    def url(self) -> str:
        """Its name in errors, before what may be secret in it is left out."""

    def list(self) -> dict[str, StoredFile]:
        """Every file, by its path relative to the run folder."""

    def read(self, name: str) -> bytes:
        """A small file's content."""

    def bring(self, wanted: Mapping[str, StoredFile], folder: Path) -> Iterator[str]:
        """Copy files into a folder, atomically; yields the name of each that is there or has gone."""


def fetch_run(url: str, command: str = "everything", folder: Path | None = None, patience: float = 30.0) -> Path:
    """Bring what a command reads of a run folder at an address to this machine.

    Args:
        url: of the run folder.
        command: decides which files, see :func:`tips_dist.runfolder.layout.needs`.
        folder: where to: new, empty, or a copy of the same run; a cache of ours by default.
        patience: seconds that storage may be away.

    Returns:
        The local folder: a copy; what a command writes there stays on this machine.

    Raises:
        UserError: there is no run folder at this address, storage refuses, or the folder holds something else, is
            worked in or is reached through a link.
        StorageError: storage does not answer.
    """
    return fetch_from(Store(url, patience), command, folder)


def fetch_from(source: FileSource, command: str, folder: Path | None = None, *, cache: Path | None = None) -> Path:
    """:func:`fetch_run` of any source; ``cache`` is the folder that a copy without a ``folder`` of its own lies in."""
    url = source.url
    there = {name: entry for name, entry in source.list().items() if layout.in_layout(name) and layout.copied(name)}
    if layout.STUDY.name not in there:
        raise UserError(f"{redacted(url)}: not a run folder (it has no {layout.STUDY.name})")
    record = StudyRecord.parse(source.read(layout.STUDY.name), below_shown(url, layout.STUDY.name))
    local = folder or cache or cache_folder(url, record.identity)
    wait = 0.5 if folder is not None else CACHE_PATIENCE
    _check_place(local, record, redacted(url))
    local.mkdir(parents=True, exist_ok=True)
    with locked(local, patience=wait, fetching=True):
        _check_place(local, record, redacted(url))  # nobody changes it any more
        needed = layout.needs(command)
        wanted = {name: entry for name, entry in there.items() if matches(name, needed)}
        alive = {name for name in wanted if command in layout.ASKS and matches(name, [layout.ALIVE.pattern])}
        came = _fill(source, local, {name: entry for name, entry in wanted.items() if name not in alive}, record)
        came += _fill(source, local, {name: wanted[name] for name in alive if _runs(local, name)}, record)
        if not came:
            with phase("fetching") as told:
                told.note("nothing to do, all of it is here")
        _drop(local, there, command)
        layout.FETCHING.at(local).unlink(missing_ok=True)
    return local


def below_shown(url: str, name: str) -> str:
    """A file below an address, as errors name it."""
    return f"{redacted(url).rstrip('/')}/{name}"


def _check_place(local: Path, record: StudyRecord, shown: str) -> None:
    if local.is_symlink():
        raise UserError(f"{local}: is a link; nothing is fetched through links, name the folder itself")
    if not local.exists():
        return
    if not local.is_dir():
        raise UserError(f"{local}: is no folder")
    begun, study = layout.FETCHING.at(local), layout.STUDY.at(local)
    if study.is_file() and not study.is_symlink():
        here = StudyRecord.load(study)
        if here.identity != record.identity:
            raise UserError(
                f"{local}: holds another run ({here.name} of {here.created}) than {shown} ({record.name} of "
                f"{record.created}); name another folder"
            )
    elif begun.is_file() and not begun.is_symlink():
        if begun.read_text(errors="replace").strip() != record.identity:
            raise UserError(f"{local}: a part of another run than {shown} was fetched here; name another folder")
    elif any(path.name not in (layout.LOCK.name, begun.name) for path in local.iterdir()):
        raise UserError(f"{local}: holds something that is no run folder, so {shown} is not fetched there")


def _fill(source: FileSource, local: Path, wanted: Mapping[str, StoredFile], record: StudyRecord) -> int:
    """Bring what is not here as it is there, in the order of copying (:func:`layout.order`) backwards.

    The source is written meanwhile, the other way round, so what a record or a state tells of is there by then.

    Returns:
        How many files that took.
    """
    stale = [name for name, entry in wanted.items() if not same(inside(local, name), entry)]
    if not stale:
        return 0
    _check_links(local, stale)
    write_text(layout.FETCHING.at(local), record.identity + "\n")
    with phase("fetching", sum(wanted[name].size for name in stale)) as told:
        ordered = sorted(stale, key=layout.order, reverse=True)
        for _, group in itertools.groupby(ordered, key=layout.file_kind):
            for name in source.bring({name: wanted[name] for name in group}, local):
                told(told.phase.done + wanted[name].size)
    return len(stale)


def _runs(local: Path, sign: str) -> bool:
    """Whether the trial of a sign of life runs by its record; of the others, maybe thousands, it says nothing."""
    path = (local / sign).with_name(layout.TRIAL.name)
    try:
        return json_object(path.read_bytes(), str(path)).get("state") == TrialState.RUNNING
    except (OSError, UserError):
        return False


def _check_links(local: Path, names: list[str]) -> None:
    """See that nothing on the way to these files is a link, before anything is changed; each folder is looked at once.

    Raises:
        UserError: something is.
    """
    places = set(names)
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in places:
            places.add(name)
    for place in places:
        if os.path.islink(f"{local}/{place}"):  # noqa: PTH114 (tens of thousands of them)
            linked(local, place)


def _drop(local: Path, there: Mapping[str, StoredFile], command: str) -> None:
    """Remove files of trials, and the note of who works on the run, that have gone from where it was fetched from."""
    wanted = layout.needs(command)
    trials = [(Path(place), names) for place, _, names in os.walk(local / layout.TRIALS, followlinks=False)]
    for folder, names in [*trials, (local, [layout.MIRROR.name])]:
        prefix = folder.relative_to(local).as_posix() + "/" if folder != local else ""
        for name in (prefix + name for name in names):
            ours = name not in there and layout.in_layout(name) and layout.copied(name) and matches(name, wanted)
            if ours and not (local / name).is_symlink():
                (local / name).unlink(missing_ok=True)
