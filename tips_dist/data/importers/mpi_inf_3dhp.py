"""MPI-INF-3DHP training set: ``S<n>/Seq<n>/annot.mat``, MATLAB 5, fourteen cameras a sequence.

``annot2``, ``annot3`` and ``univ_annot3`` are cells, one per camera, of (N, 56) px and (N, 84) mm in the camera's
frame: 28 joints. Split by subject: the ``validation_subjects`` (S8) are held out, all others train; with
``validation_share`` all train, and that share of their sequences is held out. The data set's test set is a format of
its own (:mod:`.mpi_inf_3dhp_test`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.data.importers.splits import check_subjects, splits_by_protocol
from tips_dist.files import UserError, check_file

USES = ("validation_subjects", "test_subjects", "validation_share", "universal")
# The 17 joints among the 28, in this program's order; its neck is our thorax, its head our neck.
JOINTS_OF_28 = (4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
VALIDATION_SUBJECTS = ("S8",)
FRAME_RATE_HZ = 25.0  # some sequences were filmed at 50
IMAGE_PX = (2048, 2048)


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Find the annotation files below ``source``.

    Raises:
        UserError: no such files, or a validation subject that is not there.
    """
    files = sorted(source.glob("S*/Seq*/annot.mat"), key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    if not files:
        raise UserError(f"{source}: no S*/Seq*/annot.mat below it; expected the MPI-INF-3DHP training set")
    found = list(dict.fromkeys(file.parent.parent.name for file in files))
    check_subjects(options, found, source)
    key = "univ_annot3" if options.universal else "annot3"
    record.note(f"3D from {key}")
    people = {_sequence(file): file.parent.parent.name for file in files}
    splits = splits_by_protocol(people, options, record, VALIDATION_SUBJECTS)
    clips = (clip for file in files for clip in _clips(file, key, splits[_sequence(file)]))
    return Source("MPI-INF-3DHP (train)", FRAME_RATE_HZ, True, clips, 14 * len(files), IMAGE_PX)


def _sequence(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


def _clips(path: Path, key: str, split: str) -> Iterator[Clip]:
    subject, sequence = path.parent.parent.name, _sequence(path)
    cells = _read(path, ("annot2", key))
    poses, joints = cells["annot2"], cells[key]
    if len(poses) != len(joints):
        raise UserError(f"{path}: annot2 has {len(poses)} cameras, {key} has {len(joints)}")
    for camera in range(len(poses)):
        pixels = _joints(path, f"annot2, camera {camera}", poses[camera], 2)
        truth = _joints(path, f"{key}, camera {camera}", joints[camera], 3)
        if len(pixels) != len(truth):
            raise UserError(f"{path}: camera {camera}: {len(pixels)} rows in annot2, {len(truth)} in {key}")
        yield Clip(subject, sequence, f"camera_{camera}", split, np.arange(len(pixels)), pixels, truth)


def _read(path: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Cell arrays of a MATLAB 5 file, one entry per camera."""
    check_file(path)
    with path.open("rb") as stream:
        start = stream.read(1024)
    if start.startswith(b"MATLAB 7.3") or b"HDF" in start:
        raise UserError(
            f"{path}: is MATLAB 7.3 (HDF5), expected MATLAB 5 as the training set has; save it with -v7, or import "
            "the test set as mpi_inf_3dhp_test"
        )
    if not start.startswith(b"MATLAB 5"):
        raise UserError(f"{path}: not a MATLAB 5 file")
    try:
        content = scipy.io.loadmat(path)  # all of it, so that a file cut short is noticed
    except Exception as error:  # damaged files make scipy raise a dozen kinds
        raise UserError(f"{path}: cannot be read as MATLAB 5; truncated or damaged? ({error!s:.100})") from None
    for name in names:
        if not isinstance(content.get(name), np.ndarray) or content[name].dtype != object:
            raise UserError(f"{path}: no cell array {name}")
    return {name: list(content[name].ravel()) for name in names}


def _joints(path: Path, name: str, values: Any, axes: int) -> npt.NDArray[Any]:
    width = 28 * axes
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] != width or values.dtype.kind != "f":
        what = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise UserError(f"{path}: {name}: is {what}, expected floats (N, {width})")
    result: npt.NDArray[Any] = values.reshape(-1, 28, axes)[:, JOINTS_OF_28]
    return result
