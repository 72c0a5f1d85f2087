"""Main effects of the factorial design in ``studies/stabilisers.yaml``: which choices drive instability?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from studies.answers.material import Ground, Material, StudiedSeed
from studies.answers.tables import Table, effect_over_seeds, over_trials
from tips_dist.bootstrap import difference_of_designs
from tips_dist.config import OneOf
from tips_dist.evaluation.labels import drift_of

Outcomes = dict[str, Callable[[StudiedSeed], float]]
TESTS = {  # of what was selected, on test people; added after the run
    "selected, test, mm": "all",
    "actions trained on": "seen",
    "actions lacking": "lacking",
}
OUTCOMES: Outcomes = {  # on validation people
    "lowest error, mm": lambda seed: float(np.nanmin(seed.errors)),
    "error selected, mm": lambda seed: seed.at("selected"),
    "drift, %": lambda seed: 100 * drift_of(seed.errors),
    "crossed, %": lambda seed: 100.0 * seed.crossed,
    "diverged, %": lambda seed: 100.0 * seed.diverged,
}
RAW: Outcomes = {  # the same of the raw weights; what is selected, and so goes to test people, are averaged ones
    "lowest error, mm": lambda seed: seed.raw_at("best"),
    "error selected, mm": lambda seed: seed.raw_at("selected"),
    "drift, %": lambda seed: float("nan") if seed.raw is None else 100 * drift_of(seed.raw.errors),
    "crossed, %": lambda seed: float("nan") if seed.raw is None else 100.0 * seed.raw.crossed,
    "diverged, %": lambda seed: float("nan") if seed.raw is None else 100.0 * seed.raw.diverged,
}


def answers(study: Material, ground: Ground) -> dict[str, Table]:
    """A table of effects for each representation, and the means of all runs."""
    factors, names = levels(study), study.folder.representations
    outcomes = {**OUTCOMES, **_on_test(study, ground)}
    overview = Table("Means over all recipes of the design", ["representation", *outcomes])
    for name in names:
        groups = study.trials(name).values()
        overview.add(name, *(over_trials([[read(h) for h in g] for g in groups]) for read in outcomes.values()))
    tables = {f"stabilisers_{name}": effects(study, name, factors, outcomes) for name in names}
    return {"stabilisers": overview, **tables}


def _on_test(study: Material, ground: Ground) -> Outcomes:
    errors = {seed: ground.test_errors(study.path / seed.file) for seed in study.histories if seed.file}

    def reader(rows: str) -> Callable[[StudiedSeed], float]:
        return lambda seed: errors[seed][rows] if seed in errors else float("nan")

    return {name: reader(rows) for name, rows in TESTS.items()}


def levels(study: Material) -> dict[str, Sequence[Any]]:
    """The two levels of each factor, the default's first."""
    resolved = study.folder.study.resolved
    return {key: value.choice for key, value in resolved.space.items() if isinstance(value, OneOf)}


def effects(study: Material, representation: str, factors: dict[str, Sequence[Any]], outcomes: Outcomes) -> Table:
    """Second level minus first, for every factor and outcome; intervals over seeds within trials."""
    table = Table(
        f"{representation}: mean of the trials at the second level minus that of the trials at the first "
        "(95 % interval over seeds within trials)",
        ["factor", "from, to", *outcomes],
    )
    groups = study.trials(representation)
    parameters = {trial.id: trial.parameters for trial in study.folder.trials}
    for key, (first, second) in factors.items():
        sides = [
            [seeds for trial, seeds in groups.items() if parameters[trial][key] == level] for level in (second, first)
        ]
        found = (
            effect_over_seeds(*([[read(history) for history in seeds] for seeds in side] for side in sides))
            for read in outcomes.values()
        )
        table.add(key.split(".")[1], f"{first}, {second}", *found)
    pairs = (
        difference_of_designs(
            *(np.array([[read(seed) for seed in seeds] for seeds in groups.values()]) for read in two)
        )
        for two in zip(OUTCOMES.values(), RAW.values(), strict=True)
    )
    table.add("averaging", "raw, averaged", *pairs, *(None for _ in TESTS))
    return table
