"""The one way from a study or a run to its 2D data: a file, an address or the procedural generator, digest checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist.config import Data
from tips_dist.files import UserError
from tips_dist.runfolder import layout
from tips_dist.runfolder.records import StudyRecord
from tips_dist.storage import fetch_file, is_address

if TYPE_CHECKING:
    from tips_dist.data.store import Poses


def study_poses(data: Data, base: Path) -> Poses:
    """Open a study's poses; a relative path is relative to ``base``, an address is read through this machine's cache.

    Raises:
        UserError: the file is missing or unusable, or its content is not what ``data.digest`` says.
        StorageError: storage does not answer.
    """
    from tips_dist.data.store import read_poses

    if data.poses is not None:
        poses = read_poses(fetch_file(data.poses) if is_address(data.poses) else base / data.poses)
    else:
        from tips_dist.data import procedural

        poses = procedural.generate(**data.procedural.model_dump())[0]
    if data.digest is not None and not poses.digest.startswith(data.digest):
        raise UserError(
            f"data.poses: {data.poses}: its content has the digest {poses.digest[:12]}…, the study asks for "
            f"{data.digest[:12]}… (data.digest); bring the file that was meant"
        )
    return poses


def run_poses(run: Path, record: StudyRecord, path: Path | str | None = None) -> Poses:
    """The 2D poses that a run was started with: at ``path``, where its study found them, or generated anew.

    Raises:
        UserError: the file is missing, or its content is not what the run was started with (digests differ).
        StorageError: storage does not answer.
    """
    data = record.resolved.data
    where = record.data.path if path is None else str(path)
    if where is None:
        source = f"procedural data ({layout.STUDY.at(run)})"
    else:
        source = where
        if path is None and not is_address(where) and not (run / where).exists():
            raise UserError(f"{where}: the run's pose file is gone; say where it is now with --poses")
        base = Path() if path is not None else run
        data = data.model_copy(update={"poses": where if is_address(where) else str(base / where), "digest": None})
    return expect(study_poses(data, Path()), record, run, source)


def expect(poses: Poses, record: StudyRecord, run: Path, source: str) -> Poses:
    """The same poses, if they are those that the run was started with.

    Raises:
        UserError: they are others.
    """
    if poses.digest != record.data.digest:
        raise UserError(
            f"{source}: these are not the poses that {run} was trained on (digest {poses.digest[:12]}…, expected "
            f"{record.data.digest[:12]}…); bring the same file"
        )
    return poses
