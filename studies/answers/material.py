"""What answers are made of: every seed of a run with its signals, its true errors and what was selected."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tips_dist.bootstrap import Statistic, mean_over_groups
from tips_dist.config import Configuration
from tips_dist.data.store import Poses, normalised, read_poses
from tips_dist.evaluation import metrics
from tips_dist.evaluation.evaluate import labelled_histories, true_curves
from tips_dist.evaluation.histories import LabelledHistory
from tips_dist.evaluation.measuring import MIRRORED, Bench, predict, signed
from tips_dist.evaluation.truth import Truth, read_truth
from tips_dist.files import UserError
from tips_dist.geometry import resolve_signs
from tips_dist.models import BaseLifter, load_weights
from tips_dist.replay import choosable
from tips_dist.runfolder import RunFolder, Selection, Trial
from tips_dist.runfolder.results import SeedErrors
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.study.space import objective
from tips_dist.training.checkpoint import load as load_state
from tips_dist.training.state import State

Array = npt.NDArray[np.float64]
RESOLVED = "n_mpjpe_resolved"
Rows = npt.NDArray[np.signedinteger[Any]]
History = TypeVar("History", bound=LabelledHistory)


@dataclass(frozen=True, eq=False, kw_only=True)
class StudiedSeed(LabelledHistory):
    """One seed of a run; its risks are there only where a checkpoint may be chosen (outside mirror crossings)."""

    configuration: Configuration  # its trial's
    truth: SeedErrors  # what evaluation.json says of it
    raw: LabelledHistory | None  # the same seed by its raw weights, where both were judged
    file: str | None  # the selected candidate, below the run folder
    part_signs: tuple[int, ...]

    def at(self, checkpoint: str, metric: str = RESOLVED) -> float:
        """A metric in mm of the ``selected``, ``best``, ``last`` or ``random`` checkpoint; NaN where there is none."""
        errors = self.truth.of(checkpoint)
        found = None if errors is None else errors.of(metric)
        return float("nan") if found is None else found

    def raw_at(self, checkpoint: str) -> float:
        """The same of the raw weights; ``selected``: at the step that was selected, ``best``: at their own oracle's."""
        assert self.raw is not None  # asked of studies that judge both
        chosen = self.truth.selected
        if checkpoint == "selected":
            return float("nan") if chosen is None else float(self.raw.errors[self.steps.index(chosen.step or 0)])
        return float(np.nanmin(self.raw.errors) if checkpoint == "best" else self.raw.errors[-1])

    def until(self, step: int) -> StudiedSeed:
        """The first part of the seed, as if its training had ended there; what was selected is told anew."""
        kept = int(np.searchsorted(self.steps, step, side="right"))
        cut = _first(self, kept, step)
        return dataclasses.replace(cut, raw=None if self.raw is None else _first(self.raw, kept, step))


def _first(history: History, kept: int, budget: int) -> History:
    mirrored = None if history.mirrored is None else history.mirrored[:kept]
    return dataclasses.replace(history, steps=history.steps[:kept], values=history.values[:kept],
                               risks=history.risks[:kept], errors=history.errors[:kept], mirrored=mirrored,
                               budget=budget)  # fmt: skip


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

    def lifters(self, representation: str) -> list[tuple[BaseLifter, StudiedSeed]]:
        """The selected lifters of a representation's chosen configuration, with their seeds."""
        return [(load_weights(self.path / seed.file)[0], seed) for seed in self.of(representation) if seed.file]


def load(path: Path, ground: Ground) -> Material:
    """Read a run folder that was evaluated against truth.

    Raises:
        UserError: it is no run folder, or has not been evaluated or selected yet.
    """
    run = RunFolder(path)
    if run.evaluation is None or run.selection is None:
        raise UserError(f"{path}: not evaluated yet; `tips-dist evaluate {path} --truth FILE` first")
    selected = {(row.trial, row.seed): row for row in run.selection.seeds}
    trials = {trial.id: trial for trial in run.trials if trial.outcome is not None}
    raw = true_curves(run, ground.poses, ground.truth, raw=True)[0]
    histories = []
    for history in labelled_histories(path, ground.truth.path):
        truth, choice = run.evaluation.errors(history.trial, history.seed), selected.get((history.trial, history.seed))
        if history.trial not in trials or truth is None or choice is None:
            continue
        known = {field.name: getattr(history, field.name) for field in dataclasses.fields(LabelledHistory)}
        known["risks"] = choosable(history).risks
        of_raw = raw.of(history.trial, history.seed)
        beside = None
        if of_raw is not None and len(of_raw.steps) == len(history.steps):
            beside = LabelledHistory(**known | {name: of_raw.errors[key] for name, key in _RAW.items()})
        histories.append(
            StudiedSeed(
                **known,
                configuration=trials[history.trial].configuration,
                truth=truth,
                raw=beside,
                file=choice.file,
                part_signs=tuple(choice.part_signs or ()),
            )
        )
    chosen = {name: _lowest(trials.values(), name) for name in run.representations}
    return Material(run, histories, chosen)


_RAW = {"errors": RESOLVED, "mirrored": MIRRORED}


def as_left(folder: Path, configuration: Configuration, seeds: Sequence[int]) -> State:
    """A trial's players as training left them in its folder.

    Raises:
        UserError: there is no checkpoint.
    """
    stored = load_state(folder / "checkpoint")
    if stored is None:
        raise UserError(f"{folder}: no checkpoint there")
    state = State(configuration, tuple(seeds), torch.device("cpu"))
    state.restore(*stored)
    return state


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
    """Poses and truth, and the test poses split into actions that were trained on and actions that were not."""

    poses: Poses
    truth: Truth

    @staticmethod
    def read(prefix: Path) -> Ground:
        """Read both files of a data set, PREFIX.pose2d.h5 and PREFIX.truth3d.h5."""
        data = read_poses(Path(f"{prefix}.pose2d.h5"))
        return Ground(data, read_truth(Path(f"{prefix}.truth3d.h5"), data))

    @functools.cached_property
    def actions(self) -> npt.NDArray[np.str_]:
        """The action of every pose, (N,)."""
        names = np.array([metrics.action(name) for name in self.poses.sequence_names])
        return np.asarray(names[self.poses.sequence])

    @functools.cached_property
    def lacking(self) -> tuple[str, ...]:
        """Actions of test poses that training does not have."""
        test, train = (set(self.actions[self.poses.rows(split)].tolist()) for split in ("test", "train"))
        return tuple(sorted(test - train))

    @functools.cached_property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """Which test poses show an action that training lacks, (n,)."""
        return np.isin(self.actions[self.poses.rows("test")], self.lacking)

    def inputs(self, split: str, scale: float, most: int | None = None) -> torch.Tensor:
        """Normalised poses (n, 17, 2) of a split, at most so many, evenly spaced."""
        rows = self.poses.rows(split)
        rows = rows[:: max(1, len(rows) // most)][:most] if most else rows
        return torch.from_numpy(normalised(self.poses, rows, scale))

    def pose_errors(self, weights: Path, split: str = "test", *, resolved: bool = True) -> Array:
        """N-MPJPE of weights at each pose of a split (n,), mm; ``resolved``: by the depth signs that they came with."""
        lifter, record = load_weights(weights)
        bench = Bench.of(self.poses, self.truth.joints, self.poses.rows(split), record.scale)
        signs = torch.tensor([record.part_signs], dtype=torch.float64)
        offsets = predict(lifter, bench.inputs)
        if resolved:
            offsets = signed(offsets[None], signs, lifter.representation.name)[0]
        return np.asarray(metrics.n_mpjpe(bench.lift(offsets), bench.truth).mean(axis=1))

    def test_errors(self, weights: Path, split: str = "test") -> dict[str, float]:
        """Sign-resolved N-MPJPE of weights on a split, mm: ``all``; on test, ``seen`` and ``lacking`` actions too."""
        return self.means(self.pose_errors(weights, split))

    def means(self, errors: Array) -> dict[str, float]:
        """Mean of the errors of a split's poses (n,); see :meth:`test_errors`."""
        found = {"all": float(errors.mean())}
        if len(errors) == len(self.unseen):
            for name, rows in (("seen", ~self.unseen), ("lacking", self.unseen)):
                found[name] = float(errors[rows].mean()) if rows.any() else float("nan")
        return found

    def over_people(self, errors: Array) -> dict[str, Statistic]:
        """The same of the test poses' errors, with its interval when whole people are drawn anew."""
        people = self.poses.subject[self.poses.rows("test")].astype(np.intp)
        kinds = {"all": np.ones_like(self.unseen), "seen": ~self.unseen, "lacking": self.unseen}
        return {name: mean_over_groups(errors[rows], people[rows]) for name, rows in kinds.items()}

    def last_errors(self, study: Material, representation: str) -> dict[str, list[float]]:
        """Test errors of every seed's ``averaged`` and ``raw`` weights as training left them; signs are told."""
        trial = study.chosen[representation]
        seeds = study.of(representation)
        folder = study.path / "trials" / trial
        state = as_left(folder, seeds[0].configuration, [one.seed for one in seeds])
        bench = Bench.of(self.poses, self.truth.joints, self.poses.rows("test"), study.folder.study.data.scale)
        parts = REPRESENTATIONS[representation]
        found: dict[str, list[float]] = {}
        for name, lifter in (("averaged", state.judged), ("raw", state.lifter)):
            lifter.eval()
            inputs = bench.inputs.float().expand(len(seeds), *bench.inputs.shape)
            with torch.inference_mode():
                offsets = lifter(inputs).double()
            signs = resolve_signs(bench.inputs.float(), offsets.float(), parts)[0]
            turned = signed(offsets, signs.double(), representation)
            found[name] = [float(metrics.n_mpjpe(bench.lift(one), bench.truth).mean(axis=1).mean()) for one in turned]
        return found
