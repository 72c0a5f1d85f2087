"""Curves that already exist become a run folder: a table of numbers per step and, if there are any, saved depths.

    run = import_history("curves.csv", "runs/old", poses="held-out.pose2d.h5", depths="depths.npy")

The table is a CSV file with a header: ``step``, perhaps ``seed`` and ``trial``, perhaps ``risk`` (lower is better), and
any further numbers. A column with a group keeps its name (``generator/loss``), one without becomes ``loop/NAME``. An
empty cell was not measured; ``nan`` and ``inf`` were, and end the seed in the verdict ``non_finite``.

With the depths of held-out poses, all signals that need no network are computed from them, and the risk: those runs are
judged as ours are. Without them verdicts follow from the numbers of the table alone, and ``risk`` is what it says.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tips_dist.data.store import Poses
from tips_dist.files import UserError, check_file, half_folder, read_text, shown, storage_error
from tips_dist.foreign import ForeignRun, ForeignTrial, foreign_study, opened_poses
from tips_dist.runfolder import History, RunFolder, TrialState, layout
from tips_dist.skeleton import REPRESENTATIONS, ROOT
from tips_dist.stability import signals
from tips_dist.stability.detectors import Recipe
from tips_dist.stability.risk import risk as risk_of
from tips_dist.training.validation import validation_rows, validation_set

OWN = ("step", "seed", "trial", "risk")
_Values = dict[str, float | None]
Depths = npt.NDArray[np.floating[Any]]


@dataclass
class _Seed:
    """One seed of the table, in order: steps, the numbers of each, the risks that the table gives."""

    steps: list[int] = field(default_factory=list)
    values: list[_Values] = field(default_factory=list)
    risks: list[float | None] = field(default_factory=list)


_Table = dict[str, dict[int, _Seed]]  # trial -> seed -> its rows


def import_history(
    table: Path | str,
    folder: Path | str,
    *,
    poses: Poses | Path | str | npt.ArrayLike | None = None,
    depths: Path | str | npt.ArrayLike | None = None,
    subjects: npt.ArrayLike | None = None,
    instants: npt.ArrayLike | None = None,
    columns: Mapping[str, str] | None = None,
    steps: int | None = None,
    representation: str = "solo",
    real_label: float = 1.0,
    name: str = "imported",
    settings: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Make a run folder of the curves of runs that are over.

    Args:
        table: a CSV file, see the module.
        folder: the run folder to make.
        poses: the held-out 2D poses that the depths belong to, as for :class:`tips_dist.Watch`.
        depths: an array or .npy file: (E, V, 17) for one trial of one seed, (E, S, V, 17) for one trial of S seeds,
            (T, E, S, V, 17) for several trials, in the order of the table. Row e belongs to a seed's e-th row in the
            table, V are all ``poses`` (of a data set: its validation split) in their order. Against the hip, in mean
            root-to-head distances, away from the camera.
        subjects, instants: of an array of poses, as for :class:`tips_dist.Watch`.
        columns: other names of columns: ``{"epoch": "step", "d_loss": "discriminator/loss"}``.
        steps: how many steps the runs were to take; None: the last of the table.
        representation: which joints have a depth sign of their own; ``solo`` for a whole-pose network.
        real_label: what the discriminator was to say of real poses.
        name: of the run.
        settings: sections of a study file, ``stopping`` say.

    Raises:
        UserError: file, row and column of what is wrong; nothing is left behind.
    """
    path, run_folder = Path(table), Path(folder)
    if layout.STUDY.at(run_folder).exists():
        raise UserError(f"{run_folder}: holds a run already; choose another folder")
    if (poses is None) != (depths is None):
        raise UserError(
            "import_history: depths need the poses that they belong to, and poses without depths say nothing"
        )
    found = _read(path, columns or {})
    every_step = [step for seeds in found.values() for one in seeds.values() for step in one.steps]
    most, every = steps or max(every_step), math.gcd(*every_step)
    if most < max(every_step):
        raise UserError(f"steps: {most}, but {path} goes to step {max(every_step)}")
    study = foreign_study(
        "import_history",
        name,
        steps=most + -most % every,
        every=every,
        representation=representation,
        seeds=max(len(seeds) for seeds in found.values()),
        settings=settings,
    )
    given = None if poses is None else opened_poses(poses, subjects, instants)
    lifted = None if given is None else _Lifted(given, depths, found)
    half = half_folder(run_folder, run_folder.name)
    try:
        run = ForeignRun(half, study, given, poses)
        for number, (trial_name, seeds) in enumerate(found.items()):
            parameters = {"trial": trial_name} if len(found) > 1 else {}
            trial = run.trial(number, seeds=list(seeds), parameters=parameters, recipe=Recipe(real_label=real_label))
            if lifted is not None:
                lifted.measure(number, seeds, trial, run.scale)
            _record(trial, seeds, half)
        half.rename(run_folder)
    except OSError as error:
        raise storage_error(run_folder, error) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return RunFolder(run_folder)


def _record(trial: ForeignTrial, seeds: Mapping[int, _Seed], folder: Path) -> None:
    """Judge the rows step by step, as if they came now."""
    by_step: dict[int, dict[int, tuple[_Values, float | None]]] = defaultdict(dict)
    for seed, one in seeds.items():
        for step, values, risk in zip(one.steps, one.values, one.risks, strict=True):
            by_step[step][seed] = values, risk
    rows = []
    for step in sorted(by_step):
        now = trial.judge(step, by_step[step])
        trial.show(now)
        rows += now
    History(rows).save(layout.HISTORY.at(folder, trial.record.id))
    trial.write(TrialState.FINISHED)


class _Lifted:
    """Saved depths, and the signals that follow from them."""

    def __init__(self, poses: Poses, depths: Any, table: _Table) -> None:
        self.poses, self.held_out = poses, poses.rows("validation")
        array, where = _array(depths)
        seeds = max(len(one) for one in table.values())
        while array.ndim < 5:  # (E, V, 17) -> (E, 1, V, 17) -> (1, E, 1, V, 17)
            array = array[None] if array.ndim == 4 else array[:, None]
        evaluations = max(len(one.steps) for trial in table.values() for one in trial.values())
        wanted = (len(table), evaluations, seeds, len(self.held_out), 17)
        if array.shape != wanted:
            raise UserError(
                f"{where}: {tuple(array.shape)} (trials, evaluations, seeds, poses, joints), expected {wanted}: the "
                "table's trials, most rows of a seed and seeds, the held-out poses, 17 joints"
            )
        self.depths = array

    def measure(self, number: int, seeds: Mapping[int, _Seed], trial: ForeignTrial, scale: float) -> None:
        """Add the signals of each row, and its risk; record the depths of the poses that are judged on."""
        configuration = trial.configuration
        validation = validation_set(self.poses, configuration, scale)
        rows = validation_rows(self.poses, configuration.training.validation_poses)
        chosen = np.searchsorted(self.held_out, rows)
        kept: dict[int, npt.NDArray[np.float32]] = {}
        for place, one in enumerate(seeds.values()):
            depths = np.asarray(self.depths[number, : len(one.steps), place][:, chosen], np.float32)
            depths = depths - depths[..., ROOT : ROOT + 1]
            found = signals.from_depths(depths[:, None], validation, REPRESENTATIONS[configuration.representation])
            lists = {name: values[:, 0].tolist() for name, values in found.items()}
            for index, (step, values) in enumerate(zip(one.steps, one.values, strict=True)):
                values.update({name: _finite(of[index]) for name, of in lists.items()})
                if one.risks[index] is not None:
                    values["loop/risk"] = one.risks[index]
                one.risks[index] = risk_of(values)
                kept.setdefault(step, np.zeros((len(seeds), len(chosen), 17), np.float32))[place] = depths[index]
        for step, depths_then in kept.items():
            trial.keep_depths(step, depths_then)


def _array(depths: Any) -> tuple[Depths, str]:
    where = "depths"
    if isinstance(depths, (str, Path)):
        where = str(depths)
        check_file(Path(depths), "depths")
        try:
            depths = np.load(depths, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header raises a dozen kinds
            raise UserError(f"{where}: not a readable NumPy file ({shown(error)})") from None
    array: Depths = np.asarray(depths.detach().cpu() if isinstance(depths, torch.Tensor) else depths)
    if array.dtype.kind != "f" or not 3 <= array.ndim <= 5 or array.shape[-1] != 17:
        raise UserError(f"{where}: {array.dtype} {array.shape}, expected floats (…, evaluations, poses, 17)")
    return array, where


def _read(path: Path, columns: Mapping[str, str]) -> _Table:
    """The table, row by row."""
    table: _Table = defaultdict(lambda: defaultdict(_Seed))
    for where, row in _rows(path, columns):
        step = _whole(row.pop("step"), f"{where}: step")
        seed = _whole(row.pop("seed", "") or "0", f"{where}: seed")
        one = table[row.pop("trial", "")][seed]
        if step < 1 or (one.steps and step <= one.steps[-1]):
            last = one.steps[-1] if one.steps else 0
            raise UserError(f"{where}: step: found {step}, expected one after {last} (each seed's steps go up)")
        risk = row.pop("risk", "")
        one.steps.append(step)
        one.risks.append(_finite(_number(risk, f"{where}: risk")) if risk else None)
        one.values.append({name: _finite(_number(cell, f"{where}: {name}")) for name, cell in row.items() if cell})
    if not table:
        raise UserError(f"{path}: no rows below the header")
    return {trial: dict(seeds) for trial, seeds in table.items()}


def _rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    lines = csv.reader(read_text(path, "table of curves").splitlines())
    head = [columns.get(cell.strip(), cell.strip()) for cell in next(lines, [])]
    missing = [name for name in columns if columns[name] not in head]
    if missing:
        raise UserError(f"{path}: no column '{shown(missing[0], 60)}'; it has {shown(', '.join(head))}")
    if "step" not in head:
        raise UserError(f"{path}: no column 'step' (columns={{'…': 'step'}} names it); it has {shown(', '.join(head))}")
    names = [name if name in OWN or "/" in name else f"loop/{name}" for name in head]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}: the column '{shown(twice[0], 60)}' stands twice")
    for cells in lines:
        where = f"{path}: line {lines.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise UserError(f"{where}: {len(cells)} cells, expected {len(names)}")
        yield where, dict(zip(names, (cell.strip() for cell in cells), strict=True))


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise UserError(f"{where}: expected a number, found '{shown(cell, 40)}'") from None


def _whole(cell: str, where: str) -> int:
    value = _number(cell, where)
    if not math.isfinite(value) or value != int(value) or not 0 <= value <= 10**9:
        raise UserError(f"{where}: expected a whole number, found '{shown(cell, 40)}'")
    return int(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
