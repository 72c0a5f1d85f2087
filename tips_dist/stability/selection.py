"""Choose the checkpoint to keep of every seed, and the teachers of the student, without ground truth.

A pure function of the run folder's records: the same records give the same ``selection.json``, whatever order the
trials finished in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tips_dist.files import UserError, read_json, write_json
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability.verdicts import taints

RULE = (
    "Per seed, the candidate with the lowest risk, if it was written before the onset of a divergence or collapse. "
    "Teachers are the seeds with the lowest risk over all finished trials."
)


def select(run: Path) -> dict[str, Any]:
    """Choose candidates and teachers from the records below ``run`` and write ``selection.json``.

    Raises:
        UserError: ``run`` is not a run folder, or no seed has a candidate to choose.
    """
    study = read_json(run / "study.json")
    wanted = int(study["resolved"]["distillation"]["teachers"])
    seeds = [
        _seed(run, trial, outcome)
        for trial in (read_json(path) for path in sorted((run / "trials").glob("*/trial.json")))
        for outcome in _outcomes(trial)
    ]
    eligible = sorted((row for row in seeds if row["file"]), key=lambda row: (row["risk"], row["trial"], row["seed"]))
    if not eligible:
        raise UserError(f"{run}: no seed of any trial left a candidate, so there is nothing to select")
    for rank, row in enumerate(eligible):
        row["rank"] = rank + 1
        row["chosen"] = rank < wanted
        row["why"] = f"rank {rank + 1} of {len(eligible)} by risk" + (
            "" if row["chosen"] else "; not among the teachers"
        )
    for row in eligible:
        row |= _signs(run, row)
    for trial in sorted({row["trial"] for row in eligible}):
        _disagreement(run, [row for row in eligible if row["trial"] == trial])
    keys = ("trial", "representation", "seed", "step", "risk", "file", "part_signs", "sign_confidence", "disagreement")
    teachers = [{key: row[key] for key in keys} for row in eligible[:wanted]]
    selection = {"schema": 1, "rule": RULE, "teachers": teachers, "seeds": seeds}
    write_json(run / "selection.json", selection)
    return selection


def _outcomes(trial: dict[str, Any]) -> list[dict[str, Any]]:
    return trial["outcome"]["seeds"] if trial.get("outcome") else []


def _seed(run: Path, trial: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """One seed's row: its lowest-risk candidate, or why it has none."""
    row = {
        "trial": trial["id"],
        "representation": trial["representation"],
        "seed": outcome["seed"],
        "verdict": outcome["verdict"],
        "step": outcome["best_step"],
        "risk": outcome["best_risk"],
        "file": None,
        "chosen": False,
        "rank": None,
    }
    if outcome["best_step"] is None:
        return {**row, "why": "no evaluation step with a finite risk"}
    file = f"trials/{trial['id']}/candidates/seed{outcome['seed']}-step{outcome['best_step']}.safetensors"
    if taints(outcome["verdict"], outcome["onset"], outcome["best_step"]):
        return {**row, "why": f"its lowest risk came after the onset of '{outcome['verdict']}' at {outcome['onset']}"}
    if not (run / file).exists():
        return {**row, "why": f"{file} is missing"}
    return {**row, "file": file, "why": ""}


def _disagreement(run: Path, rows: list[dict[str, Any]]) -> None:
    """How far each seed's sign-resolved depths lie from the other seeds' of its trial, at their chosen checkpoints.

    The median over the others of the mean absolute difference over validation poses and joints, in units of the
    root-to-head distance, written to ``row["disagreement"]``; ``None`` for a seed without company or recorded depths.
    Seeds that found the same answer agree up to mirroring (in the spirit of unsupervised disentanglement ranking,
    Duan et al. 2020). It is reported beside the choice, not used in it: its worth is not measured yet.
    """
    for row in rows:
        row["disagreement"] = None
    path = run / "trials" / rows[0]["trial"] / "depths.npy"
    if len(rows) < 2 or not path.exists():
        return
    trial = read_json(path.with_name("trial.json"))
    every = int(trial["configuration"]["training"]["evaluate_every"])
    recorded = np.load(path, mmap_mode="r")
    lifter_of = list(REPRESENTATIONS[rows[0]["representation"]].lifter_of)
    depths = [
        recorded[row["step"] // every - 1, trial["seeds"].index(row["seed"])].astype(np.float32)
        * np.array(row["part_signs"], np.float32)[lifter_of]
        for row in rows
    ]
    for index, row in enumerate(rows):
        apart = [np.abs(depths[index] - other).mean() for place, other in enumerate(depths) if place != index]
        row["disagreement"] = round(float(np.median(apart)), 6)


def _signs(run: Path, row: dict[str, Any]) -> dict[str, Any]:
    path = run / row["file"]
    try:
        with safe_open(str(path), framework="np") as file:
            record = json.loads((file.metadata() or {})["record"])
        return {"part_signs": record["part_signs"], "sign_confidence": record["sign_confidence"]}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a readable candidate ({error})") from None
