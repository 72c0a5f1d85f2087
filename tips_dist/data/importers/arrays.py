"""A plain archive of named arrays: ``.npz``, or an HDF5 file with the same names at its top.

``poses`` (N, 17, 2) px is required. Optional: ``joints`` (N, 17, 3) in the camera's frame, mm (or say ``unit_mm``);
``subject``, ``sequence``, ``camera`` (N,) numbers or texts; ``frame`` (N,) integers; ``split`` (N,) of ``train``,
``validation``, ``test`` or 0, 1, 2. Joints in this program's order (Human3.6M, 17). Rows are read in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data import npz
from tips_dist.data.hdf5 import dataset, reading
from tips_dist.data.importers.pipeline import Clip, Options, Record, Source
from tips_dist.data.importers.splits import splits_by_name
from tips_dist.data.store import SPLITS
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS

USES = ("unit_mm", "validation_share", "test_share")
BLOCK = 20_000  # rows read together
PIECES = 10  # without sequences, the rows are cut into so many
LABELS = ("subject", "sequence", "camera")
SHAPES: dict[str, tuple[int, ...]] = {"poses": (len(JOINTS), 2), "joints": (len(JOINTS), 3)}
SHAPES |= dict.fromkeys((*LABELS, "frame", "split"), ())

Array = npt.NDArray[Any]


class _Column(Protocol):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def take(self, rows: int) -> Array: ...


class _Stored:
    """A data set of an HDF5 file, read forward."""

    def __init__(self, stored: h5py.Dataset) -> None:
        self.shape, self.dtype, self._stored, self._at = stored.shape, stored.dtype, stored, 0

    def take(self, rows: int) -> Array:
        block: Array = self._stored[self._at : self._at + rows]
        self._at += rows
        return block


def open_source(source: Path, options: Options, record: Record) -> Source:
    """Check the arrays and find the sequences.

    Raises:
        UserError: a missing array, a wrong shape or type, pickled objects, or an archive that claims too much.
    """
    with _columns(source) as columns:
        rows = _checked(source, columns)
        truth, given, numbered = "joints" in columns, "split" in columns, "frame" in columns
        names = _sequence_names(columns["sequence"], rows) if "sequence" in columns else []
    if not names:
        record.note(f"no sequences in the source: its rows are cut into {PIECES} pieces")
        names = [f"piece_{k}" for k in range(min(PIECES, rows))]
    splits = None if given else splits_by_name(names, options, record)
    if options.unit_mm is not None and not truth:
        raise UserError(f"{source}: unit_mm means nothing without joints")
    clips = _clips(source, rows, splits, options)
    return Source(f"arrays ({source.name})", 0.0, truth, clips, None, neighbours=numbered)


@contextmanager
def _columns(source: Path) -> Iterator[dict[str, _Column]]:
    if h5py.is_hdf5(source):
        with reading(source) as file:
            yield {name: _Stored(dataset(source, file, name)) for name in SHAPES if name in file}
    elif source.suffix == ".npz":
        with npz.archive(source) as opened:
            here = npz.keys(opened)
            yield {name: npz.Column(opened, source, name) for name in SHAPES if name in here}
    else:
        raise UserError(f"{source}: expected an .npz archive or an HDF5 file")


def _checked(source: Path, columns: dict[str, _Column]) -> int:
    if "poses" not in columns:
        raise UserError(f"{source}: no array 'poses' (N, 17, 2); optional are {', '.join(list(SHAPES)[1:])}")
    rows = columns["poses"].shape[0] if columns["poses"].shape else 0
    for name, column in columns.items():
        wanted = (rows, *SHAPES[name])
        if column.shape != wanted:
            raise UserError(f"{source}: {name} has shape {column.shape}, expected {wanted}")
        kinds = "f" if name in ("poses", "joints") else "iu" if name == "frame" else "iuSUO"
        if column.dtype.kind not in kinds:
            raise UserError(f"{source}: {name} is {column.dtype}, expected {'floats' if kinds == 'f' else 'integers'}")
    return rows


def _sequence_names(column: _Column, rows: int) -> list[str]:
    names: dict[str, None] = {}
    for start in range(0, rows, BLOCK):
        block = column.take(min(BLOCK, rows - start))
        names |= dict.fromkeys(map(_text, np.unique(block)))
    return list(names)


def _clips(source: Path, rows: int, splits: dict[str, str] | None, options: Options) -> Iterator[Clip]:
    with _columns(source) as columns:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            block = {name: column.take(count) for name, column in columns.items()}
            numbers = np.arange(start, start + count)
            block.setdefault("sequence", np.char.add("piece_", (numbers * PIECES // rows).astype(str)))
            block.setdefault("frame", numbers)
            yield from _grouped(source, block, start, splits, options)


def _grouped(
    source: Path, block: dict[str, Array], start: int, splits: dict[str, str] | None, options: Options
) -> Iterator[Clip]:
    """The rows of a block, one clip per subject, sequence, camera and split, in the order of the rows."""
    labels = [name for name in (*LABELS, "split") if name in block]
    codes = np.stack([np.unique(block[name], return_inverse=True)[1].ravel() for name in labels], axis=-1)
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1):
        label = {name: _text(block[name][rows[0]]) for name in labels}
        split = splits[label["sequence"]] if splits is not None else _split(source, label["split"], start + rows[0])
        joints = block["joints"][rows] if "joints" in block else None
        if joints is not None and options.unit_mm is not None:
            joints = joints * options.unit_mm
        yield Clip(
            label.get("subject", "subject_0"),
            label["sequence"],
            label.get("camera", "camera_0"),
            split,
            block["frame"][rows].astype(np.int64),
            block["poses"][rows],
            joints,
        )


def _split(source: Path, value: str, row: int) -> str:
    if value in SPLITS:
        return value
    if value in ("0", "1", "2"):
        return SPLITS[int(value)]
    raise UserError(f"{source}: split row {row}: '{value:.40}' is none of {', '.join(SPLITS)}, 0, 1, 2")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
