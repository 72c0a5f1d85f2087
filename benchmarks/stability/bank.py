"""Bank 2: labelled histories of unstopped runs, the instrument that decisions without truth are judged with.

    python -m benchmarks.stability.bank               # train and label what is missing; interrupted, call it again
    python -m benchmarks.stability.bank --part 0/2    # every second run, to share the work between two processes

Three sources of motion, no person in two of them: ``procedural`` bodies, and the people of ``cmu_subjects_17.h5`` that
are not of its test split, in two halves (``people`` and ``others``), each with a person of its own for validation. Test
persons are in none. All are seen by four cameras. Each run trains with the product's own loop, which never sees truth;
afterwards its recorded depths are judged. One file per run, ``bank2/<source>/<run>.npz``:

``steps`` (E,), ``seeds`` (S,), and for both kinds of weights, ``averaged`` and ``raw``: ``<kind>_names`` and
``<kind>_signals`` (E, S, K), ``<kind>_errors`` (E, S) N-MPJPE in mm with one sign per network and part, and
``<kind>_mirrored`` (E, S) the share of poses truly held mirrored. ``one_camera_names`` and ``<kind>_one_camera``
(E, S, K1) are the signals that come out otherwise where no instant is seen twice; those of agreement between views are
then absent. NaN is "not finite" or "the seed had ended".
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.stability.recipes import Run, runs
from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses, normalisation_scale, read_poses
from tips_dist.evaluation.measuring import Bench, error_curves, mirrored_share
from tips_dist.evaluation.truth import read_truth
from tips_dist.files import read_json_lines, write_with
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.training.loop import train
from tips_dist.training.validation import validation_rows, validation_set

BANK = Path(__file__).parent / "bank2"
WORK = Path("runs/bank2")
KINDS = {"averaged": "depths.npy", "raw": "depths_raw.npy"}
PROCEDURAL_SEED = 11  # not the quickstart's
HALVES = {  # trained on, judged on; everybody else of the file stands aside
    "people": (("cmu_05", "cmu_12", "cmu_16"), "cmu_02"),
    "others": (("cmu_01", "cmu_03", "cmu_35"), "cmu_07"),
}
ASIDE = ("cmu_08", "cmu_10", "cmu_26", "cmu_27", "cmu_29", "cmu_49")  # the test persons of the published studies
MANTISSA = np.uint32(0xFFFFF000)  # eleven bits: signals are not known better, and the files halve

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """One kind of weights of one run: E evaluation steps of S seeds."""

    run: Run
    kind: str  # averaged or raw
    steps: Array  # (E,)
    signals: dict[str, Array]  # name -> (E, S); NaN: not finite, or the seed had ended
    errors: Array  # (E, S) N-MPJPE, mm, one sign per network and part
    mirrored: Array  # (E, S) share of poses that the better sign of each pose turns round (needs truth)
    cameras: str  # several or one


def main() -> None:
    """Train and label what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", type=Path, default=Path("../shared/data/cmu_subjects_17.h5"))
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to share the work")
    parser.add_argument("--work", type=Path, default=WORK, help="where runs are while they train")
    arguments = parser.parse_args()
    part, parts = (int(number) for number in arguments.part.split("/"))
    sources = {name: source(name, arguments.motion, arguments.work / "data") for name in ("procedural", *HALVES)}
    for run in runs()[part::parts]:
        path = BANK / run.source / f"{run.name}.npz"
        if path.exists():
            continue
        began = time.time()
        folder = arguments.work / run.source / run.name
        poses, joints = sources[run.source]
        train(run.configuration, run.seeds, poses, folder, threads=1)
        label(run, poses, joints, folder, path)
        shutil.rmtree(folder)
        print(f"{run.source}/{run.name}: {time.time() - began:.0f} s", flush=True)


def source(name: str, motion: Path, folder: Path) -> tuple[Poses, npt.NDArray[np.float32]]:
    """Poses and true joints of one source; people are imported as a user would, split by name."""
    if name == "procedural":
        return generate(20_000, PROCEDURAL_SEED, cameras=4)
    _, held_out = HALVES[name]
    aside = [*ASIDE, *(person for half in HALVES if half != name for person in (*HALVES[half][0], HALVES[half][1]))]
    prefix = folder / name
    if not prefix.with_suffix(".truth3d.h5").exists():
        folder.mkdir(parents=True, exist_ok=True)
        splits = [f"validation_subjects=[{held_out}]", f"test_subjects=[{','.join(aside)}]"]
        command = [sys.executable, "-m", "tips_dist.cli", "data", "import", "cmu", str(motion), "-o", str(prefix)]
        subprocess.run([*command, *(word for one in splits for word in ("--set", one))], check=True)
    poses = read_poses(prefix.with_suffix(".pose2d.h5"))
    return poses, read_truth(prefix.with_suffix(".truth3d.h5"), poses).joints


def label(run: Run, poses: Poses, joints: npt.NDArray[np.float32], folder: Path, path: Path) -> None:
    """Write the signals, true errors and truly mirrored shares of one trained run."""
    configuration, representation = run.configuration, REPRESENTATIONS[run.representation]
    scale = normalisation_scale(poses)
    several = validation_set(poses, configuration, scale)
    one = replace(several, instants=None)
    bench = Bench.of(poses, joints, validation_rows(poses, configuration.training.validation_poses), scale)
    names, steps, recorded = _recorded(run, folder)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "steps": steps, "seeds": np.array(run.seeds), "averaged_names": np.array(names), "averaged_signals": recorded,
    }  # fmt: skip
    alive = np.isfinite(recorded[..., names.index("rigidity/bone_ratio_variance")])
    for kind, file in KINDS.items():
        depths = np.load(folder / file, mmap_mode="r")[: len(steps)].astype(np.float32)
        found = signals.from_depths(depths, several, representation)
        alone = signals.from_depths(depths, one, representation)
        changed = [name for name in sorted(alone) if not np.array_equal(alone[name], found[name], equal_nan=True)]
        arrays.setdefault(f"{kind}_names", np.array(sorted(found)))
        arrays.setdefault(f"{kind}_signals", _stacked(found, sorted(found), alive))
        arrays[f"{kind}_one_camera_names"] = np.array(changed, dtype=np.str_)
        arrays[f"{kind}_one_camera"] = _stacked(alone, changed, alive)
        per_seed = [error_curves(bench, depths[:, seed], run.representation) for seed in range(len(run.seeds))]
        errors = np.stack([curves["n_mpjpe_resolved"] for curves in per_seed], axis=1)
        arrays[f"{kind}_errors"] = np.where(alive, errors, np.nan).astype(np.float32)
        arrays[f"{kind}_mirrored"] = np.where(alive, mirrored_share(bench, depths), np.nan).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **{name: _rounded(array) for name, array in arrays.items()})  # type: ignore[arg-type]

    write_with(path, save)


def _recorded(run: Run, folder: Path) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """What the run's own history says: names, steps (E,), signals (E, S, K)."""
    rows = list(read_json_lines(folder / "history.jsonl"))
    names = sorted({name for row in rows for name in row if "/" in name and name != "risk/total"})
    steps = np.array(sorted({int(row["step"]) for row in rows}))
    table = np.full((len(steps), len(run.seeds), len(names)), np.nan, np.float32)
    for row in rows:
        place = np.searchsorted(steps, row["step"]), run.seeds.index(row["seed"])
        table[place] = [np.nan if row.get(name) is None else row[name] for name in names]
    return names, steps, table


def _stacked(found: Mapping[str, Tensor], names: list[str], alive: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Signals (E, S, K) of those names, NaN where the seed is not finite."""
    if not names:
        return np.zeros((*alive.shape, 0), np.float32)
    table = np.stack([found[name].numpy() for name in names], axis=-1).astype(np.float32)
    return np.where(alive[..., None] & np.isfinite(table), table, np.float32(np.nan))


def _rounded(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype != np.float32:
        return array
    return (np.ascontiguousarray(array).view(np.uint32) & MANTISSA).view(np.float32)


def load(
    bank: Path = BANK,
    *,
    cameras: str = "several",
    kinds: tuple[str, ...] = tuple(KINDS),
    lengths: tuple[str, ...] = ("long", "short"),  # what rules are made and judged with; "middle": see ``knobs``
) -> Iterator[Curves]:
    """Every labelled run as ``several`` cameras or ``one`` see it, one :class:`Curves` per kind of weights."""
    for run in (run for run in runs() if run.length in lengths):
        path = bank / run.source / f"{run.name}.npz"
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as file:
            for kind in kinds:
                names = [str(name) for name in file[f"{kind}_names"]]
                found = {name: file[f"{kind}_signals"][..., k].astype(np.float64) for k, name in enumerate(names)}
                if cameras == "one":
                    found = {name: values for name, values in found.items() if not name.startswith("agreement/views")}
                    changed = [str(name) for name in file[f"{kind}_one_camera_names"]]
                    for k, name in enumerate(changed):
                        found[name] = file[f"{kind}_one_camera"][..., k].astype(np.float64)
                errors, mirrored = (file[f"{kind}_{what}"].astype(np.float64) for what in ("errors", "mirrored"))
                yield Curves(run, kind, file["steps"].astype(np.float64), found, errors, mirrored, cameras)


if __name__ == "__main__":
    main()
