"""Instants: the poses that several cameras saw at one moment, recognised by subject, sequence and frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tips_dist.data.store import Poses

Rows = npt.NDArray[np.int64]


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
