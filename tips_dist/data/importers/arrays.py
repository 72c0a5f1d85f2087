"""A plain archive of named arrays: ``.npz``, or an HDF5 file with the same names at its top.

``poses`` (N, 17, 2) px is required. Optional: ``joints`` (N, 17, 3) in the camera's frame, mm (or say ``unit_mm``);
``subject``, ``sequence``, ``camera`` (N,) numbers or texts; ``frame`` (N,) integers; ``split`` (N,) of ``train``,
``validation``, ``test`` or 0, 1, 2. Joints in this program's order (Human3.6M, 17). The rows may come in any order:
they are copied to disk block by block, so that those of one sequence can be taken together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data import npz
from tips_dist.data.hdf5 import dataset, is_hdf5, reading
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.data.importers.splits import splits_by_name, splits_by_person
from tips_dist.data.store import SPLITS
from tips_dist.files import UserError, check_file
from tips_dist.skeleton import JOINTS

USES = ("unit_mm", "validation_share", "test_share", "validation_subjects", "test_subjects")
BLOCK = 20_000  # rows read together
TEXTS, LONGEST = 100, 1000  # texts of varying length read together; bytes of one
PIECES = 10  # without sequences, the rows are cut into so many
LABELS = ("subject", "sequence", "camera")
SHAPES: dict[str, tuple[int, ...]] = {"poses": (len(JOINTS), 2), "joints": (len(JOINTS), 3)}
SHAPES |= dict.fromkeys((*LABELS, "frame", "split"), ())

KINDS = dict.fromkeys(("poses", "joints"), ("f", "floats (numpy: .astype('float32'))")) | {"frame": ("iu", "integers")}

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
        step = rows if self.dtype.kind != "O" else TEXTS  # texts of any length may unfold to any size
        blocks = []
        for start in range(self._at, self._at + rows, step):
            block: Array = self._stored[start : min(start + step, self._at + rows)]
            if self.dtype.kind == "O" and any(len(text) > LONGEST for text in block):
                raise UserError(
                    f"{self._stored.file.filename}: {self._stored.name}: a name longer than {LONGEST} bytes"
                )
            blocks.append(block)
        self._at += rows
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Check the arrays and find the sequences.

    Raises:
        UserError: a missing array, a wrong shape or type, pickled objects, or an archive that claims too much.
    """
    with _columns(source) as columns:
        rows = _checked(source, columns)
        truth, given, numbered = "joints" in columns, "split" in columns, "frame" in columns
        sequences, persons = "sequence" in columns, "subject" in columns
        people = _people(columns, rows) if sequences else {}
    if not sequences:
        record.note(f"no sequences in the source: its rows are cut into {PIECES} pieces")
        people = {f"piece_{k}": "subject_0" for k in range(min(PIECES, rows))}
    splits = None
    if given:
        for option in ("validation_subjects", "test_subjects"):
            if getattr(options, option) is not None:
                raise UserError(f"{source}: {option} means nothing beside the array 'split'; leave one of them out")
    elif persons and sequences:
        splits = splits_by_person(people, options, record, source)
    else:
        splits = splits_by_name(list(people), options, record)
    if options.unit_mm is not None and not truth:
        raise UserError(f"{source}: unit_mm means nothing without joints")
    clips = _clips(source, rows, splits, options)
    return Source(f"arrays ({source.name})", 0.0, truth, clips, None, neighbours=numbered)


@contextmanager
def _columns(source: Path) -> Iterator[dict[str, _Column]]:
    check_file(source, "file of arrays (.npz or HDF5)")
    if is_hdf5(source):
        with reading(source) as file:
            yield {name: _Stored(dataset(source, file, name)) for name in SHAPES if name in file}
    elif source.suffix == ".npz":
        with npz.archive(source) as opened:
            here = npz.array_names(opened)
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
        kinds, wanted_kind = KINDS.get(name, ("iuSUO", "integers or texts"))
        if column.dtype.kind not in kinds:
            raise UserError(f"{source}: {name} is {column.dtype}, expected {wanted_kind}")
    return rows


def _people(columns: dict[str, _Column], rows: int) -> dict[str, str]:
    """Whose each sequence is, by its name, in the order of the first rows; the first person where there are several."""
    people: dict[str, str] = {}
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        block = {name: columns[name].take(count) for name in ("sequence", "subject") if name in columns}
        _, first = np.unique(block["sequence"], return_index=True)
        for row in np.sort(first):
            person = _text(block["subject"][row]) if "subject" in block else "subject_0"
            people.setdefault(_text(block["sequence"][row]), person)
    return people


class _Spool:
    """The rows of a source, copied to a temporary file that can be read in any order; labels stay in memory."""

    def __init__(self, source: Path, rows: int) -> None:
        self.labels: dict[str, Array] = {}
        self.names: dict[str, list[str]] = {}
        self.large: dict[str, Array] = {}
        with _columns(source) as columns:
            self._copy(columns, rows)
        if "sequence" not in self.labels:
            pieces = min(PIECES, rows)
            self.labels["sequence"] = np.arange(rows) * pieces // max(rows, 1)
            self.names["sequence"] = [f"piece_{k}" for k in range(pieces)]
        self.frames = self.large.pop("frame", np.arange(rows))

    def _copy(self, columns: dict[str, _Column], rows: int) -> None:
        known: dict[str, dict[str, int]] = {name: {} for name in columns if name in (*LABELS, "split")}
        for name, column in columns.items():
            if name in known:
                self.labels[name] = np.empty(rows, np.int32)
            elif name == "frame":
                self.large[name] = np.empty(rows, np.int64)
            else:
                with tempfile.TemporaryFile() as file:
                    self.large[name] = np.memmap(file, np.float32, "w+", shape=(rows, *column.shape[1:]))
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            for name, column in columns.items():
                block = column.take(count)
                if name not in known:
                    self.large[name][start : start + count] = block
                    continue
                values, codes = np.unique(block, return_inverse=True)
                numbers = [known[name].setdefault(_text(value), len(known[name])) for value in values]
                self.labels[name][start : start + count] = np.array(numbers, np.int32)[codes.ravel()]
        self.names |= {name: list(texts) for name, texts in known.items()}


def _clips(source: Path, rows: int, splits: dict[str, str] | None, options: Options) -> Iterator[Clip]:
    """One clip per subject, sequence, split and camera; those of one sequence after each other."""
    spool = _Spool(source, rows)
    keys = [name for name in ("subject", "sequence", "split", "camera") if name in spool.labels]
    order = np.lexsort([spool.frames, *(spool.labels[name] for name in reversed(keys))])
    changes = np.zeros(max(rows - 1, 0), dtype=bool)
    for name in keys:
        changes |= np.diff(spool.labels[name][order]) != 0
    for chosen in np.split(order, np.flatnonzero(changes) + 1) if rows else []:
        label = {name: spool.names[name][spool.labels[name][chosen[0]]] for name in keys}
        split = splits[label["sequence"]] if splits is not None else _split(source, label["split"], int(chosen.min()))
        ordered = np.sort(chosen)  # read forward, then put in the order of the frames
        back = np.searchsorted(ordered, chosen)
        joints = np.array(spool.large["joints"][ordered])[back] if "joints" in spool.large else None
        if joints is not None and options.unit_mm is not None:
            joints *= options.unit_mm
        yield Clip(
            label.get("subject", "subject_0"),
            label["sequence"],
            label.get("camera", "camera_0"),
            split,
            spool.frames[chosen],
            np.array(spool.large["poses"][ordered])[back],
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
