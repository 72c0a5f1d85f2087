"""Build the bank of labelled histories: many unstopped runs, their signals and, separately, their true errors.

    python -m benchmarks.stability.bank procedural   # the calibration set
    python -m benchmarks.stability.bank cmu --poses data/cmu.pose2d.h5 --truth data/cmu.truth3d.h5   # the judging set

The two sets hold different motion and different seeds. Each run trains with the product's own loop; the true error
of every evaluation step comes afterwards from the recorded validation depths, so truth never meets training. A run
that is on disk already is not trained again: the command can be interrupted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.stability.recipes import Run, configuration, runs
from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses, normalisation_scale, read_poses
from tips_dist.evaluation.measuring import Bench, error_curves
from tips_dist.evaluation.truth import read_truth
from tips_dist.files import read_json_lines, write_with
from tips_dist.training.loop import train
from tips_dist.training.validation import validation_rows

BANK = Path(__file__).parent / "bank"
PROCEDURAL_SEED = 11  # not the quickstart's


def main() -> None:
    """Train what is missing of one set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("motion", choices=["procedural", "cmu"])
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to share the work")
    parser.add_argument("--work", type=Path, default=None, help="keep the trial folders here")
    arguments = parser.parse_args()
    if arguments.motion == "procedural":
        poses, joints = generate(20_000, PROCEDURAL_SEED)
    else:
        poses = read_poses(arguments.poses)
        joints = read_truth(arguments.truth, poses).joints
    part, parts = (int(number) for number in arguments.part.split("/"))
    for run in runs(arguments.motion)[part::parts]:
        path = BANK / arguments.motion / f"{run.name}.npz"
        if path.exists():
            continue
        began = time.time()
        with tempfile.TemporaryDirectory() as scratch:
            folder = (arguments.work / arguments.motion / run.name) if arguments.work else Path(scratch)
            label(run, poses, joints, folder, path)
        print(f"{run.name}: {time.time() - began:.0f} s", flush=True)


def label(run: Run, poses: Poses, joints: np.ndarray, folder: Path, path: Path) -> None:
    """Train one run without stopping, then judge its recorded depths; write signals (E, S, K) and errors (E, S)."""
    chosen = configuration(run)
    train(chosen, run.seeds, poses, folder, threads=1)
    rows = list(read_json_lines(folder / "history.jsonl"))
    names = sorted(key for key in rows[0] if "/" in key and key != "risk/total")
    steps = sorted({row["step"] for row in rows})
    signals = np.full((len(steps), len(run.seeds), len(names)), np.nan, np.float32)
    for row in rows:
        place = steps.index(row["step"]), run.seeds.index(row["seed"])
        signals[place] = [np.nan if row[name] is None else row[name] for name in names]
    bench = Bench.of(
        poses, joints, validation_rows(poses, chosen.training.validation_poses), normalisation_scale(poses)
    )
    depths = np.load(folder / "depths.npy").astype(np.float32)
    errors = np.full((2, len(steps), len(run.seeds)), np.nan, np.float32)
    for seed in range(len(run.seeds)):
        found = error_curves(bench, depths[:, seed], chosen.representation)
        alive = np.isfinite(signals[:, seed]).all(-1)
        errors[0, :, seed] = np.where(alive, found["n_mpjpe_resolved"][: len(steps)], np.nan)
        errors[1, :, seed] = np.where(alive, found["n_mpjpe"][: len(steps)], np.nan)
    path.parent.mkdir(parents=True, exist_ok=True)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                names=np.array(names),
                steps=np.array(steps),
                signals=signals,
                resolved=errors[0].astype(np.float16),
                predicted=errors[1].astype(np.float16),
            )

    write_with(path, save)


if __name__ == "__main__":
    main()
