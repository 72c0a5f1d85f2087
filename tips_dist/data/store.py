"""The 2D pose file: what it holds, read once and checked thoroughly (:mod:`tips_dist.data.writer` writes it).

A data set is two HDF5 files in the same row order: ``NAME.pose2d.h5`` (what everything may read) and
``NAME.truth3d.h5`` (what only evaluation may read).

Schema 2 has ``/stretch`` and takes ``/score`` as part of the content; files of schema 1 have neither and still open.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data.hdf5 import attribute_text, dataset, decoded, read_number, reading, texts
from tips_dist.files import JSON, UserError
from tips_dist.skeleton import HEAD, JOINTS, ROOT

SCHEMA_VERSION = 2
TRUTH_SCHEMA = 1
SPLITS = ("train", "validation", "test")
POSE_SUFFIX, TRUTH_SUFFIX = ".pose2d.h5", ".truth3d.h5"
COLUMNS: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    "poses": (np.dtype("float32"), (len(JOINTS), 2)),
    "subject": (np.dtype("int32"), ()),
    "sequence": (np.dtype("int32"), ()),
    "camera": (np.dtype("int32"), ()),
    "frame": (np.dtype("int32"), ()),
    "split": (np.dtype("int8"), ()),
    "stretch": (np.dtype("int32"), ()),
}
SCORE = (np.dtype("float32"), (len(JOINTS),))
ORDINARY = -1  # the stretch of a row that belongs to none
NAMES = ("subject_names", "sequence_names", "camera_names")
LEAST_VALIDATION_SEQUENCES = 2  # one alone says nothing about others
_HINT = "make one with 'tips-dist data generate -o NAME' or 'tips-dist data import FORMAT SOURCE -o NAME'"
_BLOCK = 65_536  # rows looked at together

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Poses:
    """2D poses with their bookkeeping, all rows in one order.

    ``poses`` is (N, 17, 2) float32 in pixels. ``subject``, ``sequence`` and ``camera`` (N,) int32 index the names
    of the same kind, ``frame`` (N,) int32 counts within the recording, ``split`` (N,) int8 indexes :data:`SPLITS`.
    ``stretch`` (N,) int32 is the number of the stretch of neighbouring frames that a row belongs to, and -1 for an
    ordinary row; given empty, all rows are ordinary. ``scores`` (N, 17) float32 are a detector's, 0 where a joint is
    missing (its coordinates are then its parent's); None without a detector.
    """

    poses: npt.NDArray[np.float32]
    subject: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.int32]
    camera: npt.NDArray[np.int32]
    frame: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    subject_names: tuple[str, ...]
    sequence_names: tuple[str, ...]
    camera_names: tuple[str, ...]
    source: str
    frame_rate_hz: float
    stretch: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    scores: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not len(self.stretch):
            object.__setattr__(self, "stretch", np.full(len(self.poses), ORDINARY, np.int32))

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def columns(self) -> dict[str, Array]:
        """All per-row arrays by the name of their data set, the scores only where there are some."""
        columns = {column: getattr(self, column) for column in COLUMNS}
        return columns if self.scores is None else columns | {"score": self.scores}

    @functools.cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which joints are there (N, 17): those with a score above 0; all of them without scores."""
        if self.scores is None:
            return np.ones((len(self), len(JOINTS)), dtype=bool)
        return np.asarray(self.scores > 0)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content: arrays, names, source and frame rate; not of the file's bytes."""
        digest = ContentDigest()
        digest.update(self.columns)
        names = {key: getattr(self, key) for key in NAMES}
        return digest.hexdigest(names, self.source, self.frame_rate_hz)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of a split ("train", "validation" or "test"), ascending; without the rows of stretches."""
        return np.flatnonzero((self.split == SPLITS.index(split)) & (self.stretch == ORDINARY)).astype(np.int64)

    def stretches(self) -> list[npt.NDArray[np.int64]]:
        """Row numbers of every stretch as one camera saw it, in frame order; ordered by stretch, then camera."""
        rows = np.flatnonzero(self.stretch != ORDINARY).astype(np.int64)
        rows = rows[np.lexsort((self.frame[rows], self.camera[rows], self.stretch[rows]))]
        new = (np.diff(self.stretch[rows]) != 0) | (np.diff(self.camera[rows]) != 0)
        return np.split(rows, np.flatnonzero(new) + 1) if len(rows) else []


class ContentDigest:
    """The digest of :attr:`Poses.digest`, fed block by block.

    A column that says nothing (no row in a stretch, no scores) is left out, which leaves the digests of schema 1.
    """

    def __init__(self) -> None:
        self._hashes = {column: hashlib.sha256() for column in (*COLUMNS, "score")}
        self._silent = {"stretch", "score"}
        self._rows = 0

    def update(self, columns: Mapping[str, Array]) -> None:
        """Take in the next rows of every column."""
        for column, (dtype, _) in {**COLUMNS, "score": SCORE}.items():
            if column in columns:
                self._hashes[column].update(np.ascontiguousarray(columns[column], dtype=dtype).data)
        if "score" in columns:
            self._silent.discard("score")
        if np.any(np.asarray(columns["stretch"]) != ORDINARY):
            self._silent.discard("stretch")
        self._rows += len(columns["poses"])

    def hexdigest(self, names: Mapping[str, Sequence[str]], source: str, frame_rate_hz: float) -> str:
        """The digest of all rows so far with these names."""
        content = {
            "columns": {
                name: [dtype.str, [self._rows, *shape], self._hashes[name].hexdigest()]
                for name, (dtype, shape) in {**COLUMNS, "score": SCORE}.items()
                if name not in self._silent
            },
            "names": {key: list(names[key]) for key in NAMES},
            "source": source,
            "frame_rate_hz": float(frame_rate_hz),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- reading -----------------------------------------------------------------------------------------------------


def read_poses(path: Path) -> Poses:
    """Read and check a pose file.

    Raises:
        UserError: the file is missing, truncated, not HDF5, of another schema, or a data set has a wrong shape,
            type, length or value; one line that names file, data set and row.
    """
    with reading(path, hint=_HINT) as file:
        schema = _check_header(path, file)
        kinds = {**COLUMNS, "score": SCORE} if "score" in file and schema > 1 else dict(COLUMNS)
        if schema == 1:
            del kinds["stretch"]
        stored = {name: _column(path, file, name, *kind) for name, kind in kinds.items()}
        rows = len(stored["poses"])
        for name, column in stored.items():  # before anything is read: what does not fit takes no memory
            if len(column) != rows:
                raise UserError(f"{path}: /{name} has {len(column)} rows, but /poses has {rows}")
        if rows == 0:
            raise UserError(f"{path}: /poses has no rows; import or generate the data again")
        names = {key: texts(path, file, key) for key in NAMES}
        columns = {name: _read(column, kinds[name][0]) for name, column in stored.items()}
        source = attribute_text(path, file, "source")
        frame_rate = read_number(path, file, "frame_rate_hz")
        stated = attribute_text(path, file, "digest") if "digest" in file.attrs else None
    _check_values(path, columns, names)
    scores = columns.pop("score", None)
    poses = Poses(**columns, scores=scores, **names, source=source, frame_rate_hz=frame_rate)  # type: ignore[arg-type]
    if stated is not None and stated != poses.digest:
        raise UserError(
            f"{path}: the content does not match the file's own digest: it was changed or damaged after it was "
            "written; import or generate it again"
        )
    return poses


def read_record(path: Path) -> dict[str, JSON]:
    """What the importer or generator wrote down about a pose file (source, counts, what was dropped and why)."""
    with reading(path, hint=_HINT) as file:
        if "record" not in file.attrs:
            return {}
        try:
            record = json.loads(attribute_text(path, file, "record"))
        except json.JSONDecodeError:
            raise UserError(f"{path}: attribute record: not JSON") from None
    return record if isinstance(record, dict) else {}


def _check_header(path: Path, file: h5py.File) -> int:
    """The file's schema, one that is known here."""
    if "schema_version" not in file.attrs or "poses" not in file:
        kind = "a truth file" if "joints" in file else "another kind of HDF5 file"
        raise UserError(
            f"{path}: not a pose2d file but {kind}; expected data set /poses and attribute schema_version; {_HINT}"
        )
    version = file.attrs["schema_version"]
    if not (np.ndim(version) == 0 and version in range(1, SCHEMA_VERSION + 1)):
        known = f"this program reads 1 to {SCHEMA_VERSION}"
        raise UserError(f"{path}: attribute schema_version is {version!s:.20}, {known}")
    joints = tuple(decoded(name) for name in np.atleast_1d(file.attrs.get("joint_names", [])))
    if joints != JOINTS:
        wrong = next((j for j, pair in enumerate(zip(joints, JOINTS, strict=False)) if pair[0] != pair[1]), None)
        what = f"{len(joints)} names" if wrong is None else f"'{joints[wrong]}' at {wrong}, not '{JOINTS[wrong]}'"
        raise UserError(
            f"{path}: attribute joint_names: {what}; expected the 17 Human3.6M joints from hip to right_wrist"
        )
    return int(version)


def _column(path: Path, file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> h5py.Dataset:
    stored = dataset(path, file, name)
    if len(stored.shape) != 1 + len(shape) or stored.shape[1:] != shape:
        wanted = ", ".join(["N", *map(str, shape)])
        raise UserError(f"{path}: /{name} has shape {stored.shape}, expected ({wanted})")
    if stored.dtype != dtype:
        raise UserError(f"{path}: /{name} is {stored.dtype}, expected {dtype}")
    return stored


def _read(stored: h5py.Dataset, dtype: np.dtype[Any]) -> Array:
    values = np.empty(stored.shape, dtype)
    stored.read_direct(values)
    return values


def _check_values(path: Path, columns: Mapping[str, Array], names: Mapping[str, tuple[str, ...]]) -> None:
    for name in ("poses", "score"):
        values = columns.get(name, np.zeros((0, 0)))
        for start in range(0, len(values), _BLOCK):
            finite = np.isfinite(values[start : start + _BLOCK])
            if not finite.all():
                row, joint = np.argwhere(~finite)[0][:2]
                raise UserError(
                    f"{path}: /{name} row {start + row}, joint {JOINTS[joint]}: not a finite number; remove the row"
                )
    limits = {key.removesuffix("_names"): len(names[key]) for key in NAMES} | {"split": len(SPLITS)}
    for name, limit in limits.items():
        bad = np.flatnonzero((columns[name] < 0) | (columns[name] >= limit))
        if bad.size:
            value = columns[name][bad[0]]
            raise UserError(f"{path}: /{name} row {bad[0]}: code {value} is outside 0..{limit - 1}")


# --- using -------------------------------------------------------------------------------------------------------


def check_decidable(poses: Poses) -> None:
    """Refuse data on whose validation split nothing can be decided: an empty one, or one of a single sequence.

    Raises:
        UserError: it is so; the message says how to hold out more.
    """
    sequences = len(np.unique(poses.sequence[poses.rows("validation")]))
    if sequences < LEAST_VALIDATION_SEQUENCES:
        held = "holds a single sequence" if sequences else "is empty"
        raise UserError(
            f"{poses.source}: the validation split {held}, so nothing can be decided; import the data again with "
            "more held out (validation_share, validation_subjects) or with more sequences"
        )


def normalisation_scale(poses: Poses) -> float:
    """Ten times the mean 2D distance from root to head, in px, over the train rows (arXiv 2209.00618)."""
    rows = poses.rows("train")
    if len(rows) == 0:
        raise UserError(f"{poses.source}: no rows in the train split, so there is nothing to train on")
    train = poses.poses[rows[poses.present[rows][:, [ROOT, HEAD]].all(axis=1)]]
    if len(train) == 0:
        raise UserError(f"{poses.source}: no row of the train split has a head; detect it, or lower minimum_score")
    scale = 10.0 * float(np.linalg.norm((train[:, HEAD] - train[:, ROOT]).astype(np.float64), axis=-1).mean())
    if scale <= 0:
        raise UserError(f"{poses.source}: root and head coincide in every train row; are these poses?")
    return scale


def normalised(poses: Poses, rows: npt.NDArray[np.int64], scale: float) -> npt.NDArray[np.float32]:
    """Poses of ``rows``, root-centred and divided by ``scale``: (n, 17, 2) float32."""
    selected = poses.poses[rows]
    result: npt.NDArray[np.float32] = (selected - selected[:, ROOT : ROOT + 1]) / np.float32(scale)
    return result
