"""MPI-INF-3DHP test set: ``TS<n>/annot_data.mat``, MATLAB 7.3 (HDF5), one camera a sequence; all of it is test split.

``annot2`` (N, 1, 17, 2) px, ``annot3`` and ``univ_annot3`` (N, 1, 17, 3) mm in the camera's frame, ``valid_frame``.
Only frames marked valid are kept.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from tips_dist.data.hdf5 import array, dataset, reading
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.files import UserError, check_file

USES = ("universal",)
# The 17 joints among the test set's 17, in this program's order.
JOINTS_OF_17 = (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)
FRAME_RATE_HZ = 25.0
IMAGE_PX = (2048, 2048)  # TS5 and TS6: 1920 by 1080


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Find the annotation files below ``source``.

    Raises:
        UserError: no such files.
    """
    files = sorted(source.glob("TS*/annot_data.mat"))
    if not files:
        raise UserError(f"{source}: no TS*/annot_data.mat below it; expected the MPI-INF-3DHP test set")
    key = "univ_annot3" if options.universal else "annot3"
    record.note(f"3D from {key}")
    clips = (_clip(file, key, record) for file in files)
    return Source("MPI-INF-3DHP (test)", FRAME_RATE_HZ, True, clips, len(files), IMAGE_PX)


def _clip(path: Path, key: str, record: ImportRecord) -> Clip:
    name = path.parent.name
    check_file(path)
    with path.open("rb") as stream:
        if stream.read(10) == b"MATLAB 5.0":
            raise UserError(
                f"{path}: is MATLAB 5, expected MATLAB 7.3 (HDF5) as the test set has; save it with -v7.3, or import "
                "the training set as mpi_inf_3dhp"
            )
    with reading(path) as file:
        poses = array(path, file, "annot2", "f", (None, 1, 17, 2))[:, 0]
        joints = array(path, file, key, "f", (None, 1, 17, 3))[:, 0]
        valid = array(path, file, "valid_frame", "fiub", _shape(dataset(path, file, "valid_frame"))).ravel() == 1
    if not len(poses) == len(joints) == len(valid):
        raise UserError(f"{path}: {len(poses)} rows in annot2, {len(joints)} in {key}, {len(valid)} in valid_frame")
    record.seen += int((~valid).sum())
    record.drop("frames marked as not valid", int((~valid).sum()))
    rows = np.flatnonzero(valid)
    return Clip(name, name, "camera_0", "test", rows, poses[rows][:, JOINTS_OF_17], joints[rows][:, JOINTS_OF_17])


def _shape(stored: h5py.Dataset) -> tuple[int | None, ...]:
    """(N, 1), (1, N) or (N,): MATLAB vectors come either way."""
    shape = stored.shape
    return (1, None) if len(shape) == 2 and shape[0] == 1 else (None, 1) if len(shape) == 2 else (None,)
