"""How well poses tell whether cameras ran together: ``python -m benchmarks.synchrony cmu_subjects_17.h5``.

Every sequence of the CMU file walks along a winding path (three metres across) before four cameras that stand still,
with detections that err by 4 px. Counted are the pairs of views that :func:`tips_dist.data.instants.out_of_time`
doubts: pairs of one recording, the same with one camera late by a fifth, and pairs of two recordings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tips_dist.data.cameras import FOCAL_PX, IMAGE_PX, rig
from tips_dist.data.instants import out_of_time

CAMERAS, REACH_MM, NOISE_PX, RATE_HZ = 4, 1500.0, 4.0, 60.0


def recordings(source: Path, generator: np.random.Generator) -> Iterator[Any]:
    """Detections (CAMERAS, T, 17, 2) in px of every sequence."""
    with h5py.File(source) as file:
        for part in file.values():
            for action in part.values():
                for sequence in action.values():
                    yield seen(sequence["joints_3d"][()].astype(np.float64), generator)


def seen(joints: Any, generator: np.random.Generator) -> Any:
    """One sequence (T, 17, 3), y up, on its way past the cameras."""
    phase = np.arange(len(joints)) / RATE_HZ / generator.uniform(4, 9, (2, 1)) + generator.uniform(0, 1, (2, 1))
    x, z = REACH_MM * np.sin(2 * np.pi * phase)
    world = joints + np.stack([x, np.zeros(len(joints)), z], axis=-1)[:, None]
    cameras = rig(generator, CAMERAS)
    turned = np.einsum("nij,tkj->ntki", cameras.rotations(), world)
    turned[..., 2] += cameras.distance[:, None, None]
    pixels = FOCAL_PX * turned[..., :2] / turned[..., 2:] + IMAGE_PX / 2
    return pixels + generator.normal(0, NOISE_PX, pixels.shape)


def doubted(one: Any, other: Any) -> bool:
    """Whether two views that share their frame numbers are doubted."""
    length = min(len(one), len(other))
    return out_of_time([(np.arange(length), one[:length]), (np.arange(length), other[:length])])[0]


def main(source: Path) -> None:
    """Count and print."""
    generator = np.random.default_rng(0)
    views = list(recordings(source, generator))
    found: dict[str, list[bool]] = {"one recording": [], "late by a fifth": [], "two recordings": []}
    for number, here in enumerate(views):
        there = views[(number + int(generator.integers(1, len(views)))) % len(views)]
        for first, second in combinations(range(CAMERAS), 2):
            found["one recording"].append(doubted(here[first], here[second]))
            found["late by a fifth"].append(doubted(here[first][len(here[first]) // 5 :], here[second]))
            found["two recordings"].append(doubted(here[first], there[second]))
    for kind, answers in found.items():
        print(f"{kind:16} {len(answers):5} pairs of views, doubted: {100 * np.mean(answers):.1f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
