"""Choices of a checkpoint without truth: the product's, and the trivial ones that it must beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tips_dist.evaluation.histories import LabelledHistory

Choose = Callable[[LabelledHistory], int | None]  # index of an evaluation step; None where it cannot be told


def lowest_risk(history: LabelledHistory) -> int | None:
    """The product's choice."""
    return history.lowest_risk()


def last(history: LabelledHistory) -> int | None:
    """The last checkpoint whose network is finite."""
    finite = np.flatnonzero(np.isfinite(history.errors))
    return int(finite[-1]) if len(finite) else None


def lowest(name: str) -> Choose:
    """The checkpoint of the lowest value of one signal."""

    def choose(history: LabelledHistory) -> int | None:
        values = history.signal(name)
        return int(np.nanargmin(values)) if np.isfinite(values).any() else None

    return choose


def best_balance(history: LabelledHistory) -> int | None:
    """Where the discriminator's loss is nearest to that of the balanced game."""
    away = np.abs(history.signal("discriminator/loss") - history.recipe.balanced_loss)
    return int(np.nanargmin(away)) if np.isfinite(away).any() else None


CHOICES: dict[str, Choose] = {
    "lowest risk (ours)": lowest_risk,
    "last checkpoint": last,
    "lowest generator loss": lowest("generator/loss"),
    "best discriminator balance": best_balance,
    "least bone-ratio variance": lowest("rigidity/bone_ratio_variance"),
    "least sliced Wasserstein": lowest("distance/sliced_wasserstein"),
}
