"""Validation poses: which rows of a data set every run is judged on, and what is fixed about how they are seen."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from tips_dist.config import Configuration
from tips_dist.data.instants import instants
from tips_dist.data.store import Poses, normalised
from tips_dist.files import UserError
from tips_dist.stability import agreement, signals

Rows = npt.NDArray[np.int64]
LEAST = 32


def validation_rows(poses: Poses, count: int) -> Rows:
    """The fixed validation rows of a data set, (V,) ascending: a pure function of data and count.

    Evenly spaced. Where several cameras saw the same instants, whole instants with all their views: as large a share of
    ``count`` as the instants' rows are of all, rounded to whole instants, so that V may differ from ``count``.

    Raises:
        UserError: the data set has too few validation poses.
    """
    groups, alone = _chosen(poses, count)
    return np.sort(np.concatenate([*groups, alone]))


def rows_digest(rows: Rows) -> str:
    """What a run records of its validation rows, so that its depths are never judged on others."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


def validation_set(poses: Poses, configuration: Configuration, scale: float) -> signals.ValidationSet:
    """Validation poses and fixed views; the reference of distances is a second, shifted choice of held-out poses."""
    training = configuration.training
    groups, alone = _chosen(poses, training.validation_poses)
    rows = np.sort(np.concatenate([*groups, alone]))
    others, clips = _others(poses.rows("validation"), rows), agreement.clip_rows(poses)
    present = poses.present[rows], poses.present[others], poses.present[clips]
    return signals.ValidationSet.build(
        normalised(poses, rows, scale),
        normalised(poses, others, scale),
        poses.subject[rows],
        training.azimuth_degrees,
        training.elevation_degrees,
        instants=agreement.table(groups, rows),
        clips=normalised(poses, clips.ravel(), scale).reshape(*clips.shape, 17, 2) if len(clips) else None,
        present=None if all(some.all() for some in present) else present,
    )


def _chosen(poses: Poses, count: int) -> tuple[list[Rows], Rows]:
    """Whole instants, a row for each of their views, and rows that are no view of an instant; each evenly spaced."""
    held_out = poses.rows("validation")
    if len(held_out) < LEAST:
        raise UserError(f"{poses.source}: {len(held_out)} validation poses; at least {LEAST} are needed to judge a run")
    share = min(count, len(held_out)) / len(held_out)
    groups = instants(poses, held_out)
    alone = np.setdiff1d(held_out, np.concatenate(groups)) if groups else held_out
    singles = alone[_even(len(alone), round(share * len(alone)))]
    return [groups[place] for place in _even(len(groups), max(1, round(share * len(groups))))], singles


def _others(held_out: Rows, rows: Rows) -> Rows:
    """As many held-out rows again, evenly spaced, other ones as far as there are enough."""
    count = len(rows)
    rest = np.setdiff1d(held_out, rows)
    step = max(1, len(held_out) // count)
    shifted = held_out[[(index * len(held_out) // count + step // 2) % len(held_out) for index in range(count)]]
    return rest[_even(len(rest), count)] if len(rest) >= count and np.isin(shifted, rows).any() else shifted


def _even(size: int, count: int) -> list[int]:
    """``count`` evenly spaced places of ``size``, all of them if there are fewer."""
    count = min(count, size)
    return [index * size // count for index in range(count)]
