"""Human3.6M in the layout of h36m-fetch: ``processed/<subject>/<action>/annot.h5``, all cameras of a recording.

Each file holds ``pose/2d`` (N, 32, 2) px, ``pose/3d`` (N, 32, 3) mm in the camera's frame (``pose/3d-univ``: scaled
to the universal skeleton), ``camera`` and ``frame`` (N,). Split by subject: S9 and S11 are the test split, the
``validation_subjects`` (S8) the validation split, all others train; with ``validation_share`` all but S9 and S11 train,
and that share of their sequences is held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.data.hdf5 import array, reading
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.data.importers.splits import check_subjects, splits_by_protocol
from tips_dist.files import UserError

USES = ("validation_subjects", "test_subjects", "validation_share", "universal")
# The 17 joints among the 32 of the motion capture skeleton, in this program's order.
JOINTS_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
VALIDATION_SUBJECTS = ("S8",)
TEST_SUBJECTS = ("S9", "S11")
FRAME_RATE_HZ = 50.0
IMAGE_PX = (1000, 1002)


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Find the annotation files below ``source`` (the folder ``processed`` or the one that holds it).

    Raises:
        UserError: no such files, or a validation subject that is not there.
    """
    root = source / "processed" if (source / "processed").is_dir() else source
    files = sorted(root.glob("S*/*/annot.h5"))
    if not files:
        raise UserError(f"{source}: no S*/<action>/annot.h5 below it; expected the layout of h36m-fetch")
    found = sorted({file.parent.parent.name for file in files}, key=lambda name: (len(name), name))
    check_subjects(options, found, source)
    missing = [subject for subject in SUBJECTS if subject not in found]
    if missing:
        record.note(f"not in the source: {', '.join(missing)}")
    key = "pose/3d-univ" if options.universal else "pose/3d"
    record.note(f"3D from {key}")
    people = {_sequence(file): file.parent.parent.name for file in files}
    splits = splits_by_protocol(people, options, record, VALIDATION_SUBJECTS, TEST_SUBJECTS)
    clips = (clip for file in files for clip in _clips(file, key, splits[_sequence(file)]))
    return Source("Human3.6M (h36m-fetch)", FRAME_RATE_HZ, True, clips, 4 * len(files), IMAGE_PX)


def _sequence(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


def _clips(path: Path, key: str, split: str) -> Iterator[Clip]:
    columns = _read(path, key)
    poses, joints = columns["pose/2d"], columns[key]
    for camera in np.unique(columns["camera"]):
        rows = np.flatnonzero(columns["camera"] == camera)
        yield Clip(
            path.parent.parent.name,
            _sequence(path),
            str(camera),
            split,
            columns["frame"][rows],
            poses[rows][:, JOINTS_OF_32],
            joints[rows][:, JOINTS_OF_32],
        )


def _read(path: Path, key: str) -> dict[str, npt.NDArray[Any]]:
    with reading(path) as file:
        columns = {
            "pose/2d": array(path, file, "pose/2d", "f", (None, 32, 2)),
            key: array(path, file, key, "f", (None, 32, 3)),
            "camera": array(path, file, "camera", "iu", (None,)),
            "frame": array(path, file, "frame", "iu", (None,)),
        }
        _same_length(path, columns)
    return columns


def _same_length(path: Path, columns: dict[str, npt.NDArray[Any]]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path}: lengths differ: {', '.join(f'/{name} {n}' for name, n in lengths.items())}")
