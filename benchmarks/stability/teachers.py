"""How many teachers help, whether the second look and a sign per pose pay: from the runs of ``bodies.py``.

    python -m benchmarks.stability.teachers curve    # validation, from recorded depths: 1, 3, 10, 30, 100 checkpoints
    python -m benchmarks.stability.teachers student  # test persons: a student of many against the best single choice
    python -m benchmarks.stability.teachers signs    # one sign per network against a sign per pose, raw weights

Nothing that chooses here sees truth: checkpoints are ranked by the product's risk of their recorded depths, students
are taught by the product's own functions on the train poses. Truth only measures what came out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.stability.bodies import WORK, Run, runs
from benchmarks.stability.evidence import CROSSING
from tips_dist import config, distillation, pose_signs
from tips_dist.data.store import Poses, normalisation_scale, normalised, read_poses
from tips_dist.evaluation import metrics
from tips_dist.evaluation.measuring import Bench, measure_errors, mirrored_share, predict, signed
from tips_dist.evaluation.truth import read_truth
from tips_dist.models import load_weights
from tips_dist.runfolder.choices import Teacher
from tips_dist.runfolder.weights import read_weights_record
from tips_dist.second_look import Looker
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.stability.risk import risk
from tips_dist.training.validation import validation_rows, validation_set

COUNTS = (1, 3, 10, 30, 100)
APART = 3  # evaluation steps between two teachers of one seed

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """The data with its truth."""

    poses: Poses
    joints: npt.NDArray[np.float32]
    scale: float

    def bench(self, rows: npt.NDArray[np.int64]) -> Bench:
        """Rows to measure on."""
        return Bench.of(self.poses, self.joints, rows, self.scale)


def main() -> None:
    """Measure one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["curve", "student", "signs"])
    parser.add_argument("--poses", type=Path, default=Path("data/cmu.pose2d.h5"))
    parser.add_argument("--truth", type=Path, default=Path("data/cmu.truth3d.h5"))
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--only", nargs="*", default=[], help="names of runs, such as solo-bend-128")
    parser.add_argument("--teachers", type=int, default=30)
    parser.add_argument("--steps", type=int, default=3000, help="of the student")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    poses = read_poses(arguments.poses)
    world = World(poses, read_truth(arguments.truth, poses).joints, normalisation_scale(poses))
    found = [run for run in runs() if (arguments.work / run.name / "history.jsonl").exists()]
    for run in [run for run in found if not arguments.only or run.name in arguments.only]:
        folder = arguments.work / run.name
        match arguments.do:
            case "curve":
                curve(run, folder, world)
            case "student":
                student(run, folder, world, arguments.teachers, arguments.steps)
            case _:
                per_pose(run, folder, world)


# --- how many teachers -----------------------------------------------------------------------------------------------


def curve(run: Run, folder: Path, world: World) -> None:
    """N-MPJPE of the mean of the depths of the n best checkpoints of all seeds, on the validation poses."""
    settings = run.configuration()
    bench = world.bench(validation_rows(world.poses, settings.training.validation_poses))
    recorded, representation = _depths(folder, "depths.npy"), REPRESENTATIONS[run.representation]
    found = signals.from_depths(recorded, validation_set(world.poses, settings, world.scale), representation)
    risks = _risks({name: value.numpy() for name, value in found.items()}, recorded.shape[:2])
    order = list(_spread_over(risks))
    offsets = torch.from_numpy(recorded.astype(np.float64))
    resolved = torch.stack(
        [signed(offsets[:, s], *_own(bench, offsets[:, s], run)) for s in range(offsets.shape[1])], 1
    )
    alone = np.array([_error(bench, resolved[e, s]) for e, s in order[: max(COUNTS)]])
    cells = []
    for count in COUNTS:
        chosen = order[:count]
        mean = torch.stack([resolved[e, s] for e, s in chosen]).mean(0)
        cells.append(f"{len(chosen)}: {_error(bench, mean):.1f}")
    print(f"{run.name} ({len(recorded)} evaluation steps): lowest risk {alone[0]:.1f}, best of the first "
          f"{len(alone)} {alone.min():.1f}; mean of the n best: {', '.join(cells)}", flush=True)  # fmt: skip


def _spread_over(risks: Array) -> Iterator[tuple[int, int]]:
    """Checkpoints (evaluation step, seed) in rounds: each seed's best, then each one's second best, apart in time."""
    per_seed: list[list[int]] = []
    for column in np.nan_to_num(risks, nan=np.inf).T:
        chosen: list[int] = []
        for e in np.argsort(column, kind="stable").tolist():
            if all(abs(e - other) >= APART for other in chosen):
                chosen.append(e)
        per_seed.append(chosen)
    for place in range(max(map(len, per_seed))):
        row = [
            (risks[steps[place], seed], steps[place], seed) for seed, steps in enumerate(per_seed) if place < len(steps)
        ]
        yield from ((e, seed) for _, e, seed in sorted(row))


# --- the student -----------------------------------------------------------------------------------------------------


def student(run: Run, folder: Path, world: World, count: int, steps: int) -> None:
    """Teach a student by the candidates kept, and compare it with the best single choice, on the test persons."""
    settings, looker = run.configuration(), Looker(world.poses, world.scale)
    entries = [_entry(run, file) for file in sorted((folder / "candidates").glob("*.safetensors"))]
    entries = [
        entry.model_copy(update={"second_risk": looker.look(Path(entry.file), settings).risk}) for entry in entries
    ]
    first = min(entries, key=lambda entry: entry.risk)
    ranked = sorted(entries, key=lambda entry: entry.second_risk or np.inf)
    rounds: dict[int, int] = {}
    order = []
    for entry in ranked:
        rounds[entry.seed] = rounds.get(entry.seed, 0) + 1
        order.append((rounds[entry.seed], entry.second_risk or np.inf, entry))
    chosen = [entry for _, _, entry in sorted(order, key=lambda row: row[:2])][:count]
    bench = world.bench(world.poses.rows("test"))
    singles = {}
    for entry in {entry.file: entry for entry in (first, ranked[0])}.values():
        lifter, _ = load_weights(Path(entry.file))
        offsets = predict(lifter, bench.inputs)
        singles[entry.file] = measure_errors(bench, offsets, run.representation, part_signs=entry.part_signs)
    rows = world.poses.rows("train")
    inputs = torch.from_numpy(normalised(world.poses, rows, world.scale))
    teachers = distillation.load_teachers(Path(), chosen)
    targets, spread, _ = distillation.teach(teachers, inputs)
    held_out = torch.from_numpy(distillation.held_out_rows(world.poses.sequence[rows], 0))
    taught, _ = distillation.train_student(
        inputs, targets, held_out, config.Distillation(steps=steps), settings.model, 0, spread
    )
    whole = measure_errors(bench, predict(taught, bench.inputs), "solo", part_signs=[1])
    test = torch.from_numpy(normalised(world.poses, bench.rows, world.scale))
    mean, _, _ = distillation.teach(teachers, test)
    of_mean = measure_errors(bench, mean.double(), "solo", part_signs=[1])
    one, two = (singles[entry.file].n_mpjpe_resolved or np.nan for entry in (first, ranked[0]))
    mm = whole.n_mpjpe_resolved or np.nan
    print(f"{run.name}, test persons: chosen by the risk as trained {one:.1f}, by the second look {two:.1f}, mean of "
          f"{len(chosen)} teachers {of_mean.n_mpjpe_resolved:.1f}, student {mm:.1f} "
          f"({100 * (mm / two - 1):+.1f} % of the second look's)", flush=True)  # fmt: skip


def _entry(run: Run, file: Path) -> Teacher:
    about = read_weights_record(file)
    return Teacher(
        trial=run.name,
        representation=run.representation,
        seed=about.seed or 0,
        step=about.step or 0,
        risk=about.risk or np.inf,
        file=str(file),
        part_signs=about.part_signs or [],
        sign_confidence=about.sign_confidence or [],
    )


# --- a sign per pose -------------------------------------------------------------------------------------------------


def per_pose(run: Run, folder: Path, world: World) -> None:
    """Errors of raw checkpoints with one sign per network and part, with one per pose, and with the better one."""
    settings, representation = run.configuration(), REPRESENTATIONS[run.representation]
    bench = world.bench(validation_rows(world.poses, settings.training.validation_poses))
    validation = validation_set(world.poses, settings, world.scale)
    recorded = _depths(folder, "depths_raw.npy")[4::5]
    depth = torch.from_numpy(bench.truth[..., 2] - bench.truth[:, :1, 2])
    table: dict[str, list[list[float]]] = {"mixed": [], "sound": []}
    mirrored = mirrored_share(bench, recorded)
    for e, seeds in enumerate(recorded):
        offsets = torch.from_numpy(seeds.astype(np.float32))
        own, _ = bench.signs(offsets, run.representation)
        told = pose_signs.resolve_pose_signs(
            validation.poses, offsets, representation, signs=own, instants=validation.instants
        )
        for s in range(len(offsets)):
            network = signed(offsets[s : s + 1].double(), own[s : s + 1], run.representation)[0]
            each = offsets[s].double() * told.joints(representation)[s].double()
            better = offsets[s].double() * _truest(offsets[s].double(), depth, representation)
            right = (torch.sign(each - each[:, :1]) == torch.sign(better - better[:, :1]))[:, 1:].float().mean()
            row = [*(_error(bench, one) for one in (network, each, better)), 100 * float(right)]
            table["mixed" if mirrored[e, s] > CROSSING else "sound"].append(row)
    for name, rows in table.items():
        if rows:
            network, each, better, right = np.mean(rows, axis=0)
            print(
                f"{run.name}, {len(rows)} {name} raw checkpoints: one sign {network:.1f}, per pose {each:.1f}, the "
                f"better sign of each pose {better:.1f} mm; {right:.1f} % of depths on the side of the better",
                flush=True,
            )


def _truest(offsets: torch.Tensor, depth: torch.Tensor, representation: object) -> torch.Tensor:
    """The factor (V, 17) that turns each part of each pose to the side where true depth is."""
    factors = torch.ones_like(offsets)
    for part in representation.lifters:  # type: ignore[attr-defined]
        joints = list(part.joints)
        side = (offsets[:, joints] * depth[:, joints]).sum(1)
        factors[:, joints] = torch.where(side < 0, -1.0, 1.0).double()[:, None]
    return factors


# --- shared ----------------------------------------------------------------------------------------------------------


def _depths(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """Recorded offsets (E, S, V, 17), as far as the run has come."""
    last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["step"]
    every = json.loads((folder / "history.jsonl").read_text().splitlines()[0])["step"]
    found: npt.NDArray[np.float32] = np.load(folder / name, mmap_mode="r")[: last // every].astype(np.float32)
    return found


def _risks(found: dict[str, npt.NDArray[np.float32]], shape: tuple[int, int]) -> Array:
    told = [
        [risk({name: float(values[e, s]) for name, values in found.items()}) for s in range(shape[1])]
        for e in range(shape[0])
    ]
    return np.array([[np.nan if one is None else one for one in row] for row in told], np.float64)


def _own(bench: Bench, offsets: torch.Tensor, run: Run) -> tuple[torch.Tensor, str]:
    return bench.signs(offsets, run.representation)[0], run.representation


def _error(bench: Bench, offsets: torch.Tensor) -> float:
    return float(metrics.n_mpjpe(bench.lift(offsets), bench.truth).mean())


if __name__ == "__main__":
    main()
