"""What a search adds at equal compute: ``search.yaml`` against one point alone, and with seeds that are frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from studies.answers.material import Ground, Material, StudiedSeed
from studies.answers.tables import Table, apart, mean, over_trials

TEACHERS = 3  # what a user keeps of all seeds
SEARCH, FREEZING, DEFAULT, PAPERS = "Optuna (TPE)", "Optuna (TPE), freezing", "the default's point", "the papers' point"


def answers(studies: Mapping[str, Material], ground: Ground) -> dict[str, Table]:
    """``studies``: the runs by the four names above; all but ``FREEZING`` spend the same seed-steps."""
    return {"search": compared(studies), "search_test": on_test(studies, ground), "found": found(studies[SEARCH]),
            "freezing": frozen(studies[FREEZING], studies[SEARCH])}  # fmt: skip


def spent(seeds: Sequence[StudiedSeed]) -> int:
    """The steps that some seeds trained."""
    return sum(seed.steps[-1] for seed in seeds)


def within(study: Material, representation: str, budget: int) -> dict[str, list[StudiedSeed]]:
    """The first trials of a representation that cost no more than ``budget`` seed-steps together."""
    kept: dict[str, list[StudiedSeed]] = {}
    for trial, seeds in study.trials(representation).items():
        if spent([seed for group in kept.values() for seed in group] + seeds) > budget:
            break
        kept[trial] = seeds
    return kept


def compared(studies: Mapping[str, Material]) -> Table:
    """What a user gets from each."""
    table = Table(
        "N-MPJPE (mm, depth signs resolved, validation) at the selected checkpoint",
        ["", "trials", "seed-steps", "three seeds of lowest risk", "median seed", "lowest error of any checkpoint"],
    )
    for name in studies[SEARCH].folder.representations:
        budget = _budget(studies, name)
        best: dict[str, list[float]] = {}
        for label, study in studies.items():
            groups = within(study, name, budget)
            seeds = [seed for group in groups.values() for seed in group]
            best[label] = [seed.at("selected") for seed in lowest_risk(seeds)]
            median = over_trials(([h.at("selected") for h in group] for group in groups.values()), median=True)
            lowest = min(float(np.nanmin(seed.errors)) for seed in seeds)
            table.add(f"{name}: {label}", len(groups), spent(seeds), mean(best[label]), median, lowest)
        for label in (FREEZING, DEFAULT, PAPERS):
            table.add(f"{name}: Optuna minus {label}", None, None, apart(best[SEARCH], best[label]), None, None)
    return table


def lowest_risk(seeds: Sequence[StudiedSeed]) -> list[StudiedSeed]:
    """The seeds that a user would keep: those of lowest risk that have a candidate."""
    told = [seed for seed in seeds if seed.file and np.isfinite(seed.risks).any()]
    return sorted(told, key=lambda seed: float(np.nanmin(seed.risks)))[:TEACHERS]


def on_test(studies: Mapping[str, Material], ground: Ground) -> Table:
    """The student of each, and of each representation the seeds that a user would keep, on test people. (Added.)"""
    names = studies[SEARCH].folder.representations
    table = Table(
        "N-MPJPE (mm, depth signs resolved) on test people; intervals of the students over people, of seeds over seeds",
        ["", "student (one)", *(f"three {name} seeds of lowest risk" for name in names)],
    )
    students = {
        label: ground.pose_errors(study.path / "student/student.safetensors") for label, study in studies.items()
    }
    kept = {
        label: [_kept(study, name, _budget(studies, name), ground) for name in names]
        for label, study in studies.items()
    }
    for label, errors in students.items():
        table.add(label, ground.over_people(errors)["all"], *map(mean, kept[label]))
    for label in (FREEZING, DEFAULT, PAPERS):
        versus = [apart(*pair) for pair in zip(kept[SEARCH], kept[label], strict=True)]
        table.add(f"Optuna minus {label}", ground.over_people(students[SEARCH] - students[label])["all"], *versus)
    return table


def _budget(studies: Mapping[str, Material], representation: str) -> int:
    """The seed-steps that the search spent on a representation, which is what each way may spend."""
    return spent([seed for seeds in studies[SEARCH].trials(representation).values() for seed in seeds])


def _kept(study: Material, representation: str, budget: int, ground: Ground) -> list[float]:
    """Test errors of the seeds of lowest risk of a representation's trials within the budget."""
    seeds = [seed for group in within(study, representation, budget).values() for seed in group]
    return [ground.test_errors(study.path / str(seed.file))["all"] for seed in lowest_risk(seeds)]


def frozen(freezing: Material, search: Material) -> Table:
    """What freezing did in the run itself."""
    table = Table(
        "Freezing, as it happened",
        ["representation", "seeds", "frozen", "revived", "steps of the budget that were not trained, %"],
    )
    for name in search.folder.representations:
        seeds = [seed for group in freezing.trials(name).values() for seed in group]
        outcomes = [t.outcome for t in freezing.folder.trials if t.representation == name and t.outcome is not None]
        ends = [end for outcome in outcomes for end in outcome.seeds]
        stopped, thawed = (sum(getattr(end, what) is not None for end in ends) for what in ("frozen", "thawed"))
        saved = 100 * (1 - spent(seeds) / sum(seed.budget for seed in seeds))
        table.add(name, len(seeds), stopped + thawed, thawed, saved)
    return table


def found(search: Material) -> Table:
    """The chosen configuration of each representation."""
    parameters = {trial.id: trial.parameters for trial in search.folder.trials}
    table = Table("Chosen by risk", ["value", *search.chosen])
    for key in next(iter(parameters.values())):
        values = [parameters[trial].get(key) for trial in search.chosen.values()]
        table.add(key, *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values))
    table.add("N-MPJPE, selected", *(mean(h.at("selected") for h in search.of(name)) for name in search.chosen))
    return table
