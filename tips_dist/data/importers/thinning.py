"""Near-copies left out, whole instants kept, and stretches of neighbouring frames chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def thin(shapes: Array, threshold: float) -> npt.NDArray[np.int64]:
    """Rows of a clip (T, 17, D) to keep: the first, then each where a joint moved > ``threshold`` since the last."""
    if threshold <= 0 or len(shapes) == 0:
        return np.arange(len(shapes))
    shapes = np.ascontiguousarray(shapes, dtype=np.float32)
    square = threshold**2
    leap = (((shapes[1:] - shapes[:-1]) ** 2).sum(axis=-1).max(axis=-1) > square).tolist()  # from each to the next
    kept, last, start, block = [0], 0, 1, 16
    while start < len(shapes):
        if start == last + 1 and leap[last]:
            last = start
        else:
            moved = ((shapes[start : start + block] - shapes[last]) ** 2).sum(axis=-1).max(axis=-1) > square
            if not moved.any():
                start, block = start + block, min(2 * block, 1024)
                continue
            last = start + int(moved.argmax())
        kept.append(last)
        start, block = last + 1, 16
    return np.array(kept)


def thin_together(views: Sequence[tuple[Array, Array]], threshold: float) -> list[npt.NDArray[np.int64]]:
    """Rows of every view to keep: a moment is kept in all views or in none.

    ``views`` are (frames (T,), shapes (T, 17, D)) of one sequence, frames ascending. A moment is kept when in any view
    a joint moved since the last that was kept; a view that does not see a moment counts as it was last seen. Views
    that hardly share a frame, or number two rows alike, are thinned each by itself.
    """
    rows = sum(len(frames) for frames, _ in views)
    moments = np.unique(np.concatenate([frames for frames, _ in views])) if views else np.zeros(0)
    if len(views) < 2 or len(moments) * len(views) >= 2 * rows or any(map(_repeated, (frames for frames, _ in views))):
        return [thin(shapes, threshold) for _, shapes in views]
    filled = []
    for frames, shapes in views:
        last = np.searchsorted(frames, moments, side="right") - 1
        filled.append(np.asarray(shapes, dtype=np.float32)[np.maximum(last, 0)])
    kept = moments[thin(np.concatenate(filled, axis=1), threshold)]
    return [np.flatnonzero(np.isin(frames, kept)) for frames, _ in views]


def stretches(views: Sequence[Array], count: int, length: int) -> list[Array]:
    """Evenly spaced runs of ``length`` neighbouring frames that every view sees: at most ``count`` frame arrays.

    ``views`` holds each view's frame numbers. Neighbours are as far apart as most frames are.
    """
    if count < 1 or length < 2 or not views or any(map(_repeated, views)):
        return []
    shared = np.unique(views[0])
    for frames in views[1:]:
        shared = np.intersect1d(shared, frames)
    if len(shared) < length:
        return []
    gaps = np.diff(shared)
    values, times = np.unique(gaps, return_counts=True)
    step = values[times.argmax()]
    broken = np.concatenate([[0], np.cumsum(gaps != step)])  # the same number within an unbroken run
    whole = np.flatnonzero(broken[length - 1 :] == broken[: len(broken) - length + 1])
    starts: list[int] = []
    for start in whole.tolist():
        if not starts or start >= starts[-1] + length:
            starts.append(start)
    if len(starts) > count:
        starts = [starts[int((k + 0.5) * len(starts) / count)] for k in range(count)]
    return [shared[start : start + length] for start in starts]


def _repeated(frames: Array) -> bool:
    return len(np.unique(frames)) < len(frames)
