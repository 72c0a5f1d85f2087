"""Which recipe reaches an error soonest: true error against the work of training, on real bodies.

    make bench-recipe                               # trains what is missing (50 minutes of two cores), prints tables
    python -m benchmarks.recipe train --part 0/2    # every second run, to share the work between two processes
    python -m benchmarks.recipe table               # the costs, taken in turns, and the tables in README.md

Each row of :data:`RECIPES` changes the default in one or a few places and is trained over the same seeds with the
product's own loop, unstopped. What is judged: N-MPJPE of the averaged weights, sign-resolved, on validation persons,
at every evaluation step; nobody chooses a checkpoint. Work is steps times the processor seconds of a step, and these
are taken for all rows in turns in one process, so that a busy machine slows all alike and the numbers of the training
(which do not depend on the machine's load) can be had at any time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.engine import stepper
from benchmarks.machine import machine, replace_between
from tips_dist.bootstrap import over_groups
from tips_dist.config import Configuration
from tips_dist.data.store import Poses, normalisation_scale, read_poses
from tips_dist.evaluation.measuring import Bench, error_curves
from tips_dist.evaluation.truth import read_truth
from tips_dist.files import write_json
from tips_dist.study_file import parse_study
from tips_dist.training.loop import train
from tips_dist.training.validation import validation_rows

WORK, OUT = Path("runs/recipe"), Path("bench-results/recipe.json")
SEEDS = tuple(range(4))
REPRESENTATIONS = ("solo", "torso_legs")
WITHIN = 1.10  # of the best error that any row reaches
LOOKS = 50  # evaluation steps of a run
# What was the default before this benchmark: every row names what it does otherwise.
BASE = {
    "model.width": 128,
    "training.batch_size": 256,
    "training.generator_lr": 2e-4,
    "training.discriminator_lr": 2e-4,
    "training.steps": 5000,
}


def _rates(rate: float, ratio: float = 1.0) -> dict[str, float]:
    return {"training.generator_lr": rate, "training.discriminator_lr": rate * ratio}


def _small(batch: int, steps: int, rate: float = 1e-3, **more: float) -> dict[str, float | str]:
    further = {key.replace("__", "."): value for key, value in more.items()}
    return {"training.batch_size": batch, "training.steps": steps, **_rates(rate), **further}


RECIPES: dict[str, Mapping[str, float | str]] = {
    "the old default": {},
    "batch 64, rates 1e-3": _small(64, 6000),
    "batch 64, rates 1e-3, turns of every second pose": _small(64, 6000, training__turned_every=2),
    "batch 64, rates 1e-3, falling to a tenth": _small(64, 6000, training__final_lr_factor=0.1),
    "batch 64, rates 2e-3": _small(64, 6000, 2e-3),
    "batch 64, rates 1e-3, width 64": _small(64, 6000, model__width=64),
    "batch 64, rates 1e-3, turns of every fourth pose": _small(64, 6000, training__turned_every=4),
    "batch 128, rates 1e-3": _small(128, 4000),
    "batch 64, rates 1e-3, width 256": _small(64, 2500, model__width=256),
    "batch 32, rates 1e-3": _small(32, 8000),
    "batch 256, rates 1e-3": _small(256, 2000),
}
BOTH = 3  # so many rows are trained with the second representation too

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One packed run: a recipe of one representation."""

    recipe: str
    representation: str
    values: Mapping[str, float | str | bool]  # what it does otherwise than BASE

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"{self.representation}-{self.recipe}".replace(" ", "-").replace(",", "").replace("'", "")

    def configuration(self) -> Configuration:
        """Everything that decides its numbers besides the seeds."""
        values = {**BASE, **self.values}
        values |= {"training.evaluate_every": int(values["training.steps"]) // LOOKS}
        text = "{name: recipe, representations: [solo, torso_legs], stopping: {divergence: 'off', plateau: 'off'}}"
        return parse_study(text, "recipe", [f"{k}={json.dumps(v)}" for k, v in values.items()]).configuration(
            self.representation
        )


@dataclass(frozen=True)
class Curve:
    """What a run reached: true errors (E, S) in mm after ``steps`` (E,)."""

    run: Run
    steps: Array
    errors: Array
    chosen: Array  # (S,) the step that the risk chose without truth


RUNS = [
    Run(recipe, representation, values)
    for place, (recipe, values) in enumerate(RECIPES.items())
    for representation in REPRESENTATIONS[: 2 if place < BOTH else 1]
]


def main() -> None:
    """Train what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["train", "table"])
    parser.add_argument("--poses", type=Path, default=Path("data/cmu.pose2d.h5"))
    parser.add_argument("--truth", type=Path, default=Path("data/cmu.truth3d.h5"))
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th")
    parser.add_argument("--work", type=Path, default=WORK)
    options = parser.parse_args()
    if options.do == "train":
        poses = read_poses(options.poses)
        joints = read_truth(options.truth, poses).joints
        part, parts = (int(number) for number in options.part.split("/"))
        for run in RUNS[part::parts]:
            finish(run, poses, joints, options.work)
    else:
        write_tables([curve for run in RUNS if (curve := load(run, options.work)) is not None])


def finish(run: Run, poses: Poses, joints: npt.NDArray[np.float32], work: Path) -> None:
    """Train one run to its end, going on from its last checkpoint, and write its true errors; once."""
    folder, path = work / run.name, work / f"{run.name}.json"
    if path.exists():
        return
    began, configuration = time.process_time(), run.configuration()
    outcome = train(configuration, SEEDS, poses, folder, threads=1)
    rows = validation_rows(poses, configuration.training.validation_poses)
    bench = Bench.of(poses, joints, rows, normalisation_scale(poses))
    depths = np.load(folder / "depths.npy").astype(np.float32)
    errors = [
        error_curves(bench, depths[:, seed], run.representation)["n_mpjpe_resolved"] for seed in range(len(SEEDS))
    ]
    every = configuration.training.evaluate_every
    steps = [every * (1 + index) for index in range(len(depths))]
    chosen = [seed.best_step for seed in outcome.seeds]
    write_json(path, {"steps": steps, "errors": np.stack(errors, axis=1).round(3).tolist(), "chosen": chosen})
    print(f"{run.name}: {time.process_time() - began:.0f} s", flush=True)


def load(run: Run, work: Path) -> Curve | None:
    """What :func:`finish` wrote; None before it did."""
    path = work / f"{run.name}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    chosen = np.array(found["chosen"], float)
    return Curve(run, np.array(found["steps"], float), np.array(found["errors"], float), chosen)


def costs(runs: list[Run], repeats: int = 5, least: float = 0.4) -> dict[str, float]:
    """Processor seconds of one step of all seeds, by run: the median over repeats taken in turns."""
    torch.set_num_threads(1)
    works = {run.name: stepper(run.configuration(), len(SEEDS)) for run in runs}
    found: dict[str, list[float]] = {name: [] for name in works}
    for _, (name, work) in itertools.product(range(repeats), works.items()):
        work()
        calls, began = 0, time.process_time()
        while calls < 2 or time.process_time() - began < least:
            work()
            calls += 1
        found[name].append((time.process_time() - began) / calls)
    return {name: statistics.median(values) for name, values in found.items()}


def reached(curve: Curve, error: float, cost: float) -> float:
    """Processor seconds until the mean error of the seeds is at most ``error``; infinite if it never is."""
    there = np.flatnonzero(curve.errors.mean(1) <= error)
    return float(curve.steps[there[0]] * cost) if len(there) else np.inf


def write_tables(curves: list[Curve]) -> None:
    """Print both tables, and put them into README.md and bench-results/recipe.json."""
    spent = costs([curve.run for curve in curves])
    text = [machine(f"One thread, {len(SEEDS)} seeds; width 128 unless said.")]
    for representation in REPRESENTATIONS:
        some = [curve for curve in curves if curve.run.representation == representation]
        if some:
            text.append(_table(representation, some, spent))
    said = "\n\n".join(text)
    print(said)
    write_json(OUT, {curve.run.name: {"cost": spent[curve.run.name], **_plain(curve)} for curve in curves})
    replace_between("recipe", said)


def _plain(curve: Curve) -> dict[str, list[float] | list[list[float]]]:
    return {"steps": curve.steps.tolist(), "errors": curve.errors.tolist()}


def _table(representation: str, curves: list[Curve], spent: dict[str, float]) -> str:
    best = min(float(curve.errors.mean(1).min()) for curve in curves)
    old = next((curve for curve in curves if not curve.run.values), curves[0])
    before = reached(old, WITHIN * best, spent[old.run.name])
    head = (
        f"**{representation}**: the best mean error of any row is {best:.1f} mm; *soon* is processor seconds "
        f"(four seeds) until {WITHIN * best:.1f} mm\n\n"
        "| recipe | ms a step | soon | best mm (95 % over seeds) | end mm | past best | 25 s | 50 s | 100 s |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    rows = [head]
    for curve in sorted(curves, key=lambda one: reached(one, WITHIN * best, spent[one.run.name])):
        cost, average = spent[curve.run.name], curve.errors.mean(1)
        soon = reached(curve, WITHIN * best, cost)
        at = [_at(curve, seconds / cost) for seconds in (25, 50, 100)]
        times = (
            "never"
            if np.isinf(soon)
            else f"{soon:.0f} s" + (f" ({before / soon:.1f}x)" if np.isfinite(before) and curve is not old else "")
        )
        rows.append(
            f"| {curve.run.recipe} | {1000 * cost:.1f} | {times} | {mean(curve.errors.min(0))} | {average[-1]:.1f} | "
            f"{average[-1] - average.min():+.1f} | " + " | ".join(at) + " |"
        )
    return "\n".join(rows)


def _at(curve: Curve, steps: float) -> str:
    """The mean error after so many steps; a dash where the run was shorter."""
    there = np.flatnonzero(curve.steps <= steps)
    if not len(there) or steps > curve.steps[-1] * 1.02:
        return "–"
    return f"{curve.errors.mean(1)[there[-1]]:.1f}"


def mean(values: Array) -> str:
    found = over_groups(lambda rows: float(values[rows].mean()), [np.array([row]) for row in range(len(values))])
    return f"{found.value:.1f} ({found.low:.1f}..{found.high:.1f})"


if __name__ == "__main__":
    main()
