"""The two files of a data set, written atomically; the truth can be written here, never read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data.hdf5 import writing
from tips_dist.data.store import (
    COLUMNS,
    NAMES,
    ORDINARY,
    SCHEMA_VERSION,
    SCORE,
    SPLITS,
    TRUTH_SCHEMA,
    ContentDigest,
    Poses,
)
from tips_dist.files import write_with
from tips_dist.skeleton import JOINTS

Array = npt.NDArray[Any]


class Writer:
    """Appends blocks of rows to the two files of a data set; memory stays that of one block.

    Detector scores (n, 17) may come along as column ``score``, in every block or in none; they go to ``/score``.
    """

    def __init__(self, pose_file: h5py.File, truth_file: h5py.File | None) -> None:
        self._pose_file, self._truth_file = pose_file, truth_file
        self._columns = {name: _growing(pose_file, name, dtype, shape) for name, (dtype, shape) in COLUMNS.items()}
        self._joints = _growing(truth_file, "joints", np.dtype("f4"), (len(JOINTS), 3)) if truth_file else None
        self._digest = ContentDigest()
        self._truth_hash = hashlib.sha256()
        self.rows = 0
        self.split_counts = [0] * len(SPLITS)  # ordinary rows

    def append(self, columns: Mapping[str, Array], joints_mm: Array | None = None) -> None:
        """Append rows: every column of :data:`COLUMNS`, and the truth (n, 17, 3) in mm if there is a truth file."""
        n = len(columns["poses"])
        for name, (dtype, shape) in COLUMNS.items():
            values = np.ascontiguousarray(columns[name], dtype=dtype)
            if values.shape != (n, *shape):
                raise ValueError(f"{name}: shape {values.shape}, expected {(n, *shape)}")
            _extend(self._columns[name], self.rows, values)
        if "score" in columns:
            if "score" not in self._pose_file:
                _growing(self._pose_file, "score", *SCORE)
            _extend(self._pose_file["score"], self.rows, np.asarray(columns["score"], dtype=np.float32))
        if self._joints is not None:
            truth = np.ascontiguousarray(joints_mm, dtype=np.float32)
            if truth.shape != (n, len(JOINTS), 3):
                raise ValueError(f"joints: shape {truth.shape}, expected {(n, len(JOINTS), 3)}")
            _extend(self._joints, self.rows, truth)
            self._truth_hash.update(truth.data)
        self._digest.update(columns)
        ordinary = np.asarray(columns["stretch"]) == ORDINARY
        for code, count in enumerate(np.bincount(columns["split"][ordinary], minlength=len(SPLITS))):
            self.split_counts[code] += int(count)
        self.rows += n

    def finish(
        self,
        names: Mapping[str, Sequence[str]],
        source: str,
        frame_rate_hz: float,
        record: Mapping[str, Any] | None = None,
    ) -> str:
        """Write names, attributes and digests; returns the digest of the poses."""
        digest = self._digest.hexdigest(names, source, frame_rate_hz)
        file = self._pose_file
        for key in NAMES:
            file.create_dataset(key, data=_encoded(names[key]))
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["joint_names"] = _encoded(JOINTS)
        file.attrs["source"] = source
        file.attrs["frame_rate_hz"] = float(frame_rate_hz)
        file.attrs["digest"] = digest
        file.attrs["record"] = json.dumps(record or {})
        if self._truth_file is not None:
            self._truth_file.attrs["schema_version"] = TRUTH_SCHEMA
            self._truth_file.attrs["joint_names"] = _encoded(JOINTS)
            self._truth_file.attrs["poses_digest"] = digest
            self._truth_file.attrs["digest"] = self._truth_hash.hexdigest()
        return digest


def write_dataset(pose_path: Path, truth_path: Path | None, fill: Callable[[Writer], None]) -> None:
    """Write both files of a data set, or neither: ``fill`` appends all rows and calls ``finish``.

    Raises:
        StorageError: a write failed; files that stood there before are untouched.
    """

    def write_pose(pose: Path) -> None:
        with writing(pose) as pose_file:
            fill(Writer(pose_file, None))

    def write_both(pose: Path, truth: Path) -> None:
        with writing(pose) as pose_file, writing(truth) as truth_file:
            fill(Writer(pose_file, truth_file))

    if truth_path is None:
        write_with(pose_path, write_pose)
    else:  # both files are complete before the first of them moves into place
        write_with(pose_path, lambda pose: write_with(truth_path, lambda truth: write_both(pose, truth)))


def write_poses(path: Path, poses: Poses, record: Mapping[str, Any] | None = None) -> None:
    """Write ``poses`` to ``path`` atomically.

    Raises:
        StorageError: the write failed; a file that stood there before is untouched.
    """

    def fill(writer: Writer) -> None:
        writer.append(poses.columns)
        names = {key: getattr(poses, key) for key in NAMES}
        writer.finish(names, poses.source, poses.frame_rate_hz, record)

    write_dataset(path, None, fill)


def write_truth(path: Path, joints_mm: Array, poses_digest: str) -> None:
    """Write the truth (N, 17, 3) float32 in mm, camera frame, that belongs to the poses with this digest."""
    truth = np.ascontiguousarray(joints_mm, dtype=np.float32)
    if truth.ndim != 3 or truth.shape[1:] != (len(JOINTS), 3):
        raise ValueError(f"joints: shape {truth.shape}, expected (N, {len(JOINTS)}, 3)")

    def write(temporary: Path) -> None:
        with writing(temporary) as file:
            file.create_dataset("joints", data=truth)
            file.attrs["schema_version"] = TRUTH_SCHEMA
            file.attrs["joint_names"] = _encoded(JOINTS)
            file.attrs["poses_digest"] = poses_digest
            file.attrs["digest"] = hashlib.sha256(truth.data).hexdigest()

    write_with(path, write)


def _growing(file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> h5py.Dataset:
    return file.create_dataset(name, shape=(0, *shape), maxshape=(None, *shape), chunks=(4096, *shape), dtype=dtype)


def _extend(dataset: h5py.Dataset, start: int, values: Array) -> None:
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values


def _encoded(names: Sequence[str]) -> Array:
    return np.array([name.encode() for name in names], dtype=np.bytes_)
