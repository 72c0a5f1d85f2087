"""The only reader of 3D ground truth (NAME.truth3d.h5). Nothing that decides may import this floor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data.hdf5 import dataset, reading
from tips_dist.data.store import TRUTH_SCHEMA, Poses
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS

_BLOCK = 65_536  # rows read together


@dataclass(frozen=True, eq=False)
class Truth:
    """Joints (N, 17, 3) float32 in mm, camera frame, in the row order of the poses they belong to."""

    joints: npt.NDArray[np.float32]
    path: Path
    digest: str  # SHA-256 (hex) of the joints


def read_truth(path: Path, poses: Poses) -> Truth:
    """Read the truth that belongs to ``poses``.

    Raises:
        UserError: the file is missing, foreign, truncated, damaged, not finite, or belongs to other poses; the
            message names the file, the data set and, where there is one, the row.
    """
    with reading(path, hint="--truth names the NAME.truth3d.h5 written beside the pose file") as file:
        joints = _read(path, _checked(path, file, poses))
        digest = hashlib.sha256(joints.data).hexdigest()
        if file.attrs.get("digest", digest) != digest:
            raise UserError(
                f"{path}: /joints does not match the file's own digest: it was changed or damaged after it was written"
            )
    return Truth(joints, path, digest)


def _checked(path: Path, file: h5py.File, poses: Poses) -> h5py.Dataset:
    """The data set /joints, once everything about it but its values is known to be right."""
    if "joints" not in file or "schema_version" not in file.attrs:
        kind = "a pose2d file" if "poses" in file else "another kind of HDF5 file"
        raise UserError(
            f"{path}: not a truth file but {kind}; expected data set /joints (N, 17, 3) in mm and attribute "
            "schema_version"
        )
    version = file.attrs["schema_version"]
    if not np.array_equal(version, TRUTH_SCHEMA):
        raise UserError(f"{path}: attribute schema_version is {version}, this program reads {TRUTH_SCHEMA}")
    joints = dataset(path, file, "joints")
    if joints.dtype != np.float32 or joints.shape[1:] != (len(JOINTS), 3):
        raise UserError(f"{path}: /joints is {joints.dtype} {joints.shape}, expected float32 (N, 17, 3)")
    if len(joints) != len(poses):
        raise UserError(
            f"{path}: /joints has {len(joints)} rows, the poses ({poses.source}) have {len(poses)}; use the truth "
            "file that was written with the pose file"
        )
    digest = file.attrs.get("poses_digest")
    if digest != poses.digest:
        raise UserError(
            f"{path}: attribute poses_digest is {_short(digest)}, the poses ({poses.source}) have "
            f"{_short(poses.digest)}: truth and poses do not belong together; use the files written together"
        )
    return joints


def _read(path: Path, joints: h5py.Dataset) -> npt.NDArray[np.float32]:
    array = np.empty(joints.shape, dtype=np.float32)
    for start in range(0, len(array), _BLOCK):
        block = array[start : start + _BLOCK]
        block[:] = joints[start : start + _BLOCK]
        finite = np.isfinite(block).all(axis=(1, 2))
        if not finite.all():
            raise UserError(f"{path}: /joints row {start + int(finite.argmin())} is not finite; remove the row")
    return array


def _short(digest: object) -> str:
    return f"{digest[:12]}…" if isinstance(digest, str) else "missing"
