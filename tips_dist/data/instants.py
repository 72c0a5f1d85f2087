"""Instants: the poses that several cameras saw at one moment, recognised by subject, sequence and frame.

Numbers alone prove nothing: two recordings may both count from 0. :func:`out_of_time` tells by the poses. Two cameras
that stand still and see one body through (nearly) parallel rays obey one linear equation, ``a x + b y + c x' + d y' =
0`` for every joint of every moment, root-centred (Tomasi and Kanade 1992: such measurements have rank three). If it
holds no better than for the same poses at shifted times, the cameras do not run together.

Measured (``python -m benchmarks.synchrony``: 14 people walking past four cameras, detections that err by 4 px, one
sequence at a time): of pairs of one recording 1.4 % are doubted, of pairs of two recordings 79 %, of pairs that are
late by a fifth 48 %; the others hold too little motion to tell. A view is kept apart if most of its pairs are doubted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tips_dist.data.store import Poses

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST_MOMENTS = 12  # shared, before two views are judged
LEAST_MOTION = 0.1  # of the pose's size: a body that stands still looks the same at any time
WORST_MISFIT = 0.15  # of the pose's size: what perspective and detectors leave of the linear equation
WORST_RATIO = 0.85  # of the misfit, to that at shifted times
_MOST_MOMENTS = 200


def instants(poses: Poses, rows: Rows) -> list[Rows]:
    """The row numbers among ``rows`` that belong together: one array per instant, one row per camera, two at least.

    Ordered by subject, sequence and frame, within an instant by camera; of two rows of one camera at one moment (an
    ordinary row and the same frame in a stretch) the first counts.
    """
    rows = np.unique(np.asarray(rows, dtype=np.int64))
    keys = np.stack([column[rows] for column in (poses.subject, poses.sequence, poses.frame, poses.camera)], axis=-1)
    keys, first = np.unique(keys, axis=0, return_index=True)
    rows = rows[first]
    if not len(rows):
        return []
    starts = np.flatnonzero((np.diff(keys[:, :3], axis=0) != 0).any(axis=1)) + 1
    return [group for group in np.split(rows, starts) if len(group) > 1]


def choose_instants(poses: Poses, rows: Rows, count: int) -> list[Rows]:
    """At most ``count`` of the instants among ``rows``, evenly spaced, each with all its views."""
    found = instants(poses, rows)
    if len(found) <= count:
        return found
    return [found[k] for k in np.linspace(0, len(found) - 1, count).round().astype(int)]


def out_of_time(views: Sequence[tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]]) -> list[bool]:
    """Which views of one sequence cannot have run together with most of the others.

    ``views`` are (frames (T,), poses (T, 17, 2) px) of one body. A view without enough shared moments or motion to
    tell is not doubted.
    """
    doubted, judged = np.zeros(len(views)), np.zeros(len(views))
    shapes = [_shapes(poses) for _, poses in views]
    for one, other in itertools.combinations(range(len(views)), 2):
        _, first, second = np.intersect1d(views[one][0], views[other][0], return_indices=True)
        together = _together(shapes[one][first], shapes[other][second])
        if together is not None:
            for view in (one, other):
                judged[view] += 1
                doubted[view] += not together
    return [bool(count) for count in doubted > judged / 2]


def _together(one: Floats, other: Floats) -> bool | None:
    """Whether two views of the same moments (T, 17, 2) can be one body's; None where they cannot tell."""
    if len(one) < LEAST_MOMENTS:
        return None
    chosen = np.linspace(0, len(one) - 1, min(len(one), _MOST_MOMENTS)).round().astype(int)
    one, other = one[chosen], other[chosen]
    shifts = np.linspace(len(one) / 4, 3 * len(one) / 4, 5).astype(int)
    if min(_motion(one, shifts), _motion(other, shifts)) < LEAST_MOTION:
        return None
    misfit = _misfit(one, other)
    shifted = float(np.mean([_misfit(one, np.roll(other, shift, axis=0)) for shift in shifts]))
    return misfit <= WORST_MISFIT or misfit <= WORST_RATIO * shifted


def _shapes(poses: npt.NDArray[np.floating]) -> Floats:
    """Root-centred, of unit root mean square size: (T, 17, 2)."""
    centred = np.asarray(poses, dtype=np.float64) - poses[:, :1]
    size = np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.maximum(size, 1e-9))


def _misfit(one: Floats, other: Floats) -> float:
    """Root mean square of what the best linear equation between two views leaves."""
    points = np.concatenate((one, other), axis=-1).reshape(-1, 4)
    return float(np.sqrt(max(np.linalg.eigvalsh(points.T @ points / len(points))[0], 0.0)))


def _motion(shapes: Floats, shifts: npt.NDArray[np.int64]) -> float:
    """How far, root mean square, poses are from those at shifted times."""
    return float(np.mean([np.sqrt(((shapes - np.roll(shapes, shift, axis=0)) ** 2).mean()) for shift in shifts]))
