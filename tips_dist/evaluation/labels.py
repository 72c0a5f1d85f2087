"""What truly became of a seed, from its true error alone: the one definition of what counts as diverged.

``errors`` are the sign-resolved N-MPJPE of each evaluation step (E,), mm, NaN where the network was not finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DRIFT = 1.15  # truly diverged: the median error of the last fifth of the run ...
TAIL = 0.2  # ... is more than 15 % above the lowest error before it (so a run that still learns has not diverged),
BAD_MM = 150.0  # or never comes below this (a lifter that never learnt the shape)


def tail_of(errors: Array) -> Array:
    """The last fifth, of one evaluation step at least."""
    return errors[-max(1, int(TAIL * len(errors))) :]


def has_diverged(errors: Array) -> bool:
    """See the constants above; a history that is not finite to its end has diverged too."""
    if not np.isfinite(errors).all():
        return True
    tail = tail_of(errors)
    before = errors[: -len(tail)]
    lowest = float(before.min()) if len(before) else float(tail.min())
    return bool(errors.min() > BAD_MM or np.median(tail) > DRIFT * lowest)


def divergence_onset(errors: Array, steps: Sequence[int]) -> int:
    """The step from which a diverged seed's error stays above the margin; its first step if it never learnt."""
    finite = np.isfinite(errors)
    if not finite.any() or errors[finite].min() > BAD_MM:
        return steps[0]
    above = ~(errors <= DRIFT * np.nanmin(errors))
    index = len(above)
    while index > 0 and above[index - 1]:
        index -= 1
    return steps[min(index, len(steps) - 1)]


def drift_of(errors: Array) -> float:
    """Median error of the last fifth of the run over the lowest error, minus one; 1 at most (also if not finite)."""
    tail = np.median(tail_of(errors))
    return float(min(1.0, np.nan_to_num(tail / np.nanmin(errors), nan=2.0) - 1))
