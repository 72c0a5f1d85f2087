"""Histories with true errors: what scorecards are made of."""

from __future__ import annotations

import dataclasses
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

    @property
    def diverged(self) -> bool:
        """From true error alone."""
        return labels.has_diverged(self.errors)

    @property
    def onset(self) -> int:
        """The step at which a diverged seed's true error left for good."""
        return labels.divergence_onset(self.errors, self.steps)


def label(history: SeedHistory, errors: Sequence[float] | Array, every: int, *, whole: bool = False) -> LabelledHistory:
    """Join a recorded history with its true errors (E,), and fill in what a non-finite seed did not live to see.

    Args:
        history: one seed.
        errors: of its recorded evaluation steps, in their order.
        every: steps between evaluations.
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
    return LabelledHistory(**known, errors=np.concatenate((np.asarray(errors, np.float64), nothing)))
