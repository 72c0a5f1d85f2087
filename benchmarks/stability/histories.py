"""The bank as the scorecard reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.stability.recipes import Run, configuration
from tips_dist.evaluation.histories import LabelledHistory
from tips_dist.replay import Array, recipe_of
from tips_dist.stability.risk import risk

BANK = Path(__file__).parent / "bank"


def load(motion: str) -> list[LabelledHistory]:
    """All histories of one set, seed by seed, in the order of their names; risks are what the product computes now."""
    found = []
    for path in sorted((BANK / motion).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            names, steps = tuple(str(name) for name in file["names"]), tuple(int(step) for step in file["steps"])
            signals, errors = file["signals"].astype(np.float64), file["resolved"].astype(np.float64)
        signals[np.isnan(signals)] = np.inf  # the bank holds NaN for what was recorded as not finite
        representation, _, name = path.stem.partition("-")
        settings = configuration(Run(representation, name, ()))
        found += [
            LabelledHistory(
                trial=path.stem,
                representation=representation,
                seed=seed,
                budget=settings.training.steps,
                recipe=recipe_of(settings),
                steps=steps,
                names=names,
                values=signals[:, seed],
                risks=_risks(names, signals[:, seed]),
                errors=errors[:, seed],
            )
            for seed in range(errors.shape[1])
        ]
    return found


def _risks(names: tuple[str, ...], values: Array) -> Array:
    told = [risk(dict(zip(names, row.tolist(), strict=True))) for row in values]
    return np.array([np.nan if one is None else one for one in told], np.float64)
