"""CMU Graphics Lab motion capture (mocap.cs.cmu.edu) as 17 joints in one HDF5 file, seen by virtual cameras.

Layout: groups ``train/<action>/<sequence>`` and ``test/…``, each with ``joints_3d`` float32 (T, 17, 3), millimetres,
y up, hip at the origin. Test groups are the test split; of the train groups about one sequence in seven of every
action is the validation split. All sequences of the actions in ``leave_out`` are test, to measure generalisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from tips_dist.data.hdf5 import dataset, number, reading
from tips_dist.data.importers.pipeline import Clip, Options, Record, Source, hold_out, seen_by_rig
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS

USES = ("cameras", "seed", "validation_share", "leave_out")
NAME = "CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu), virtual cameras"


def open_source(source: Path, options: Options, record: Record) -> Source:
    """Open the file and list its sequences.

    Raises:
        UserError: the file is missing, damaged, or is not laid out like this.
    """
    with reading(source) as file:
        sequences = list(_sequences(source, file, options))
        rate = number(source, file, "frame_rate_hz") if "frame_rate_hz" in file.attrs else 60.0
    record.note(f"virtual cameras: {options.cameras} per sequence at equal azimuths, seed {options.seed}")
    clips = _clips(source, sequences, options)
    return Source(NAME, rate, True, clips, len(sequences) * options.cameras, image_px=(1000, 1000))


def _sequences(source: Path, file: h5py.File, options: Options) -> Iterator[tuple[str, str, str]]:
    """(path in the file, name, split) of every sequence."""
    if "train" not in file and "test" not in file:
        raise UserError(f"{source}: no group 'train' or 'test'; expected train/<action>/<sequence>/joints_3d")
    actions = sorted({action for part in ("train", "test") for action in file.get(part, {})})
    for action in options.leave_out:
        if action not in actions:
            raise UserError(f"{source}: leave_out: no action '{action}' here; there are {', '.join(actions)}")
    for part in ("train", "test"):
        for action in sorted(file.get(part, {})):
            group = file[f"{part}/{action}"]
            names = sorted(group, key=_natural) if isinstance(group, h5py.Group) else []
            if not names:
                raise UserError(f"{source}: /{part}/{action}: expected a group of sequences")
            validation = hold_out(names, options.validation_share) if part == "train" else set()
            for name in names:
                split = "test" if action in options.leave_out else "validation" if name in validation else part
                yield f"{part}/{action}/{name}", f"{action}/{name}", split


def _clips(source: Path, sequences: list[tuple[str, str, str]], options: Options) -> Iterator[Clip]:
    generator = np.random.default_rng(options.seed)
    with reading(source) as file:
        for path, name, split in sequences:
            stored = dataset(source, file, f"{path}/joints_3d")
            if stored.ndim != 3 or stored.shape[1:] != (len(JOINTS), 3) or stored.dtype.kind != "f":
                raise UserError(
                    f"{source}: /{path}/joints_3d is {stored.dtype} {stored.shape}, expected float32 (T, 17, 3)"
                )
            yield from seen_by_rig("cmu", name, split, stored[()], generator, options.cameras)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts walking_9 before walking_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
