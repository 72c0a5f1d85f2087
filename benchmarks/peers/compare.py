"""Ours beside other ways to train the same lifter, on the same poses, seeds and ruler: the table of peers.md.

    python -m benchmarks.peers.flow data/cmu.pose2d.h5 -o data/cmu.flow.safetensors     # once, some minutes
    python -m benchmarks.peers.compare train      # resumes; --part 0/2 and 1/2 share it
    python -m benchmarks.peers.compare table      # step costs in turns in one process; writes peers.md

Every row trains the solo lifter with the product's own loop, and is judged at its last checkpoint (as the other
programs keep it), at the one that our risk chooses without truth, and at the oracle's; at equal steps, and at the
processor seconds that the first row needs for its steps; the first two on test people too. The flow's rows have no
adversary; the loop trains a discriminator all the same, to which nobody listens: some 15 % of a step that a program of
their own would save.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import machine, replace_between
from benchmarks.peers import flow_prior
from benchmarks.recipe import SEEDS, Array, Curve, Run, costs, finish, load, mean
from studies.answers.material import as_left
from tips_dist.bootstrap import Statistic, difference
from tips_dist.data.store import normalisation_scale, read_poses
from tips_dist.evaluation.measuring import Bench, error_curves, predict
from tips_dist.evaluation.truth import read_truth
from tips_dist.models import load_weights
from tips_dist.runfolder import layout

WORK, PAGE = Path("runs/peers"), Path(__file__).parent / "peers.md"
STEPS = 6000
_SAME = {"training.batch_size": 64, "training.generator_lr": 1e-3, "training.discriminator_lr": 1e-3}
_FLOW = {"losses.adversarial": 0.0, "losses.extra.flow_prior": 0.1}
_AUTHORS: dict[str, float | str | bool] = {
    "training.batch_size": 64,
    "training.rotation": "batch",
    "training.turns": "all",
    "losses.consistency_90": 9.0,  # they add up what all three turns give, ours is the mean
    "losses.label_swap": 0.1,
    "model.batch_norm": True,
    "model.dropout": 0.5,
    "training.average": 0.0,
}
ROWS: dict[str, dict[str, float | str | bool]] = {
    "ours": {**_SAME},
    "ours with the anatomical prior": {**_SAME, "losses.bend": 1.0},
    "the authors' recipe, rates 2e-4": {**_AUTHORS, "training.generator_lr": 2e-4, "training.discriminator_lr": 2e-4},
    "the authors' recipe, rates 1e-3": {**_AUTHORS, **_SAME},
    "a flow instead of an adversary": {**_SAME, **_FLOW},
    "a flow and the bone-length prior (as ElePose)": {**_SAME, **_FLOW, "losses.bone_prior": 1.0},
}
RUNS = [Run(name, "solo", {"training.steps": STEPS, **values}) for name, values in ROWS.items()]


def main() -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["train", "table"])
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to share the work")
    parser.add_argument("--poses", type=Path, default=Path("data/cmu.pose2d.h5"))
    parser.add_argument("--truth", type=Path, default=Path("data/cmu.truth3d.h5"))
    parser.add_argument("--flow", type=Path, default=Path("data/cmu.flow.safetensors"))
    options = parser.parse_args()
    os.environ[flow_prior.FLOW] = str(options.flow)
    if options.do == "train":
        poses = read_poses(options.poses)
        joints = read_truth(options.truth, poses).joints
        part, parts = (int(number) for number in options.part.split("/"))
        for run in RUNS[part::parts]:
            finish(run, poses, joints, WORK)
    else:
        curves = [curve for run in RUNS if (curve := load(run, WORK)) is not None]
        poses = read_poses(options.poses)
        rows = poses.rows("test")
        bench = Bench.of(poses, read_truth(options.truth, poses).joints, rows, normalisation_scale(poses))
        tests = {curve.run.recipe: unseen(curve, bench, WORK / curve.run.name) for curve in curves}
        tables = [table(curves, costs([one.run for one in curves])), unseen_table(tests)]
        said = "\n\n".join([machine(f"One thread, {len(SEEDS)} seeds."), *tables])
        print(said)
        replace_between("peers", said, PAGE)


def table(curves: list[Curve], spent: dict[str, float]) -> str:
    """One row for each way to train: N-MPJPE in mm, mean of the seeds with its 95 % interval."""
    budget = STEPS * spent[curves[0].run.name]
    rows = [
        "| | ms a step | last | chosen | best | last at equal time | chosen at equal time |",
        "|---|---|---|---|---|---|---|",
    ]
    for curve in curves:
        there = curve.steps <= max(budget / spent[curve.run.name], curve.steps[0])
        cells = [mean(curve.errors[-1]), mean(_chosen(curve, curve.errors)), mean(curve.errors.min(0))]
        late = [mean(curve.errors[there][-1]), mean(_chosen(curve, curve.errors[there]))]
        rows.append(f"| {curve.run.recipe} | {1000 * spent[curve.run.name]:.1f} | {' | '.join(cells + late)} |")
    return "\n".join(rows)


@dataclass(frozen=True)
class Unseen:
    """Errors in mm on test people of each seed's last weights and of those that the risk chose, (S,)."""

    last: Array
    chosen: Array


def unseen(curve: Curve, bench: Bench, folder: Path) -> Unseen:
    """Judge a run's weights in its folder on a bench; signs are told from the bench's 2D poses, as along the curves."""
    run = curve.run
    state = as_left(folder, run.configuration(), SEEDS)
    state.judged.eval()
    inputs = bench.inputs.float().expand(len(SEEDS), *bench.inputs.shape)
    with torch.inference_mode():
        last = state.judged(inputs).double()
    files = [layout.candidate_name(seed, int(step)) for seed, step in zip(SEEDS, curve.chosen, strict=True)]
    chosen = torch.stack([predict(load_weights(folder / "candidates" / file)[0], bench.inputs) for file in files])
    found = (error_curves(bench, depths.numpy(), run.representation)["n_mpjpe_resolved"] for depths in (last, chosen))
    return Unseen(*found)


def unseen_table(tests: Mapping[str, Unseen]) -> str:
    """One row for each way to train, on people that nothing has seen; others are held against the first."""
    rows = ["| test people | last | chosen | its last minus our chosen |", "|---|---|---|---|"]
    ours = next(iter(tests.values()))
    for recipe, found in tests.items():
        versus = "" if found is ours else _told(difference(found.last[None], ours.chosen[None]))
        rows.append(f"| {recipe} | {mean(found.last)} | {mean(found.chosen)} | {versus} |")
    return "\n".join(rows)


def _told(found: Statistic | None) -> str:
    return "" if found is None else f"{found.value:+.1f} ({found.low:+.1f}..{found.high:+.1f})"


def _chosen(curve: Curve, errors: Array) -> Array:
    """Each seed's error where the risk chose, or at the last of the ``errors`` (E, S) if it chose later."""
    places = np.searchsorted(curve.steps, curve.chosen).clip(max=len(errors) - 1)
    found: Array = errors[places, np.arange(errors.shape[1])]
    return found


if __name__ == "__main__":
    main()
