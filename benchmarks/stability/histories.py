"""The bank as detectors and stopping rules see it: one history per seed, its risks of a fit without its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.stability.bank import Curves
from benchmarks.stability.calibrate import log_risk
from tips_dist.evaluation.histories import LabelledHistory
from tips_dist.replay import recipe_of
from tips_dist.stability.risk import Regime


def histories(runs: Sequence[Curves], risks: Mapping[str, Regime]) -> list[LabelledHistory]:
    """Every seed of some runs, with the risks of its source's regime ``risks[source]``."""
    return [one for curves in runs for one in of_run(curves, risks[curves.run.source])]


def of_run(curves: Curves, regime: Regime) -> list[LabelledHistory]:
    """The seeds of one run."""
    told, settings = np.exp(log_risk(regime, curves.signals)), curves.run.configuration
    names = tuple(curves.signals)
    values = np.stack([curves.signals[name] for name in names], -1)
    values = np.where(np.isnan(values), np.inf, values)  # the bank's NaN: recorded as not finite
    name = f"{curves.run.source}/{curves.run.name}"
    return [
        LabelledHistory(
            run=name,
            trial=name,
            representation=curves.run.representation,
            seed=seed,
            budget=settings.training.steps,
            recipe=recipe_of(settings),
            steps=tuple(int(step) for step in curves.steps),
            names=names,
            values=values[:, place],
            risks=told[:, place],
            errors=curves.errors[:, place],
            mirrored=np.nan_to_num(curves.mirrored[:, place]),
        )
        for place, seed in enumerate(curves.run.seeds)
    ]
