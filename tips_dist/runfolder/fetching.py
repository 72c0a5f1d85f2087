"""A run folder at an address: a copy of what a command needs of it, which never harms what lies here already.

Whatever is overwritten or removed lies in a folder that carries the mark of the very run that is fetched, under that
folder's lock, is a file of the layout, and is not reached through a link. A fetch that was cut off leaves a note, so
that nobody takes the part for the whole and the next fetch completes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tips_dist.addresses import redacted
from tips_dist.files import UserError, write_text
from tips_dist.phases import phase
from tips_dist.runfolder import layout
from tips_dist.runfolder.lock import locked
from tips_dist.runfolder.records import StudyRecord
from tips_dist.storage import Store, StoredFile, cache_folder, inside, linked, matches, same

CACHE_PATIENCE = 600.0  # seconds to wait for another command that fills the same copy


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
    store = Store(url, patience)
    there = {name: entry for name, entry in store.list().items() if layout.in_layout(name) and layout.copied(name)}
    if layout.STUDY.name not in there:
        raise UserError(f"{redacted(url)}: not a run folder (it has no {layout.STUDY.name})")
    record = StudyRecord.parse(store.read(layout.STUDY.name), below_shown(url, layout.STUDY.name))
    local = folder or cache_folder(url, record.identity)
    wait = 0.5 if folder is not None else CACHE_PATIENCE
    _check_place(local, record, redacted(url))
    local.mkdir(parents=True, exist_ok=True)
    with locked(local, patience=wait, fetching=True):
        _check_place(local, record, redacted(url))  # nobody changes it any more
        _fill(store, local, {name: there[name] for name in there if matches(name, layout.needs(command))}, record)
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


def _fill(store: Store, local: Path, wanted: Mapping[str, StoredFile], record: StudyRecord) -> None:
    stale = {name: entry for name, entry in wanted.items() if not same(inside(local, name), entry)}
    if not stale:
        with phase("fetching") as told:
            told.note("nothing to do, all of it is here")
        return
    for name in stale:
        linked(local, name)  # before anything is changed
    write_text(layout.FETCHING.at(local), record.identity + "\n")
    with phase("fetching", sum(entry.size for entry in stale.values())) as told:
        for name, entry in sorted(stale.items(), key=lambda item: layout.order(item[0])):
            path = inside(local, name)
            try:
                store.get(name, path)
                os.utime(path, (entry.changed, entry.changed))
            except FileNotFoundError:  # replaced while we read: a candidate that was beaten, say
                path.unlink(missing_ok=True)
            told(told.phase.done + entry.size)


def _drop(local: Path, there: Mapping[str, StoredFile], command: str) -> None:
    """Remove files of trials that have gone from the address."""
    for place, _, names in os.walk(local / layout.TRIALS, followlinks=False):
        for path in (Path(place, name) for name in names):
            name = path.relative_to(local).as_posix()
            ours = layout.in_layout(name) and layout.copied(name) and matches(name, layout.needs(command))
            if ours and name not in there and not path.is_symlink():
                path.unlink(missing_ok=True)
