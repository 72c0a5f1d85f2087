"""Evaluate a run folder, or any weights, against 3D truth: evaluation.json, curves.npz, and what quotes them.

For the command line: ``evaluate_run(run, truth, poses)`` and ``evaluate_weights(weights, truth, poses)``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from tips_dist.data.store import SPLITS, Poses, normalisation_scale, read_poses
from tips_dist.devices import threads_for
from tips_dist.evaluation.histories import LabelledHistory, label
from tips_dist.evaluation.measuring import (
    CONVENTIONS,
    MIRRORED,
    Bench,
    check_spread,
    checkpoints,
    error_curves,
    measure_errors,
    predict,
    spread_of,
)
from tips_dist.evaluation.truth import Truth, read_truth
from tips_dist.files import UserError
from tips_dist.model_card import write_card
from tips_dist.models import Lifter, load_weights
from tips_dist.phases import phase
from tips_dist.replay import read_histories
from tips_dist.runfolder import RunFolder, layout
from tips_dist.runfolder.curves import METRICS, Curve, Curves
from tips_dist.runfolder.record import Part, Record
from tips_dist.runfolder.records import Trial
from tips_dist.runfolder.results import (
    CandidateMetrics,
    Evaluation,
    Metrics,
    SeedErrors,
    TrialErrors,
    TruthReference,
)
from tips_dist.training.validation import rows_digest, validation_rows

JUDGED = ("n_mpjpe_resolved", MIRRORED)  # what labels are made of
Told = Callable[[int, int], object]  # hears how many trials are done, of how many


class PosesReference(Part):
    """The poses that weights were measured on."""

    path: str
    digest: str
    source: str


class WeightsReference(Part):
    """The weights that were measured, and what stands beside them."""

    path: str
    record: dict[str, JsonValue]


class WeightsEvaluation(Record):
    """What truth says of one network on one split of any data set."""

    weights: WeightsReference
    poses: PosesReference
    truth: TruthReference
    trained_on_this_data: bool
    scale_px: float
    split: str
    conventions: dict[str, str]
    metrics: Metrics


@dataclass(frozen=True)
class TrueCurves:
    """The true errors of every evaluation step of a run: of what was judged, and of the raw weights beside it."""

    judged: Curves
    raw: Curves
    reasons: dict[str, str]  # of each trial without any: why


def measure_curves(
    folder: RunFolder, truth: Path, poses: Path | None = None, told: Told = lambda done, trials: None
) -> TrueCurves:
    """Measure every evaluation step of every trial's recorded depths.

    Raises:
        UserError: as :func:`evaluate_run`.
    """
    data = folder.poses(poses)
    ground = read_truth(truth, data)
    with threads_for(len(data.rows("validation")), folder.study.resolved.model.width):
        judged, reasons = true_curves(folder, data, ground, told)
        return TrueCurves(judged, true_curves(folder, data, ground, raw=True)[0], reasons)


def evaluate_run(
    run: Path,
    truth: Path,
    poses: Path | None = None,
    *,
    device: str | None = None,
    measured: TrueCurves | None = None,
) -> Evaluation:
    """Evaluate every seed's whole history on the validation poses, and what was selected on the test poses.

    What was selected is each seed's candidate of lowest risk, which its user would keep, and the student. The history
    is measured from the recorded depths of the trials (float16), so oracle, last and random checkpoints need no
    weights. Poses are those of the run; ``poses`` says where they lie if they were moved. ``device`` is where networks
    lift (the processor, if not given). ``measured`` are the errors of the history where they are known already.

    Returns:
        The content of ``evaluation.json``, which is written into the run folder (the student's model card quotes it),
        with the errors of every evaluation step in ``curves.npz`` beside it.

    Raises:
        UserError: the folder is no run folder, or poses or truth are not those the run was trained on.
    """
    folder = RunFolder(run)
    data = folder.poses(poses)
    ground = read_truth(truth, data)
    scale, student = folder.study.data.scale, layout.STUDENT_WEIGHTS.at(run)
    where = torch.device(device or "cpu")
    benches = {split: Bench.of(data, ground.joints, data.rows(split), scale) for split in ("validation", "test")}
    with phase("measuring every evaluation step against truth") as told:
        curves = measured or measure_curves(folder, truth, poses, told)
    with threads_for(max(map(len, benches.values())), folder.study.resolved.model.width):
        result = Evaluation(
            truth=TruthReference(path=str(ground.path), digest=ground.digest),
            data_digest=data.digest,
            conventions=CONVENTIONS,
            counts={split: len(bench) for split, bench in benches.items()},
            split_errors={split: "the data set has no such rows" for split, bench in benches.items() if not len(bench)},
            trials=_trials(folder, curves),
            selected_test=_selected(folder, benches["test"], where),
            student=_student(student, benches, where),
            student_digest=hashlib.sha256(student.read_bytes()).hexdigest() if student.exists() else None,
        )
    curves.judged.save(layout.CURVES.at(run))
    result.save(layout.EVALUATION.at(run))
    if result.student is not None:
        write_card(student, result)
    return result


def evaluate_weights(
    weights: Path,
    truth: Path,
    poses: Path,
    *,
    split: str = "test",
    output: Path | None = None,
    device: str | None = None,
) -> WeightsEvaluation:
    """Evaluate one candidate, teacher or student on one split of any data set (the one it saw or another).

    A data set that the weights were not trained on is normalised by its own mean 2D root-head distance, as in the
    papers' experiments across data sets; that needs 2D poses only. Writes ``output`` (JSON) if given.

    Raises:
        UserError: a file is missing or unusable, the truth is not that of the poses, or the split has no rows.
    """
    if split not in SPLITS:
        raise UserError(f"split '{split}': expected one of {', '.join(SPLITS)}")
    lifter, record = load_weights(weights)
    data = read_poses(poses)
    ground = read_truth(truth, data)
    rows = data.rows(split)
    if not len(rows):
        raise UserError(f"{poses}: no rows of the split '{split}'")
    known = record.data_digest == data.digest
    scale = record.scale if known else normalisation_scale(data)
    bench = Bench.of(data, ground.joints, rows, scale)
    offsets, name = predict(lifter, bench.inputs, torch.device(device or "cpu")), lifter.representation.name
    result = WeightsEvaluation(
        weights=WeightsReference(path=str(weights), record=record.plain()),
        poses=PosesReference(path=str(poses), digest=data.digest, source=data.source),
        truth=TruthReference(path=str(ground.path), digest=ground.digest),
        trained_on_this_data=known,
        scale_px=scale,
        split=split,
        conventions=CONVENTIONS,
        metrics=measure_errors(bench, offsets, name, part_signs=record.part_signs, detail=True),
    )
    if output is not None:
        result.save(output)
    return result


def labelled_histories(run: Path, truth: Path, poses: Path | None = None, *, name: str = "") -> list[LabelledHistory]:
    """Every seed of a run with its recorded signals and its true errors; writes nothing.

    Args:
        run: the run folder.
        truth: the truth of its poses.
        poses: where its poses lie, if they were moved.
        name: of the run, where several are looked at together.

    Raises:
        UserError: as :func:`evaluate_run`, or no trial of the run has recorded depths.
    """
    folder = RunFolder(run)
    data = folder.poses(poses)
    curves, reasons = true_curves(folder, data, read_truth(truth, data))
    every = {trial.id: trial.configuration.training.evaluate_every for trial in folder.trials}
    found = []
    for history in read_histories(folder, name=name):
        curve = curves.of(history.trial, history.seed)
        if curve is not None:
            columns = [dict(zip(curve.steps.tolist(), curve.errors[name].tolist(), strict=True)) for name in JUDGED]
            errors, mirrored = ([column.get(step, float("nan")) for step in history.steps] for column in columns)
            found.append(label(history, errors, every[history.trial], mirrored=mirrored))
    if not found:
        why = next(iter(reasons.values()), "no trial has a history")
        raise UserError(f"{run}: nothing to score: {why}")
    return found


def true_curves(
    folder: RunFolder,
    data: Poses,
    ground: Truth,
    told: Told = lambda done, trials: None,
    *,
    raw: bool = False,
) -> tuple[Curves, dict[str, str]]:
    """The true errors of every evaluation step from the recorded depths, and of each trial without any: why.

    ``raw`` asks for the raw weights', recorded where both were judged.

    Raises:
        UserError: recorded depths or a history are damaged, or of another shape than the trial's.
    """
    benches: dict[int, Bench] = {}
    table: dict[tuple[str, int], Curve] = {}
    reasons: dict[str, str] = {}
    for number, trial in enumerate(folder.trials):
        told(number, len(folder.trials))
        count = trial.configuration.training.validation_poses
        if count not in benches:
            rows = validation_rows(data, count)
            benches[count] = Bench.of(data, ground.joints, rows, folder.study.data.scale)
        found = _curves(folder, trial, benches[count], raw=raw)
        table |= found
        if not found:
            reasons[trial.id] = "no recorded depths (training.record_depths is off or nothing was evaluated)"
    return Curves(table), reasons


def _curves(folder: RunFolder, trial: Trial, bench: Bench, *, raw: bool) -> dict[tuple[str, int], Curve]:
    """The curves of one trial's seeds from its recorded depths (E, S, V, 17)."""
    depths = folder.depths(trial, len(bench), raw=raw)
    if depths is None:
        return {}
    judged_on = None if trial.outcome is None else trial.outcome.judged_on
    if judged_on not in (None, rows_digest(bench.rows)):
        raise UserError(
            f"{folder.path}: trial {trial.id}: its recorded depths are of other validation poses than this version of "
            "tips-dist chooses; evaluate with the version that trained it"
        )
    every = trial.configuration.training.evaluate_every
    steps: dict[int, set[int]] = defaultdict(set)
    for row in folder.history(trial):
        if row.step // every <= len(depths):
            steps[row.seed].add(row.step)
    found = {}
    for index, seed in enumerate(trial.seeds):
        known = sorted(steps[seed])
        if known:
            offsets = depths[[step // every - 1 for step in known], index]
            errors = error_curves(bench, offsets, trial.representation)
            found[trial.id, seed] = Curve(
                np.array(known, np.int64), {name: errors[name] for name in (*METRICS, MIRRORED)}
            )
    return found


def _trials(folder: RunFolder, curves: TrueCurves) -> dict[str, TrialErrors]:
    choices = folder.selection.seeds if folder.selection is not None else []
    chosen = {(choice.trial, choice.seed): choice.step for choice in choices}

    def seeds(trial: Trial, found: Curves) -> dict[int, SeedErrors]:
        return {
            seed: checkpoints(curve, chosen.get((trial.id, seed)))
            for seed in trial.seeds
            if (curve := found.of(trial.id, seed)) is not None
        }

    return {
        trial.id: TrialErrors(
            representation=trial.representation,
            seeds=seeds(trial, curves.judged),
            raw=seeds(trial, curves.raw),
            why=curves.reasons.get(trial.id),
        )
        for trial in folder.trials
    }


def _selected(folder: RunFolder, bench: Bench, device: torch.device) -> list[CandidateMetrics]:
    if folder.selection is None or not len(bench):
        return []
    files = sorted(folder.path / choice.file for choice in folder.selection.seeds if choice.file)
    return [_candidate(file, bench, device) for file in files]


def _candidate(file: Path, bench: Bench, device: torch.device) -> CandidateMetrics:
    lifter, record = load_weights(file)
    name = lifter.representation.name
    found = measure_errors(bench, predict(lifter, bench.inputs, device), name, part_signs=record.part_signs)
    return CandidateMetrics(
        **found.model_dump(),
        trial=file.parent.parent.name,
        file=file.name,
        representation=name,
        seed=record.seed or 0,
        step=record.step or 0,
        risk=record.risk,
    )


def _student(file: Path, benches: Mapping[str, Bench], device: torch.device) -> dict[str, Metrics] | None:
    if not file.exists():
        return None
    lifter, record = load_weights(file)
    name, signs = lifter.representation.name, record.part_signs
    found = {}
    for split, bench in benches.items():
        if len(bench):
            offsets = predict(lifter, bench.inputs, device)
            metrics = measure_errors(bench, offsets, name, part_signs=signs, detail=True)
            spread = None
            if isinstance(lifter, Lifter) and lifter.spread is not None:
                spread = check_spread(bench, offsets, spread_of(lifter, bench.inputs, device))
            found[split] = metrics.model_copy(update={"spread": spread})
    return found
