"""Histories with true errors: what scorecards are made of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tips_dist.evaluation import labels
from tips_dist.replay import Array, SeedHistory


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledHistory(SeedHistory):
    """One seed with the true error of every evaluation step.

    A seed that ended non-finite has its missing steps all the same, without signals, risk or error: what it did not
    live to see counts against it. One that was cut by stopping does not: what would have come is unknown.
    """

    errors: Array  # (E,) sign-resolved N-MPJPE, mm; NaN where the network was not finite
    mirrored: Array | None = None  # (E,) true share of poses held mirrored, where it is known

    @functools.cached_property
    def fate(self) -> str:
        """What truly became of it, one of :data:`labels.FATES`."""
        return labels.fate(self.errors, self.mirrored)

    @property
    def diverged(self) -> bool:
        """From true error alone."""
        return self.fate == labels.DIVERGED

    @property
    def drifting(self) -> bool:
        """It ends somewhat above its best."""
        return self.fate == labels.DRIFTING

    @functools.cached_property
    def crossed(self) -> bool:
        """Whether it passed from one mirror solution to the other."""
        return labels.has_crossed(self.mirrored)

    @property
    def healthy(self) -> bool:
        """It converged or still learns, and never crossed."""
        return self.fate in (labels.CONVERGED, labels.LEARNING) and not self.crossed

    @functools.cached_property
    def onset(self) -> int:
        """The step at which a drifting or diverged seed's true error left for good."""
        return labels.onset(self.errors, self.steps, self.mirrored)


def label(
    history: SeedHistory,
    errors: Sequence[float] | Array,
    every: int,
    *,
    mirrored: Sequence[float] | Array | None = None,
    whole: bool = False,
) -> LabelledHistory:
    """Join a recorded history with its true errors (E,), and fill in what a non-finite seed did not live to see.

    Args:
        history: one seed.
        errors: of its recorded evaluation steps, in their order.
        every: steps between evaluations.
        mirrored: true share of poses held mirrored at the same steps, where it is known.
        whole: fill in what stopping cut off as well, so that all histories of a trial are equally long.
    """
    fill = whole or history.non_finite
    missing = range(history.steps[-1] + every, history.budget + 1, every) if fill else range(0)
    nothing = np.full(len(missing), np.nan)
    known = {field.name: getattr(history, field.name) for field in dataclasses.fields(SeedHistory)}
    known |= {
        "steps": (*history.steps, *missing),
        "values": np.concatenate((history.values, np.full((len(missing), len(history.names)), np.nan))),
        "risks": np.concatenate((history.risks, nothing)),
    }
    signs = None if mirrored is None else np.concatenate((np.asarray(mirrored, np.float64), np.zeros(len(missing))))
    return LabelledHistory(**known, errors=np.concatenate((np.asarray(errors, np.float64), nothing)), mirrored=signs)
