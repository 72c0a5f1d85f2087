"""Main effects of the factorial design in ``studies/recipes.yaml``: which choices drive instability?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from studies.answers.material import Material, StudiedSeed
from studies.answers.tables import Table, effect, effect_over_seeds, over_trials
from tips_dist.config import OneOf
from tips_dist.evaluation.labels import drift_of

OUTCOMES: dict[str, Callable[[StudiedSeed], float]] = {
    "lowest error, mm": lambda history: float(np.nanmin(history.errors)),
    "error selected, mm": lambda history: history.at("selected"),
    "drift, %": lambda history: 100 * drift_of(history.errors),
    "diverged, %": lambda history: 100.0 * history.diverged,
}


def answers(study: Material) -> dict[str, Table]:
    """A table of effects for each representation, and the means of all runs."""
    factors = levels(study)
    tables = {name: effects(study, name, factors) for name in study.folder.representations}
    tables |= {f"{name}_seeds": effects(study, name, factors, over_seeds=True) for name in study.folder.representations}
    overview = Table("Means over all sixteen recipes, four seeds each", ["representation", *OUTCOMES])
    for name in study.folder.representations:
        groups = study.trials(name).values()
        overview.add(name, *(over_trials([[read(h) for h in g] for g in groups]) for read in OUTCOMES.values()))
    return {"means": overview, **tables}


def levels(study: Material) -> dict[str, Sequence[Any]]:
    """The two levels of each factor, the default's first."""
    resolved = study.folder.study.resolved
    return {key: value.choice for key, value in resolved.space.items() if isinstance(value, OneOf)}


def effects(
    study: Material, representation: str, factors: dict[str, Sequence[Any]], *, over_seeds: bool = False
) -> Table:
    """Second level minus first, for every factor and outcome; intervals over trials and seeds, or over seeds alone."""
    interval = "seeds alone" if over_seeds else "trials and seeds"
    table = Table(
        f"{representation}: mean of the eight recipes at the second level minus that of the eight at the first "
        f"(95 % interval over {interval})",
        ["factor", "from, to", *OUTCOMES],
    )
    groups = study.trials(representation)
    for key, (first, second) in factors.items():
        sides = [
            [seeds for trial, seeds in groups.items() if study.parameters[trial][key] == level]
            for level in (second, first)
        ]
        found = (
            (effect_over_seeds if over_seeds else effect)(
                *([[read(history) for history in seeds] for seeds in side] for side in sides)
            )
            for read in OUTCOMES.values()
        )
        table.add(key.split(".")[1], f"{first}, {second}", *found)
    return table
