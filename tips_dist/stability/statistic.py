"""The one risk of a trial: what Optuna minimises, and what status, tables, TensorBoard and reports show."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tips_dist.stability.verdicts import is_sound


def trial_risk(seeds: Iterable[tuple[float | None, str]]) -> float | None:
    """The median over a trial's seeds of each seed's lowest risk.

    A seed whose verdict is unsound (diverged, collapsed, non-finite), or that never had a risk, counts as worse than
    any other: a network whose depths are flat or stretched may well show the lowest risk of all, and must not win a
    search with it. Of two middle seeds of which one counts so, the other's risk is taken.

    Args:
        seeds: each seed's lowest risk (None: it has none) and its verdict.

    Returns:
        The statistic; None where fewer than half of the seeds are sound: nothing is made up for it.
    """
    ordered = sorted(
        risk if risk is not None and math.isfinite(risk) and is_sound(verdict) else math.inf for risk, verdict in seeds
    )
    if not ordered:
        return None
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if math.isinf(high):
        return None if math.isinf(low) else low
    return (low + high) / 2
