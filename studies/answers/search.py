"""What a search adds over the papers' settings at equal compute: ``search.yaml`` against ``papers.yaml``."""

from __future__ import annotations

import numpy as np

from studies.answers.material import Ground, Material, StudiedSeed
from studies.answers.tables import Table, apart, mean, over_trials

TEACHERS = 3


def answers(search: Material, papers: Material, ground: Ground) -> dict[str, Table]:
    """Both spend the same seed-steps; compared: three seeds of lowest risk, the median, the best, the student."""
    return {"search": compared(search, papers, ground), "found": found(search)}


def compared(search: Material, papers: Material, ground: Ground) -> Table:
    """What a user gets from either."""
    table = Table(
        "N-MPJPE (sign-resolved, mm) at the selected checkpoint, validation; the student on test",
        ["", "seed-steps", "three seeds of lowest risk", "median seed", "lowest error of any checkpoint"],
    )
    for name in search.folder.representations:
        best = []
        for label, study in (("Optuna (TPE)", search), ("the papers' point", papers)):
            seeds = [history for group in study.trials(name).values() for history in group]
            kept = lowest_risk(seeds)
            best.append([history.at("selected") for history in kept])
            steps = sum(history.steps[-1] for history in seeds)
            median = over_trials(
                ([h.at("selected") for h in group] for group in study.trials(name).values()), median=True
            )
            lowest = min(float(np.nanmin(history.errors)) for history in seeds)
            table.add(f"{name}: {label}", steps, mean(best[-1]), median, lowest)
        table.add(f"{name}: Optuna minus papers", None, apart(*best), None, None)
    students = [ground.test_errors(study.path / "student" / "student.safetensors")["all"] for study in (search, papers)]
    for label, error in zip(("Optuna (TPE)", "the papers' point"), students, strict=True):
        table.add(f"student on test: {label}", None, error, None, None)
    return table


def lowest_risk(seeds: list[StudiedSeed]) -> list[StudiedSeed]:
    """The seeds that would teach a student: those of lowest risk that have a candidate."""
    return sorted((h for h in seeds if h.file), key=lambda h: float(np.nanmin(h.risks)))[:TEACHERS]


def found(search: Material) -> Table:
    """The chosen configuration of each representation."""
    keys = list(next(iter(search.parameters.values())))
    table = Table("Chosen by risk", ["value", *search.chosen])
    for key in keys:
        values = [search.parameters[trial].get(key) for trial in search.chosen.values()]
        table.add(key, *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values))
    table.add("N-MPJPE, selected", *(mean(h.at("selected") for h in search.of(name)) for name in search.chosen))
    return table
