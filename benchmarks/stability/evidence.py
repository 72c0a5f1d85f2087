"""Which evidence chooses well on real bodies: regret and rank correlation of every signal and combination.

    python -m benchmarks.stability.evidence label   # recorded runs of benchmarks.stability.bodies -> bodies/*.npz
    python -m benchmarks.stability.evidence table   # the tables, from the committed files, in seconds

Signals come from the recorded depths alone (``signals.from_depths``), true errors and true signs from ``evaluation``.
The rules below see the signals only. Regret is over all checkpoints of a seed, Spearman over the last three quarters of
the run; means over seeds with 95 % bootstrap intervals over seeds.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks.stability.bank import KINDS
from benchmarks.stability.bodies import WORK, Run, runs
from benchmarks.stability.calibrate import log_risk
from tips_dist.bootstrap import over_groups
from tips_dist.data.store import Poses, normalisation_scale, read_poses
from tips_dist.evaluation.measuring import Bench, error_curves, mirrored_share
from tips_dist.evaluation.truth import read_truth
from tips_dist.files import read_json_lines, write_with
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.stability.risk import regimes
from tips_dist.training.validation import rows_digest, validation_rows, validation_set

BANK = Path(__file__).parent / "bodies"
CROSSING = 0.15  # share of poses truly mirrored from which a checkpoint lies inside a mirror crossing
LATE = 0.25  # share of a run that Spearman leaves out at its beginning

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """One kind of weights of one run: E evaluation steps of S seeds."""

    run: Run
    kind: str  # averaged or raw
    steps: Array  # (E,)
    signals: dict[str, Array]  # name -> (E, S)
    errors: Array  # (E, S) N-MPJPE, mm, one sign per network and part
    mirrored: Array  # (E, S) share of poses that the better sign of each pose turns round (needs truth)


Rule = Callable[[dict[str, Array]], Array]


def _log(name: str, weight: float = 1.0) -> Rule:
    return lambda found: weight * np.log(np.maximum(found[name], 1e-6))


def _plus(*rules: Rule) -> Rule:
    return lambda found: np.sum([rule(found) for rule in rules], axis=0)


VIEWS, BONES = "agreement/views", "rigidity/bone_ratio_variance"
RULES: dict[str, Rule] = {
    "bones": _log(BONES),
    "symmetry": _log("rigidity/symmetry"),
    "sliced Wasserstein": _log("distance/sliced_wasserstein"),
    "nearest neighbour": _log("distance/nearest_neighbour"),
    "depth spread": lambda found: np.abs(np.log(np.maximum(found["depth/spread_ratio"], 1e-6))),
    "1 - knees": lambda found: 1 - found["depth/knees"],
    "mixed": lambda found: found["mirror/mixed"],
    "views": _log(VIEWS),
    "views, torso and legs": _plus(_log(f"{VIEWS}_torso", 0.5), _log(f"{VIEWS}_legs", 0.5)),
    "bones + mixed": _plus(_log(BONES), lambda found: found["mirror/mixed"]),
    "bones + (1 - knees)": _plus(_log(BONES), lambda found: 1 - found["depth/knees"]),
    "views x bones": _plus(_log(VIEWS), _log(BONES)),
    "views + 0.5 bones": _plus(_log(VIEWS), _log(BONES, 0.5)),
    "views + 0.5 bones + 0.5 (1 - knees)": _plus(
        _log(VIEWS), _log(BONES, 0.5), lambda found: 0.5 * (1 - found["depth/knees"])
    ),
    "views + 0.5 bones + mixed": _plus(_log(VIEWS), _log(BONES, 0.5), lambda found: found["mirror/mixed"]),
    "the product's risk": functools.partial(log_risk, regimes()[0]),
    "the product's risk of one camera": functools.partial(log_risk, regimes()[1]),  # mixing as several cameras tell it
}


def main() -> None:
    """Label or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["label", "table"])
    parser.add_argument("--poses", type=Path, default=Path("data/cmu.pose2d.h5"))
    parser.add_argument("--truth", type=Path, default=Path("data/cmu.truth3d.h5"))
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--until", type=int, help="look at this many steps of every run only")
    arguments = parser.parse_args()
    if arguments.do == "table":
        print_tables(arguments.bank, arguments.until)
        return
    poses = read_poses(arguments.poses)
    joints = read_truth(arguments.truth, poses).joints
    for run in runs():
        if (arguments.work / run.name / "history.jsonl").exists():
            label(run, poses, joints, arguments.work / run.name, arguments.bank / f"{run.name}.npz")
            print(f"{run.name}: labelled", flush=True)


def label(run: Run, poses: Poses, joints: npt.NDArray[np.float32], folder: Path, path: Path) -> None:
    """Write the signals (E, S, K), errors and truly mirrored shares (E, S) of one run's two kinds of weights.

    A run that has not ended counts up to the evaluation step that it has reached.
    """
    configuration = run.configuration()
    scale, count = normalisation_scale(poses), configuration.training.validation_poses
    if (done := folder / "done").exists():
        assert done.read_text() == rows_digest(validation_rows(poses, count)), f"{folder}: judged on other poses"
    validation = validation_set(poses, configuration, scale)
    bench = Bench.of(poses, joints, validation_rows(poses, count), scale)
    reached = max(int(row["step"]) for row in read_json_lines(folder / "history.jsonl"))
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for kind, name in KINDS.items():
        depths = np.load(folder / name, mmap_mode="r")[: reached // configuration.training.evaluate_every]
        depths = depths.astype(np.float32)
        found = signals.from_depths(depths, validation, REPRESENTATIONS[run.representation])
        arrays["names"] = np.array(sorted(found))
        arrays[kind] = np.stack([found[name].numpy() for name in sorted(found)], axis=-1).astype(np.float32)
        per_seed = [error_curves(bench, depths[:, seed], run.representation) for seed in range(len(run.seeds))]
        arrays[f"{kind}_errors"] = np.stack([one["n_mpjpe_resolved"] for one in per_seed], axis=1).astype(np.float32)
        arrays[f"{kind}_mirrored"] = mirrored_share(bench, depths).astype(np.float32)
        arrays["steps"] = (1 + np.arange(len(depths))) * configuration.training.evaluate_every
    path.parent.mkdir(parents=True, exist_ok=True)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    write_with(path, save)


def load(bank: Path, until: int | None = None) -> list[Curves]:
    """Both kinds of weights of every labelled run."""
    found = []
    for run in runs():
        if not (bank / f"{run.name}.npz").exists():
            continue
        with np.load(bank / f"{run.name}.npz", allow_pickle=False) as file:
            kept = file["steps"] <= (until or np.inf)
            for kind in KINDS:
                values = file[kind][kept].astype(np.float64)
                named = {str(name): values[..., place] for place, name in enumerate(file["names"])}
                errors, mirrored = (file[f"{kind}_{what}"][kept].astype(np.float64) for what in ("errors", "mirrored"))
                found.append(Curves(run, kind, file["steps"][kept], named, errors, mirrored))
    return found


def regret(curves: Curves, scores: Array) -> Array:
    """(S,) mm that the checkpoint of the lowest score lies above the seed's best."""
    chosen = scores.argmin(0)
    costs: Array = curves.errors[chosen, np.arange(curves.errors.shape[1])] - curves.errors.min(0)
    return costs


def late_spearman(curves: Curves, scores: Array) -> Array:
    """(S,) rank correlation of score and error over the last three quarters."""
    begin = int(LATE * len(scores))
    pairs = zip(scores[begin:].T, curves.errors[begin:].T, strict=True)
    return np.array([float(spearmanr(one, other).statistic) for one, other in pairs])


def print_tables(bank: Path, until: int | None) -> None:
    """Errors, crossings, and what each rule chose, as Markdown."""
    everything = load(bank, until)
    groups: dict[tuple[str, str, str], list[Curves]] = {}
    for curves in everything:
        prior = f"{'bend' if curves.run.bend else 'plain'}, batch {curves.run.batch}"
        groups.setdefault((curves.run.representation, prior, curves.kind), []).append(curves)
    print("| runs | weights | seeds | oracle | last | spread of seeds at the end | crossings | worst share mirrored |")
    print("|---|---|---|---|---|---|---|---|")
    for (representation, prior, kind), members in groups.items():
        errors = np.concatenate([one.errors for one in members], axis=1)
        worst = np.concatenate([one.mirrored[len(one.mirrored) // 4 :].max(0) for one in members])
        last = errors[-1]
        cells = [
            f"{representation}, {prior}", kind, str(errors.shape[1]), _mean(errors.min(0)), _mean(last),
            f"{np.ptp(last):.1f}", str(int((worst > CROSSING).sum())), f"{worst.max():.2f}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    for (representation, prior, kind), members in groups.items():
        print(f"\n**{representation}, {prior}, {kind}**: regret in mm (95 % interval), Spearman late\n")
        print("| rule | regret | Spearman |\n|---|---|---|")
        for name, choose in {"last checkpoint": _last, **RULES}.items():
            scored = [(one, choose(one.signals)) for one in members]
            costs = np.concatenate([regret(one, scores) for one, scores in scored])
            ranks = np.concatenate([late_spearman(one, scores) for one, scores in scored])
            print(f"| {name} | {_mean(costs)} | {'' if name == 'last checkpoint' else _mean(ranks, 2)} |")


def _last(found: dict[str, Array]) -> Array:
    return -np.broadcast_to(np.arange(len(found[BONES]))[:, None], found[BONES].shape).astype(np.float64)


def _mean(values: Array, digits: int = 1) -> str:
    groups = [np.array([row]) for row in range(len(values))]
    found = over_groups(lambda rows: float(values[rows].mean()), groups)
    return f"{found.value:.{digits}f} ({found.low:.{digits}f}..{found.high:.{digits}f})"


if __name__ == "__main__":
    main()
