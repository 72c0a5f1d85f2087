"""Choose the checkpoint to keep of every seed, and the teachers of the student, without ground truth.

A pure function of the run folder's records: the same records give the same ``selection.json``, whatever order the
trials finished in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.files import UserError
from tips_dist.runfolder import Choice, RunFolder, SeedOutcome, Selection, Teacher, Trial, layout
from tips_dist.runfolder.weights import read_weights_record
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability.verdicts import taints

RULE = (
    "Per seed, the candidate with the lowest risk, if it was written before the onset of a divergence or collapse. "
    "Teachers are the seeds with the lowest risk over all finished trials."
)


def select(folder: Path) -> Selection:
    """Choose candidates and teachers from the records of a run and write ``selection.json``.

    Raises:
        UserError: ``folder`` is not a run folder, or no seed has a candidate to choose.
    """
    run = RunFolder(folder)
    wanted = run.study.resolved.distillation.teachers
    trials = {trial.id: trial for trial in sorted(run.trials, key=lambda trial: trial.id)}
    rows = [_choice(run.path, trial, seed) for trial in trials.values() for seed in trial.seed_outcomes]
    eligible = sorted((row for row in rows if row.file), key=lambda row: (row.risk, row.trial, row.seed))
    if not eligible:
        raise UserError(f"{folder}: no seed of any trial left a candidate, so there is nothing to select")
    apart: dict[tuple[str, int], float | None] = {}
    for trial, group in itertools.groupby(sorted(eligible, key=_key), key=lambda row: row.trial):
        apart |= _disagreement(run, trials[trial], list(group))
    ranked = {_key(row): _ranked(row, rank, len(eligible), wanted, apart) for rank, row in enumerate(eligible)}
    teachers = [_teacher(ranked[_key(row)]) for row in eligible[:wanted]]
    found = Selection(rule=RULE, teachers=teachers, seeds=[ranked.get(_key(row), row) for row in rows])
    return found.save(layout.SELECTION.at(folder))


def _key(row: Choice) -> tuple[str, int]:
    return row.trial, row.seed


def _ranked(row: Choice, rank: int, count: int, wanted: int, apart: dict[tuple[str, int], float | None]) -> Choice:
    why = f"rank {rank + 1} of {count} by risk" + ("" if rank < wanted else "; not among the teachers")
    changes = {"rank": rank + 1, "chosen": rank < wanted, "why": why, "disagreement": apart[_key(row)]}
    return row.model_copy(update=changes)


def _teacher(row: Choice) -> Teacher:
    values: dict[str, Any] = {name: getattr(row, name) for name in Teacher.model_fields}
    return Teacher(**values)


def _choice(run: Path, trial: Trial, seed: SeedOutcome) -> Choice:
    """One seed's row: its lowest-risk candidate, or why it has none."""
    row = Choice(
        trial=trial.id,
        representation=trial.representation,
        seed=seed.seed,
        verdict=seed.verdict,
        step=seed.best_step,
        risk=seed.best_risk,
        file=None,
        chosen=False,
        why="",
    )
    if seed.best_step is None or seed.best_risk is None:
        return row.model_copy(update={"why": "no evaluation step with a finite risk"})
    if taints(seed.verdict, seed.onset, seed.best_step):
        why = f"its lowest risk came after the onset of '{seed.verdict}' at {seed.onset}"
        return row.model_copy(update={"why": why})
    file = layout.candidate_file(trial.id, seed.seed, seed.best_step)
    if not (run / file).exists():
        return row.model_copy(update={"why": f"{file} is missing"})
    try:
        weights = read_weights_record(run / file)
    except UserError as error:
        return row.model_copy(update={"why": f"{file} is damaged: {error}"})
    if weights.part_signs is None or weights.sign_confidence is None:
        return row.model_copy(update={"why": f"{file} does not say the signs of its depths"})
    changes = {"file": file, "part_signs": weights.part_signs, "sign_confidence": weights.sign_confidence}
    return row.model_copy(update=changes)


def _disagreement(run: RunFolder, trial: Trial, rows: Sequence[Choice]) -> dict[tuple[str, int], float | None]:
    """How far each seed's sign-resolved depths lie from the other seeds' of its trial, at their chosen checkpoints.

    The median over the others of the mean absolute difference over validation poses and joints, in units of the
    root-to-head distance; ``None`` for a seed without company or recorded depths. Seeds that found the same answer
    agree up to mirroring (in the spirit of unsupervised disentanglement ranking, Duan et al. 2020). It is reported
    beside the choice, not used in it: its worth is not measured yet.
    """
    recorded = run.depths(trial)
    if len(rows) < 2 or recorded is None:
        return {_key(row): None for row in rows}
    every = trial.configuration.training.evaluate_every
    lifter_of = list(REPRESENTATIONS[trial.representation].lifter_of)
    depths = [
        recorded[(row.step or 0) // every - 1, trial.seeds.index(row.seed)].astype(np.float32)
        * np.array(row.part_signs, np.float32)[lifter_of]
        for row in rows
    ]
    found: dict[tuple[str, int], float | None] = {}
    for index, row in enumerate(rows):
        apart = [np.abs(depths[index] - other).mean() for place, other in enumerate(depths) if place != index]
        found[_key(row)] = round(float(np.median(apart)), 6)
    return found
