"""Main effects of the factorial design in ``studies/stabilisers.yaml``: which choices drive instability?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from studies.answers.material import Material, StudiedSeed
from studies.answers.tables import Table, effect_over_seeds, over_trials
from tips_dist.bootstrap import difference_of_designs
from tips_dist.config import OneOf
from tips_dist.evaluation.labels import drift_of

OUTCOMES: dict[str, Callable[[StudiedSeed], float]] = {
    "lowest error, mm": lambda seed: float(np.nanmin(seed.errors)),
    "error selected, mm": lambda seed: seed.at("selected"),
    "drift, %": lambda seed: 100 * drift_of(seed.errors),
    "crossed, %": lambda seed: 100.0 * seed.crossed,
    "diverged, %": lambda seed: 100.0 * seed.diverged,
}
RAW: dict[str, Callable[[StudiedSeed], float]] = {  # the same of the raw weights
    "lowest error, mm": lambda seed: seed.raw_at("best"),
    "error selected, mm": lambda seed: seed.raw_at("selected"),
    "drift, %": lambda seed: float("nan") if seed.raw is None else 100 * drift_of(seed.raw.errors),
    "crossed, %": lambda seed: float("nan") if seed.raw is None else 100.0 * seed.raw.crossed,
    "diverged, %": lambda seed: float("nan") if seed.raw is None else 100.0 * seed.raw.diverged,
}


def answers(study: Material) -> dict[str, Table]:
    """A table of effects for each representation, and the means of all runs."""
    factors = levels(study)
    names = study.folder.representations
    overview = Table("Means over all recipes of the design", ["representation", *OUTCOMES])
    for name in names:
        groups = study.trials(name).values()
        overview.add(name, *(over_trials([[read(h) for h in g] for g in groups]) for read in OUTCOMES.values()))
    return {"stabilisers": overview, **{f"stabilisers_{name}": effects(study, name, factors) for name in names}}


def levels(study: Material) -> dict[str, Sequence[Any]]:
    """The two levels of each factor, the default's first."""
    resolved = study.folder.study.resolved
    return {key: value.choice for key, value in resolved.space.items() if isinstance(value, OneOf)}


def effects(study: Material, representation: str, factors: dict[str, Sequence[Any]]) -> Table:
    """Second level minus first, for every factor and outcome; intervals over seeds within trials."""
    table = Table(
        f"{representation}: mean of the trials at the second level minus that of the trials at the first "
        "(95 % interval over seeds within trials)",
        ["factor", "from, to", *OUTCOMES],
    )
    groups = study.trials(representation)
    parameters = {trial.id: trial.parameters for trial in study.folder.trials}
    for key, (first, second) in factors.items():
        sides = [
            [seeds for trial, seeds in groups.items() if parameters[trial][key] == level] for level in (second, first)
        ]
        found = (
            effect_over_seeds(*([[read(history) for history in seeds] for seeds in side] for side in sides))
            for read in OUTCOMES.values()
        )
        table.add(key.split(".")[1], f"{first}, {second}", *found)
    pairs = (
        difference_of_designs(
            *(np.array([[read(seed) for seed in seeds] for seeds in groups.values()]) for read in two)
        )
        for two in zip(OUTCOMES.values(), RAW.values(), strict=True)
    )
    table.add("averaging", "raw, averaged", *pairs)
    return table
