"""What answers are made of: every seed of a run with its signals, its true errors and what was selected."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.stability.labels import History
from tips_dist.config import Configuration, validate
from tips_dist.data.store import Poses, normalised, read_poses, read_record
from tips_dist.evaluation import metrics
from tips_dist.evaluation.judge import Bench, predict, signed
from tips_dist.evaluation.truth import Truth, read_truth
from tips_dist.files import UserError
from tips_dist.models import load_weights
from tips_dist.report.reading import RunFolder, read_run
from tips_dist.runfolder import Outcome
from tips_dist.study.space import objective

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeedHistory(History):
    """One seed of a run; ``run`` is its trial, ``errors`` the sign-resolved N-MPJPE of each evaluation step, mm.

    Steps that a seed did not live to see are there all the same, without signals or risk, and with an error of NaN.
    """

    settings: dict[str, Any] = field(default_factory=dict)  # the trial's full configuration
    truth: dict[str, Any] = field(default_factory=dict)  # what evaluation.json says of it
    file: str | None = None  # the selected candidate, below the run folder
    part_signs: tuple[int, ...] = ()
    recorded: tuple[float | None, ...] = ()  # the risk of each evaluation step as the run recorded and used it

    @functools.cached_property
    def risks(self) -> Array:
        """(E,) the recorded risk; NaN where there was none."""
        return np.array([np.nan if value is None else value for value in self.recorded], dtype=np.float64)

    def configuration(self) -> Configuration:
        """The configuration it was trained with."""
        return validate(Configuration, self.settings, where=self.run)

    def at(self, checkpoint: str, metric: str = "n_mpjpe_resolved") -> float:
        """A metric in mm of the ``selected``, ``best``, ``last`` or ``random`` checkpoint; NaN where there is none."""
        found = (self.truth.get(checkpoint) or {}).get(metric)
        return float("nan") if found is None else float(found)


@dataclass(frozen=True)
class Material:
    """A finished, evaluated run: its folder, its seeds, and each representation's chosen trial."""

    folder: RunFolder
    histories: list[SeedHistory]
    chosen: dict[str, str]

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.folder

    def of(self, representation: str) -> list[SeedHistory]:
        """The seeds of a representation's chosen configuration."""
        return [history for history in self.histories if history.run == self.chosen[representation]]

    def trials(self, representation: str | None = None) -> dict[str, list[SeedHistory]]:
        """The seeds of every trial (of a representation)."""
        found: dict[str, list[SeedHistory]] = {}
        for history in self.histories:
            if representation in (None, history.representation):
                found.setdefault(history.run, []).append(history)
        return found

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The searched values of every trial."""
        return {trial["id"]: trial.get("parameters", {}) for trial in self.folder.trials}


def load(path: Path) -> Material:
    """Read a run folder that was evaluated against truth.

    Raises:
        UserError: it is no run folder, or has not been evaluated or selected yet.
    """
    run = read_run(path, curves=True)
    if run.evaluation is None or run.selection is None:
        raise UserError(f"{path}: not evaluated yet; `tips-dist evaluate {path} --truth FILE` first")
    selected = {(row["trial"], row["seed"]): row for row in run.selection["seeds"]}
    histories, worth = [], {}
    for trial in run.trials:
        if trial.get("outcome") is None:
            continue
        value = objective(Outcome.model_validate(trial["outcome"]), ["risk"])
        worth[trial["id"]] = (value[0] if value else np.inf, trial["representation"])
        rows: dict[int, list[dict[str, Any]]] = {}
        for row in run.history(trial["id"]):
            rows.setdefault(row["seed"], []).append(row)
        for seed in trial["seeds"]:
            if seed in rows and run.truth(trial["id"], seed):
                histories.append(_seed(run, trial, seed, rows[seed], selected[trial["id"], seed]))
    chosen = {
        name: min((value, trial) for trial, (value, of) in worth.items() if of == name)[1]
        for name in run.representations
    }
    return Material(run, histories, chosen)


def _seed(
    run: RunFolder, trial: dict[str, Any], seed: int, rows: list[dict[str, Any]], selected: dict[str, Any]
) -> SeedHistory:
    truth, training = run.truth(trial["id"], seed), trial["configuration"]["training"]
    errors = [np.nan if value is None else value for value in truth["n_mpjpe_resolved"]]
    steps = range(training["evaluate_every"], training["steps"] + 1, training["evaluate_every"])
    missing = len(steps) - len(rows)  # of a seed that ended early, as one that is no longer finite does
    nothing = dict.fromkeys(rows[0])
    return SeedHistory(
        run=trial["id"],
        representation=trial["representation"],
        recipe="",
        seed=seed,
        steps=tuple(steps),
        rows=[{name: value for name, value in row.items() if "/" in name} for row in rows + missing * [nothing]],
        errors=np.array(errors + missing * [np.nan], dtype=np.float64),
        settings=trial["configuration"],
        truth=truth,
        file=selected["file"],
        part_signs=tuple(selected.get("part_signs") or ()),
        recorded=tuple(row["risk"] for row in rows + missing * [nothing]),
    )


@dataclass(frozen=True)
class Ground:
    """Poses and truth, and the test poses split into actions that were trained on and actions left out."""

    poses: Poses
    truth: Truth
    left_out: tuple[str, ...]

    @staticmethod
    def read(poses: Path, truth: Path) -> Ground:
        """Read both files of a data set."""
        data = read_poses(poses)
        return Ground(data, read_truth(truth, data), tuple(read_record(poses)["options"].get("leave_out", ())))

    def unseen(self) -> npt.NDArray[np.bool_]:
        """Which test poses show an action that was left out of training, (n,)."""
        rows = self.poses.rows("test")
        names = np.array([name.split("/")[0] in self.left_out for name in self.poses.sequence_names])
        return np.asarray(names[self.poses.sequence[rows]])

    def inputs(self, split: str, scale: float, most: int | None = None) -> torch.Tensor:
        """Normalised poses (n, 17, 2) of a split, at most so many, evenly spaced."""
        rows = self.poses.rows(split)
        rows = rows[:: max(1, len(rows) // most)][:most] if most else rows
        return torch.from_numpy(normalised(self.poses, rows, scale))

    def test_errors(self, weights: Path) -> dict[str, float]:
        """Sign-resolved N-MPJPE of weights on test poses, mm: ``all``, ``seen`` actions and actions ``left_out``."""
        lifter, record = load_weights(weights)
        bench = Bench.of(self.poses, self.truth.joints, self.poses.rows("test"), record.scale)
        signs = torch.tensor([record.part_signs], dtype=torch.float64)
        offsets = signed(predict(lifter, bench.inputs)[None], signs, lifter.representation.name)[0]
        errors = metrics.n_mpjpe(bench.lift(offsets), bench.truth).mean(axis=1)
        unseen = self.unseen()
        return {
            "all": float(errors.mean()),
            "seen": float(errors[~unseen].mean()),
            "left_out": float(errors[unseen].mean()),
        }
