"""The only reader of 3D ground truth (NAME.truth3d.h5). Nothing that decides may import this floor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data.store import Poses
from tips_dist.files import UserError

SCHEMA_VERSION = 1
_CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class Truth:
    """Joints (N, 17, 3) float32 in mm, camera frame, in the row order of the poses they belong to."""

    joints: npt.NDArray[np.float32]
    path: Path
    digest: str  # SHA-256 over the joints and the poses' digest


def read_truth(path: Path, poses: Poses) -> Truth:
    """Read the truth that belongs to ``poses``.

    Raises:
        UserError: the file is missing, foreign, truncated, not finite, or belongs to other poses; the message names
            the file, the data set and, where there is one, the row.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such truth file")
    try:
        with h5py.File(path, "r") as file:
            joints = _check(path, file, poses)
            array = _read(path, joints)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: not a readable HDF5 truth file, truncated or foreign ({_first_line(error)})"
        ) from None
    content = hashlib.sha256(poses.digest.encode())
    content.update(np.ascontiguousarray(array).data)
    return Truth(array, path, content.hexdigest())


def _check(path: Path, file: Any, poses: Poses) -> Any:
    """The data set /joints, once everything about it but its values is known to be right."""
    link = file.get("joints", getlink=True)
    if link is None:
        raise UserError(f"{path}: no data set /joints; a truth file holds /joints float32 (N, 17, 3) in mm")
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{path}: /joints is a link to another object or file; links are refused")
    joints = file["joints"]
    version = file.attrs.get("schema_version")
    if version is None or int(version) != SCHEMA_VERSION:
        raise UserError(f"{path}: attribute schema_version is {version}, this program reads {SCHEMA_VERSION}")
    if not isinstance(joints, h5py.Dataset) or joints.dtype.kind != "f" or joints.is_virtual:
        raise UserError(f"{path}: /joints must be a plain floating-point data set of shape (N, 17, 3)")
    if joints.external:
        raise UserError(f"{path}: /joints keeps its values in another file; that is refused")
    if joints.ndim != 3 or joints.shape[1:] != (17, 3):
        raise UserError(f"{path}: /joints has shape {joints.shape}, expected (N, 17, 3)")
    if len(joints) != len(poses):
        raise UserError(
            f"{path}: /joints has {len(joints)} rows, the poses ({poses.source}) have {len(poses)}; "
            "truth and poses must be written together"
        )
    digest = file.attrs.get("poses_digest")
    if digest != poses.digest:
        raise UserError(
            f"{path}: belongs to other poses: its attribute poses_digest is {_short(digest)}, the poses "
            f"({poses.source}) have {_short(poses.digest)}; use the pose file it was written with"
        )
    return joints


def _read(path: Path, joints: Any) -> npt.NDArray[np.float32]:
    array = np.empty(joints.shape, dtype=np.float32)
    for start in range(0, len(array), _CHUNK_ROWS):
        chunk = array[start : start + _CHUNK_ROWS]
        chunk[:] = joints[start : start + _CHUNK_ROWS]
        bad = ~np.isfinite(chunk).all(axis=(1, 2))
        if bad.any():
            raise UserError(f"{path}: /joints row {start + int(bad.argmax())} is not finite")
    return array


def _short(digest: object) -> str:
    return f"{digest[:12]}…" if isinstance(digest, str) else "missing"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
