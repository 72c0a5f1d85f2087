"""Evaluate a run folder, or any weights, against 3D truth. Writes evaluation.json and what quotes it.

For the command line: ``evaluate_run(run, truth, poses)`` and ``evaluate_weights(weights, truth, poses)``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.data.store import SPLITS, Poses, normalisation_scale, read_poses
from tips_dist.evaluation.judge import CONVENTIONS, Bench, checkpoints, curves, judge, predict
from tips_dist.evaluation.truth import Truth, read_truth
from tips_dist.files import UserError, read_json, read_json_lines, write_json
from tips_dist.model_card import write_card
from tips_dist.models import Lifter, load_weights
from tips_dist.runfolder import Evaluation, RunFolder, WeightsRecord
from tips_dist.training.loop import validation_rows

SCHEMA = 1


def evaluate_run(run: Path, truth: Path, poses: Path | None = None) -> dict[str, Any]:
    """Evaluate every seed's whole history on the validation poses, and what was selected on the test poses.

    What was selected is each seed's candidate of lowest risk, which its user would keep, and the student. The history
    is judged from the recorded depths of the trials (float16), so oracle, last and random checkpoints need no
    weights. Poses are those of the run; ``poses`` says where they lie if they were moved.

    Returns:
        The content of ``evaluation.json``, which is written into the run folder (the student's model card quotes it).

    Raises:
        UserError: the folder is no run folder, or poses or truth are not those the run was trained on.
    """
    study = read_json(run / "study.json")
    data = RunFolder(run).poses(poses)
    ground = read_truth(truth, data)
    scale, student = float(study["data"]["scale"]), run / "student" / "student.safetensors"
    benches = {split: Bench.of(data, ground.joints, data.rows(split), scale) for split in ("validation", "test")}
    result = {
        "schema": SCHEMA,
        "truth": {"path": str(ground.path), "digest": ground.digest},
        "data_digest": data.digest,
        "conventions": CONVENTIONS,
        "counts": {split: len(bench) for split, bench in benches.items()},
        "split_errors": {split: "the data set has no such rows" for split, bench in benches.items() if not len(bench)},
        "trials": _trials(run, data, ground, scale),
        "selected_test": [_candidate(file, benches["test"]) for file in _selected(run) if len(benches["test"])],
        "student": _student(student, benches),
        "student_digest": hashlib.sha256(student.read_bytes()).hexdigest() if student.exists() else None,
    }
    write_json(run / "evaluation.json", result)
    if result["student"] is not None:
        write_card(student, Evaluation.load(run / "evaluation.json"))
    return result


def evaluate_weights(
    weights: Path, truth: Path, poses: Path, *, split: str = "test", output: Path | None = None
) -> dict[str, Any]:
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
    result = {
        "schema": SCHEMA,
        "weights": {"path": str(weights), "record": record.plain()},
        "poses": {"path": str(poses), "digest": data.digest, "source": data.source},
        "truth": {"path": str(truth), "digest": ground.digest},
        "trained_on_this_data": known,
        "scale_px": scale,
        "split": split,
        "conventions": CONVENTIONS,
        "metrics": _judge(lifter, record, bench, detail=True),
    }
    if output is not None:
        write_json(output, result)
    return result


def _trials(run: Path, data: Poses, ground: Truth, scale: float) -> dict[str, Any]:
    chosen = {(entry["trial"], entry["seed"]): entry["step"] for entry in _selection(run)}
    benches: dict[int, Bench] = {}
    result = {}
    for file in sorted(run.glob("trials/*/trial.json")):
        trial = read_json(file)
        count = trial["configuration"]["training"]["validation_poses"]
        if count not in benches:
            benches[count] = Bench.of(data, ground.joints, validation_rows(data, count), scale)
        result[trial["id"]] = _trial(file.parent, trial, benches[count], chosen)
    return result


def _trial(
    folder: Path, trial: dict[str, Any], bench: Bench, chosen: dict[tuple[str, int], int | None]
) -> dict[str, Any]:
    """Error curves of one trial's seeds from its recorded depths (E, S, V, 17)."""
    result: dict[str, Any] = {"representation": trial["representation"], "seeds": {}}
    depths = _depths(folder / "depths.npy", len(trial["seeds"]), len(bench))
    if depths is None:
        return result | {"why": "no recorded depths (training.record_depths is off or nothing was evaluated)"}
    every = int(trial["configuration"]["training"]["evaluate_every"])
    steps: dict[int, set[int]] = defaultdict(set)
    for line in read_json_lines(folder / "history.jsonl"):
        if line["step"] // every <= len(depths):
            steps[line["seed"]].add(line["step"])
    for index, seed in enumerate(trial["seeds"]):
        known = sorted(steps[seed])
        if known:
            offsets = depths[[step // every - 1 for step in known], index]
            errors = curves(bench, offsets, trial["representation"])
            result["seeds"][str(seed)] = checkpoints(known, errors, chosen.get((trial["id"], seed)))
    return result


def _depths(path: Path, seeds: int, poses: int) -> npt.NDArray[np.float16] | None:
    if not path.exists():
        return None
    try:
        depths: npt.NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable NumPy file ({error})") from None
    if depths.ndim != 4 or depths.shape[1:] != (seeds, poses, 17):
        raise UserError(f"{path}: shape {depths.shape}, expected (steps, {seeds}, {poses}, 17)")
    return depths


def _selection(run: Path) -> list[dict[str, Any]]:
    """What was selected for each seed; none in a run that is not finished."""
    file = run / "selection.json"
    return list(read_json(file)["seeds"]) if file.exists() else []


def _selected(run: Path) -> list[Path]:
    return sorted(run / entry["file"] for entry in _selection(run) if entry["file"])


def _candidate(file: Path, bench: Bench) -> dict[str, Any]:
    lifter, record = load_weights(file)
    return {
        "trial": file.parent.parent.name,
        "file": file.name,
        "seed": record.seed,
        "step": record.step,
        "risk": record.risk,
        "representation": record.representation,
        **_judge(lifter, record, bench, detail=False),
    }


def _student(file: Path, benches: dict[str, Bench]) -> dict[str, Any] | None:
    if not file.exists():
        return None
    lifter, record = load_weights(file)
    return {split: _judge(lifter, record, bench, detail=True) for split, bench in benches.items() if len(bench)}


def _judge(lifter: Lifter, record: WeightsRecord, bench: Bench, *, detail: bool) -> dict[str, Any]:
    offsets, signs = predict(lifter, bench.inputs), record.part_signs
    return judge(bench, offsets, lifter.representation.name, part_signs=signs, detail=detail)
