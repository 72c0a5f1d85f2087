"""What truly became of a seed, from true error and true signs alone: the one place that defines it.

``errors`` are the sign-resolved N-MPJPE of each evaluation step (E,), mm, NaN where the network was not finite;
``mirrored`` the true share of poses that it held mirrored (E,), 0 to 0.5.

A seed's *fate* compares its last fifth with the best fifth before it, both by their median, of the evaluations that
are not *mixed* (inside a mirror crossing, or before the network first settled on one side):

========= =============================================================================================================
learning  the last fifth is more than 2 % below every fifth before: more training would have helped
converged it is at most 5 % above the best
drifting  it is 5 to 15 % above
diverged  more than 15 %; or, mixed or not, more than 50 %; or the network is not finite at its end; or no fifth of it
          ever had less than 150 mm (and it is not learning)
unsettled most of the last fifth is mixed, so what becomes of it is not known
========= =============================================================================================================

Apart from its fate a seed may have *crossed*: after it had once held at most 10 % of the poses mirrored, it held more
than 15 % of them for at least two evaluations in a row; a crossing ends where it holds at most 10 % again.
A seed is *healthy* if it converged or is learning, and never crossed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEARNING, CONVERGED, DRIFTING, DIVERGED, UNSETTLED = FATES = (
    "learning",
    "converged",
    "drifting",
    "diverged",
    "unsettled",
)
TAIL = 0.2  # the share of a run that stands for its end
IMPROVED = 0.98  # the last fifth over the best before: below this it still learns,
RISEN = 1.05  # above this it has drifted,
BROKEN = 1.15  # and above this diverged
RUINED = 1.5  # and above this no crossing explains it
BAD_MM = 150.0  # a lifter that never came below this has not learnt the shape
MIXED, SETTLED = 0.15, 0.10  # shares of poses mirrored between which a crossing begins and ends
LASTING = 2  # evaluations that it takes at least


def tail_of(errors: Array) -> Array:
    """The last fifth, of one evaluation step at least."""
    return errors[-max(1, int(TAIL * len(errors))) :]


def crossings(mirrored: Array) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of every mirror crossing, as indices of evaluation steps."""
    found: list[tuple[int, int]] = []
    settled, begin = False, -1
    for index, share in enumerate([*mirrored.tolist(), 0.0]):
        if begin < 0 and settled and share > MIXED:
            begin = index
        elif begin >= 0 and share <= SETTLED:
            if index - begin >= LASTING:
                found.append((begin, index))
            begin = -1
        settled = settled or share <= SETTLED
    return found


def has_crossed(mirrored: Array | None) -> bool:
    """Whether there was a crossing; unknown signs count as none."""
    return mirrored is not None and bool(crossings(mirrored))


def fate(errors: Array, mirrored: Array | None = None) -> str:
    """What became of a seed, one of :data:`FATES`; see the table above."""
    if not np.isfinite(errors).all():
        return DIVERGED
    width = len(tail_of(errors))
    if np.median(errors[-width:]) > RUINED * _best_window(errors[:-width], width):
        return DIVERGED
    counted = _outside(errors, mirrored)
    tail, before = counted[-width:], counted[:-width]
    if np.isnan(tail).mean() > 0.5:
        return UNSETTLED
    end, best = float(np.nanmedian(tail)), _best_window(before, width)
    if np.isnan(best):  # settled only just now; a single evaluation is all there is
        return LEARNING if len(before) else CONVERGED
    if end < IMPROVED * best:
        return LEARNING
    if end > BROKEN * best or min(end, best) > BAD_MM:
        return DIVERGED
    return DRIFTING if end > RISEN * best else CONVERGED


def onset(errors: Array, steps: Sequence[int], mirrored: Array | None = None) -> int:
    """The step from which a drifting or diverged seed's error stays above its margin; the first if it never learnt."""
    known = _outside(errors, mirrored)
    if not np.isfinite(known).any() or np.nanmin(known) > BAD_MM:
        return steps[0]
    margin = RISEN if fate(errors, mirrored) == DRIFTING else BROKEN
    above = ~(errors <= margin * np.nanmin(known))
    index = len(above)
    while index > 0 and above[index - 1]:
        index -= 1
    return steps[min(index, len(steps) - 1)]


def drift_of(errors: Array) -> float:
    """Median error of the last fifth of the run over the lowest error, minus one; 1 at most (also if not finite)."""
    tail = np.median(tail_of(errors))
    return float(min(1.0, np.nan_to_num(tail / np.nanmin(errors), nan=2.0) - 1))


def _outside(errors: Array, mirrored: Array | None) -> Array:
    """The errors, NaN inside crossings and before the network first settled on one side."""
    counted = errors.copy()
    if mirrored is None:
        return counted
    for begin, end in crossings(mirrored):
        counted[begin:end] = np.nan
    settled = np.flatnonzero(mirrored <= SETTLED)
    first = int(settled[0]) if len(settled) else len(mirrored)
    counted[:first][mirrored[:first] > MIXED] = np.nan
    return counted


def _best_window(errors: Array, width: int) -> float:
    """The least median of ``width`` evaluation steps in a row, of those of which half are known; NaN without any."""
    if not len(errors):
        return float("nan")
    windows = np.lib.stride_tricks.sliding_window_view(errors, min(width, len(errors)))
    kept = windows[np.isfinite(windows).mean(1) >= 0.5]
    return float(np.nanmedian(kept, axis=1).min()) if len(kept) else float("nan")
