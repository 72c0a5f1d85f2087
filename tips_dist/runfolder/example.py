"""A whole run folder without training: for tests, benchmarks and documentation.

:func:`build` writes a synthetic study as study, training, selection and evaluation would: solo seeds drift and break,
parts stay near their minimum. The functions before it make single records with sensible values, each of which a test
may set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.config import Configuration, Study
from tips_dist.files import write_text
from tips_dist.runfolder import layout
from tips_dist.runfolder.choices import (
    Choice,
    Dependence,
    Disagreement,
    RepresentationDependence,
    Selection,
    StudentLoss,
    StudentModel,
    StudentRecord,
    Teacher,
)
from tips_dist.runfolder.curves import METRICS, Curve, Curves
from tips_dist.runfolder.history import History, HistoryRow
from tips_dist.runfolder.records import DataRecord, Outcome, Parameter, SeedOutcome, StudyRecord, Trial, TrialState
from tips_dist.runfolder.results import Errors, Evaluation, Metrics, SeedErrors, TrialErrors, TruthReference
from tips_dist.sections import digest, validate
from tips_dist.skeleton import JOINTS, REPRESENTATIONS

CREATED = "2026-11-21T22:00:00+00:00"
SPACE = {
    "training.generator_lr": {"log_uniform": [5e-5, 1e-3]},
    "losses.consistency_90": {"uniform": [0.0, 10.0]},
}
SIGNALS = {
    "discriminator/real": 0.62,
    "discriminator/fake": 0.38,
    "discriminator/accuracy": 0.7,
    "discriminator/loss": 0.2,
    "generator/adversarial": 0.3,
    "generator/loss": 1.2,
    "consistency/cycle_2d": 0.02,
    "consistency/cycle_3d": 0.03,
    "consistency/turn_90": 0.2,
    "distance/sliced_wasserstein": 0.05,
    "rigidity/bone_ratio_variance": 0.03,
    "rigidity/symmetry": 0.04,
    "depth/spread_ratio": 0.9,
    "depth/sign": 1.0,
    "depth/sign_confidence": 0.9,
    "throughput/steps_per_second": 150.0,
}


# --- Single records --------------------------------------------------------------------------------------------------


def study(**sections: Any) -> Study:
    """A study named ``synthetic``, with any sections of a study file."""
    return validate(Study, {"name": "synthetic", "representations": ["solo"], **sections}, where="example")


def study_record(
    resolved: Study | None = None,
    *,
    data_digest: str = "e" * 64,
    path: str | None = None,
    scale: float = 1234.5,
    counts: Mapping[str, int] | None = None,
) -> StudyRecord:
    """The record of a study, begun on procedural data."""
    resolved = resolved or study()
    return StudyRecord(
        name=resolved.name,
        digest=digest(resolved),
        resolved=resolved,
        data=DataRecord(
            digest=data_digest,
            path=path,
            scale=scale,
            counts=dict(counts or {"train": 16000, "validation": 2000, "test": 2000}),
        ),
        versions={"python": "3.11.2", "torch": "2.13.0", "ray": "2.60.0"},
        git="8c299fe",
        host="workstation",
        created=CREATED,
    )


def outcome(seed: int, risk: float | None = 1.0, step: int | None = 50, **changes: Any) -> SeedOutcome:
    """How a seed ended: healthy with its lowest ``risk`` at ``step``, unless ``changes`` say otherwise."""
    values: dict[str, object] = {
        "verdict": "healthy",
        "reason": "",
        "onset": None,
        "stopped_step": 100,
        "best_risk": risk,
        "best_step": step if risk is not None else None,
    }
    return SeedOutcome.model_validate({"seed": seed, **values, **changes})


def trial(
    identity: str = "solo-000",
    outcomes: Sequence[SeedOutcome] = (),
    *,
    seeds: Sequence[int] | None = None,
    configuration: Configuration | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    **changes: Any,
) -> Trial:
    """A trial's record: finished with these outcomes, pending where there are none."""
    name, _, number = identity.rpartition("-")
    values: dict[str, object] = {"state": TrialState.PENDING}
    if outcomes:
        networks = {"lifter": 205000, "discriminator": 102000}
        values = {
            "state": TrialState.FINISHED,
            "outcome": Outcome(seeds=list(outcomes), training_seconds=55.0, parameters=networks),
            "started": CREATED,
            "ended": "2026-11-21T22:01:00+00:00",
            "wall_seconds": 60.0,
            "attempts": 1,
        }
    return Trial.model_validate(
        {
            "id": identity,
            "representation": name,
            "number": int(number),
            "parameters": dict(parameters or {}),
            "configuration": configuration or Configuration(representation=name),
            "seeds": list(seeds) if seeds is not None else [one.seed for one in outcomes],
            **values,
            **changes,
        }
    )


def history(
    risks: Mapping[int, Sequence[float | None]], every: int = 50, signals: Mapping[str, float] | None = None
) -> History:
    """A history with these risks of each seed, one an evaluation step; ``signals`` stay as they are."""
    fixed = {"discriminator/loss": 0.24, "discriminator/accuracy": 0.6, "depth/spread_ratio": 1.0, **(signals or {})}
    rows = [
        HistoryRow(
            every * (index + 1),
            seed,
            risk,
            "non_finite" if risk is None else "healthy",
            {**fixed, "risk/total": risk, **({"generator/loss": None} if risk is None else {})},
        )
        for seed, values in risks.items()
        for index, risk in enumerate(values)
    ]
    return History(sorted(rows, key=lambda row: (row.step, row.seed)))


def choice(one: Trial, found: SeedOutcome, *, rank: int | None = None, chosen: bool = False, **changes: Any) -> Choice:
    """A row of ``selection.json``: the seed's lowest-risk candidate."""
    parts = len(REPRESENTATIONS[one.representation].lifters)
    file = None if found.best_step is None else layout.candidate_file(one.id, found.seed, found.best_step)
    values = {"part_signs": [1] * parts, "sign_confidence": [0.9] * parts} if file else {}
    return Choice(
        **{
            "trial": one.id,
            "representation": one.representation,
            "seed": found.seed,
            "verdict": found.verdict,
            "step": found.best_step,
            "risk": found.best_risk,
            "file": file,
            "chosen": chosen,
            "rank": rank,
            "why": "among the lowest risks" if chosen else "higher risk than the teachers",
            **values,
            **changes,
        }
    )


def selection(trials: Sequence[Trial], teachers: int = 3) -> Selection:
    """A selection of the lowest risks, whatever the verdicts."""
    pairs = [(one, found) for one in trials for found in one.seed_outcomes if found.best_risk is not None]
    pairs.sort(key=lambda pair: pair[1].best_risk or 0.0)
    rows = [choice(*pair, rank=rank + 1, chosen=rank < teachers) for rank, pair in enumerate(pairs)]
    return Selection(rule="lowest risk", teachers=[teacher(row) for row in rows[:teachers]], seeds=rows)


def teacher(row: Choice) -> Teacher:
    """The teacher that a chosen row becomes."""
    return Teacher(**{name: getattr(row, name) for name in Teacher.model_fields})


def metrics(error: float = 96.0, **changes: Any) -> Metrics:
    """The metrics of one network on one split, around this N-MPJPE in mm."""
    values: dict[str, object] = {
        "poses": 2000,
        "mpjpe": error + 2,
        "mpjpe_resolved": error + 2,
        "n_mpjpe": error,
        "n_mpjpe_resolved": error,
        "pa_mpjpe": 0.74 * error,
        "pa_mpjpe_resolved": 0.74 * error,
        "pa_mpjpe_reflected": 0.73 * error,
        "pck_150": 81.0,
        "pck_150_resolved": 81.0,
        "auc_150": 44.0,
        "auc_150_resolved": 44.0,
        "part_signs": [1],
        "part_signs_told_here": [1],
        "sign_confidence": [0.9],
        "interval": {name: [error - 5, error + 5] for name in ("n_mpjpe", "n_mpjpe_resolved")},
    }
    return Metrics.model_validate({**values, **changes})


def student_record(teachers: Sequence[Teacher], weights_digest: str = "a" * 64) -> StudentRecord:
    """The record of a student of these teachers."""
    settings = study().distillation
    return StudentRecord(
        digest=weights_digest,
        data_digest="e" * 64,
        scale=1234.5,
        settings=settings,
        model=StudentModel(representation="solo", width=256, blocks=3),
        teachers=list(teachers),
        disagreement=Disagreement(
            mean=0.05, relative_to_depth_spread=0.2, per_joint=dict.fromkeys(JOINTS, 0.05), weights={}
        ),
        loss=StudentLoss(steps=[1000, 2000], train=[0.02, 0.01], held_out=[0.02, 0.01]),
        best_step=2000,
        stopped_step=2000,
        counts={"train": 14400, "held_out": 1600},
    )


def dependence(representations: Sequence[str], random: np.random.Generator) -> Dependence:
    """Matrices of what depths depend on, at random."""
    return Dependence(
        joints=list(JOINTS),
        near_bones=3,
        representations={
            name: RepresentationDependence(
                trial=f"{name}-000",
                seed=0,
                step=50,
                file=layout.candidate_file(f"{name}-000", 0, 50),
                input_gradient=random.random((17, 17)).tolist(),
                output_correlation=random.uniform(-1, 1, (17, 17)).tolist(),
                long_range=0.4,
            )
            for name in representations
        },
    )


# --- A whole run -----------------------------------------------------------------------------------------------------


def build(
    folder: Path,
    *,
    representations: tuple[str, ...] = ("solo", "torso_legs"),
    trials: int = 2,
    seeds: int = 4,
    steps: int = 2000,
    every: int = 50,
    evaluated: bool = True,
    selected: bool = True,
    depths: int = 0,
    histories: bool = True,
    seed: int = 0,
) -> Path:
    """Write a run folder with ``trials`` trials per representation, ``depths`` validation poses each, and return it."""
    random = np.random.default_rng(seed)
    resolved = study(
        representations=list(representations),
        seeds=seeds,
        training={"steps": steps, "evaluate_every": every},
        search={"trials": trials, "sampler": "random"},
        space=SPACE,
    )
    folder.mkdir(parents=True)
    write_text(layout.STUDY_TEXT.at(folder), "name: synthetic\n")
    study_record(resolved).model_copy(update={"digest": "d" * 64}).save(layout.STUDY.at(folder))
    records, measured, curves = [], {}, {}
    for name in representations:
        for number in range(trials):
            record, errors, lines = _trial(folder, resolved, name, number, random, histories)
            records.append(record)
            measured[record.id] = errors
            curves.update(lines)
            if depths:
                table = random.normal(size=(steps // every, seeds, depths, 17)).astype(np.float16)
                np.save(layout.DEPTHS.at(folder, record.id), table)
    if selected:
        found = selection(records).save(layout.SELECTION.at(folder))
        dependence(representations, random).save(layout.DEPENDENCE.at(folder))
        student_record(found.teachers).save(layout.STUDENT.at(folder))
        layout.STUDENT_WEIGHTS.at(folder).write_bytes(b"weights")
    if evaluated:
        Evaluation(
            truth=TruthReference(path="cmu.truth3d.h5", digest="f" * 64),
            data_digest="e" * 64,
            trials=measured,
            student={"validation": metrics(), "test": metrics(n_mpjpe_resolved=97.5)},
        ).save(layout.EVALUATION.at(folder))
        Curves(curves).save(layout.CURVES.at(folder))
    return folder


def _trial(
    folder: Path, resolved: Study, name: str, number: int, random: np.random.Generator, histories: bool
) -> tuple[Trial, TrialErrors, dict[tuple[str, int], Curve]]:
    identity = f"{name}-{number:03d}"
    parameters: dict[str, Parameter] = {
        "training.generator_lr": float(np.exp(random.uniform(np.log(5e-5), np.log(1e-3)))),
        "losses.consistency_90": float(random.uniform(0, 10)),
    }
    rows: list[HistoryRow] = []
    outcomes, curves, errors = [], {}, {}
    for number_of_seed in range(resolved.seeds):
        ended, lines, curve = _seed(name, number_of_seed, resolved, random)
        outcomes.append(ended)
        rows += lines
        if curve is not None:
            curves[identity, number_of_seed] = curve
            errors[number_of_seed] = _checkpoints(curve, ended.best_step)
    record = trial(
        identity,
        outcomes,
        configuration=resolved.configuration(name, parameters),
        parameters=parameters,
    ).write(folder)
    layout.EVENTS.at(folder, identity).parent.mkdir()
    if histories:
        History(sorted(rows, key=lambda row: (row.step, row.seed))).save(layout.HISTORY.at(folder, identity))
    return record, TrialErrors(representation=name, seeds=errors), curves


def _seed(
    name: str, seed: int, resolved: Study, random: np.random.Generator
) -> tuple[SeedOutcome, list[HistoryRow], Curve | None]:
    steps, every = resolved.training.steps, resolved.training.evaluate_every
    solo = not REPRESENTATIONS[name].independent or name == "solo"
    breaks = solo and seed % 2 == 1
    broken = seed == 7  # one seed in eight never leaves the start
    at = int(steps * 0.7) // every * every
    last = at if breaks else steps
    grid = np.arange(every, last + 1, every)[: 1 if broken else None]
    minimum, drift = (0.30, 0.10) if solo else (0.27, 0.02)
    shape = np.exp(-grid / (steps / 6)) + minimum + drift * grid / steps
    onset = int(at * 0.9) // every * every if breaks else None
    if onset is not None:
        shape = shape + np.clip(grid - onset, 0, None) / steps
    risk = shape + random.normal(0, 0.01, len(grid))
    rows = []
    for step, value in zip(grid.tolist(), risk.tolist(), strict=True):
        signals = {
            n: None if broken else level * (1 + 0.1 * math.sin(step / 300 + seed)) for n, level in SIGNALS.items()
        }
        verdict = "non_finite" if broken else ("diverged" if breaks and step == last else "healthy")
        rows.append(HistoryRow(step, seed, None if broken else value, verdict, signals))
    best = int(np.argmin(risk))
    ended = outcome(
        seed,
        None if broken else float(risk[best]),
        int(grid[best]),
        verdict=rows[-1].verdict,
        reason="the risk left its best" if breaks else ("loss is not finite" if broken else ""),
        onset=onset,
        stopped_step=int(grid[-1]),
    )
    if broken:
        return ended, rows, None
    resolved_errors = 95 + 60 * (shape - minimum) + random.normal(0, 1, len(grid)) + (10 if solo else 0)
    return ended, rows, _curve(grid, resolved_errors, mirrored=seed % 2 == 1)


def _curve(grid: np.ndarray, resolved: np.ndarray, *, mirrored: bool) -> Curve:
    aligned = resolved * 0.8
    found = (resolved + 115 * mirrored, resolved, aligned + 40 * mirrored, aligned)
    return Curve(grid.astype(np.int64), dict(zip(METRICS, found, strict=True)))


def _checkpoints(curve: Curve, selected: int | None) -> SeedErrors:
    def at(index: int) -> Errors:
        values: dict[str, object] = {name: float(curve.errors[name][index]) for name in METRICS}
        return Errors.model_validate({**values, "step": int(curve.steps[index])})

    values: dict[str, object] = {name: float(curve.errors[name].mean()) for name in METRICS}
    mean = Errors.model_validate(values)
    return SeedErrors(
        selected=None if selected is None else at(curve.steps.tolist().index(selected)),
        best=at(int(np.argmin(curve.errors["n_mpjpe_resolved"]))),
        last=at(-1),
        random=mean,
    )
