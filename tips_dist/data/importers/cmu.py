"""CMU Graphics Lab motion capture (mocap.cs.cmu.edu) as 17 joints in one HDF5 file, seen by virtual cameras.

Layout: groups ``train/<action>/<sequence>`` and ``test/…``, each with ``joints_3d`` float32 (T, 17, 3), millimetres,
y up, hip at the origin, and the attribute ``subject``, whose body it is. Test groups are the test split, and of the
train groups' persons about a fifth of the frames is the validation split, whole persons (``validation_subjects``
names others). In a file without subjects everything is one person's, and about one sequence in seven of every action
is held out. All sequences of the actions in ``leave_out`` are test, to measure generalisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from tips_dist.data.hdf5 import dataset, decoded, read_number, reading
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source, seen_by_rig
from tips_dist.data.importers.splits import (
    check_subjects,
    choose_people,
    hold_out,
    note_people,
    share_of_people,
)
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS

USES = ("cameras", "seed", "validation_share", "validation_subjects", "test_subjects", "leave_out")
NAME = "CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu), virtual cameras"
SUBJECT = "cmu"  # everybody, in a file without subjects


@dataclass(frozen=True)
class _Sequence:
    """A sequence in the file: its group's path, its part (train or test), action, person and number of frames."""

    path: str
    part: str
    action: str
    name: str
    subject: str | None
    frames: int


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Open the file, list its sequences and choose who is held out.

    Raises:
        UserError: the file is missing, damaged, or is not laid out like this.
    """
    with reading(source) as file:
        sequences = list(_sequences(source, file))
        rate = read_number(source, file, "frame_rate_hz") if "frame_rate_hz" in file.attrs else 60.0
    splits = _splits(source, sequences, options, record)
    record.note(f"virtual cameras: {options.cameras} per sequence at equal azimuths, seed {options.seed}")
    clips = _clips(source, sequences, splits, options)
    return Source(NAME, rate, True, clips, len(sequences) * options.cameras, image_px=(1000, 1000), synchronous=True)


def _sequences(source: Path, file: h5py.File) -> Iterator[_Sequence]:
    if "train" not in file and "test" not in file:
        raise UserError(f"{source}: no group 'train' or 'test'; expected train/<action>/<sequence>/joints_3d")
    for part in ("train", "test"):
        for action in sorted(file.get(part, {})):
            group = file[f"{part}/{action}"]
            names = sorted(group, key=_natural) if isinstance(group, h5py.Group) else []
            if not names:
                raise UserError(f"{source}: /{part}/{action}: expected a group of sequences")
            for name in names:
                path = f"{part}/{action}/{name}"
                stored = dataset(source, file, f"{path}/joints_3d")
                if stored.ndim != 3 or stored.shape[1:] != (len(JOINTS), 3) or stored.dtype.kind != "f":
                    raise UserError(
                        f"{source}: /{path}/joints_3d is {stored.dtype} {stored.shape}, expected float32 (T, 17, 3)"
                    )
                subject = file[path].attrs.get("subject")
                if subject is not None and not isinstance(subject, str | bytes):
                    raise UserError(f"{source}: /{path}: attribute subject: expected a text, got {subject!r:.50}")
                person = None if subject is None else decoded(subject)
                yield _Sequence(path, part, action, f"{action}/{name}", person, len(stored))


def _splits(source: Path, sequences: list[_Sequence], options: Options, record: ImportRecord) -> dict[str, str]:
    """The split of every sequence by its path."""
    actions = sorted({sequence.action for sequence in sequences})
    for action in options.leave_out:
        if action not in actions:
            raise UserError(f"{source}: leave_out: no action '{action}' here; there are {', '.join(actions)}")
    splits = {sequence.path: sequence.part for sequence in sequences}
    train = [sequence for sequence in sequences if sequence.part == "train"]
    if any(sequence.subject is None for sequence in sequences):
        record.note("no subjects in the source: every sequence is taken to be the same person's")
    check_subjects(options, sorted({sequence.subject or SUBJECT for sequence in sequences}), source)
    validation, test = set(options.validation_subjects or ()), set(options.test_subjects or ())
    if options.validation_subjects is None:
        frames: dict[str, dict[str, int]] = {}
        for sequence in train:
            person = sequence.subject or SUBJECT
            if person not in test:
                counts = frames.setdefault(person, {})
                counts[sequence.action] = counts.get(sequence.action, 0) + sequence.frames
        validation = choose_people(frames, share_of_people(options, "validation_share"))
    if not validation:
        for action in actions:
            paths = [sequence.path for sequence in train if sequence.action == action]
            splits |= dict.fromkeys(hold_out(paths, options.validation_share), "validation")
    for sequence in sequences:
        person = sequence.subject or SUBJECT
        if sequence.action in options.leave_out or person in test:
            splits[sequence.path] = "test"
        elif person in validation:
            splits[sequence.path] = "validation"
    if validation or test:
        tested = {sequence.subject or SUBJECT for sequence in sequences if splits[sequence.path] == "test"}
        note_people(record, validation, tested)
    return splits


def _clips(source: Path, sequences: list[_Sequence], splits: dict[str, str], options: Options) -> Iterator[Clip]:
    generator = np.random.default_rng(options.seed)
    with reading(source) as file:
        for sequence in sequences:
            world = dataset(source, file, f"{sequence.path}/joints_3d")[()]
            person = sequence.subject or SUBJECT
            yield from seen_by_rig(
                person, sequence.name, splits[sequence.path], world, generator, options.cameras
            )  # fmt: skip


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts walking_9 before walking_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
