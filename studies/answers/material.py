"""What answers are made of: every seed of a run with its signals, its true errors and what was selected."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tips_dist.config import Configuration
from tips_dist.data.store import Poses, normalised, read_poses, read_record
from tips_dist.evaluation import metrics
from tips_dist.evaluation.histories import LabelledHistory, label
from tips_dist.evaluation.measuring import Bench, predict, signed
from tips_dist.evaluation.truth import Truth, read_truth
from tips_dist.files import UserError
from tips_dist.models import load_weights
from tips_dist.replay import read_histories
from tips_dist.runfolder import RunFolder, Selection, Trial
from tips_dist.runfolder.records import Parameter
from tips_dist.runfolder.results import SeedErrors
from tips_dist.study.space import objective


@dataclass(frozen=True, eq=False, kw_only=True)
class StudiedSeed(LabelledHistory):
    """One seed of a run.

    Steps that a seed did not live to see are there all the same, without signals or risk, and with an error of NaN.
    """

    configuration: Configuration  # its trial's
    truth: SeedErrors  # what evaluation.json says of it
    file: str | None  # the selected candidate, below the run folder
    part_signs: tuple[int, ...]

    def at(self, checkpoint: str, metric: str = "n_mpjpe_resolved") -> float:
        """A metric in mm of the ``selected``, ``best``, ``last`` or ``random`` checkpoint; NaN where there is none."""
        errors = self.truth.of(checkpoint)
        found = None if errors is None else errors.of(metric)
        return float("nan") if found is None else found


@dataclass(frozen=True)
class Material:
    """A finished, evaluated run: its folder, its seeds, and each representation's chosen trial."""

    folder: RunFolder
    histories: list[StudiedSeed]
    chosen: dict[str, str]

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def selection(self) -> Selection:
        """What was selected."""
        assert self.folder.selection is not None  # load refuses a run without
        return self.folder.selection

    def of(self, representation: str) -> list[StudiedSeed]:
        """The seeds of a representation's chosen configuration."""
        return [history for history in self.histories if history.trial == self.chosen[representation]]

    def trials(self, representation: str | None = None) -> dict[str, list[StudiedSeed]]:
        """The seeds of every trial (of a representation)."""
        found: dict[str, list[StudiedSeed]] = {}
        for history in self.histories:
            if representation in (None, history.representation):
                found.setdefault(history.trial, []).append(history)
        return found

    @property
    def parameters(self) -> dict[str, dict[str, Parameter]]:
        """The searched values of every trial."""
        return {trial.id: trial.parameters for trial in self.folder.trials}


def load(path: Path) -> Material:
    """Read a run folder that was evaluated against truth.

    Raises:
        UserError: it is no run folder, or has not been evaluated or selected yet.
    """
    run = RunFolder(path)
    if run.evaluation is None or run.selection is None:
        raise UserError(f"{path}: not evaluated yet; `tips-dist evaluate {path} --truth FILE` first")
    selected = {(row.trial, row.seed): row for row in run.selection.seeds}
    trials = {trial.id: trial for trial in run.trials if trial.outcome is not None}
    histories = []
    for history in read_histories(run):
        curve, truth = run.curves.of(history.trial, history.seed), run.evaluation.errors(history.trial, history.seed)
        if history.trial not in trials or curve is None or truth is None:
            continue
        configuration = trials[history.trial].configuration
        every = configuration.training.evaluate_every
        whole = label(history, curve.errors["n_mpjpe_resolved"], every, whole=True)
        choice = selected[history.trial, history.seed]
        histories.append(
            StudiedSeed(
                **{field.name: getattr(whole, field.name) for field in dataclasses.fields(LabelledHistory)},
                configuration=configuration,
                truth=truth,
                file=choice.file,
                part_signs=tuple(choice.part_signs or ()),
            )
        )
    chosen = {name: _lowest(trials.values(), name) for name in run.representations}
    return Material(run, histories, chosen)


def _lowest(trials: Iterable[Trial], representation: str) -> str:
    """The trial of the lowest risk."""
    worth = []
    for trial in trials:
        if trial.representation == representation and trial.outcome is not None:
            value = objective(trial.outcome, ["risk"])
            worth.append((value[0] if value else np.inf, trial.id))
    return min(worth)[1]


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
        left_out: tuple[str, ...] = ()
        match read_record(poses):
            case {"options": {"leave_out": [*names]}}:
                left_out = tuple(str(name) for name in names)
        return Ground(data, read_truth(truth, data), left_out)

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
