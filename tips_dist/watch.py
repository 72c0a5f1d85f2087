"""The judge for training loops that are not ours: signals, risk, verdict and what to keep, from 2D poses alone.

    watch = Watch(poses, lift, "runs/mine", steps=20_000, every=500, save=save_checkpoint)
    for step in range(1, 20_001):
        ...                                       # your own training step
        if watch.due(step) and watch.check(step).stop:
            break
    watch.finish()

What it writes is a run folder with one trial of one seed, so ``summary``, ``report``, ``status`` and ``scorecard`` work
on it. The same call after a crash goes on with the history it finds there.

**Units.** ``lift`` takes 2D poses (N, 17, 2) centred on the hip, y down, whose mean distance from hip to head is 1, and
gives depths (N, 17) against the hip in the same unit, away from the camera; a network with units of its own converts
there. NumPy arrays in and out; ``tensors=True`` passes torch tensors instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tips_dist import losses
from tips_dist.data.store import Poses
from tips_dist.files import UserError
from tips_dist.foreign import ForeignRun, foreign_study, opened_poses
from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.runfolder import TrialState, layout
from tips_dist.skeleton import REPRESENTATIONS, ROOT, Representation
from tips_dist.stability import signals
from tips_dist.stability.detectors import Recipe
from tips_dist.stability.verdicts import Verdict, ends_seed
from tips_dist.training.validation import validation_set

Function = Callable[[Any], Any]
Save = Callable[[Path], object]


@dataclass(frozen=True)
class Seen:
    """What one look found."""

    step: int
    signals: Mapping[str, float | None]
    risk: float | None  # lower is better; None where it cannot be told
    verdict: Verdict
    best_step: int | None  # the checkpoint to keep: the lowest risk before any onset of trouble
    is_best: bool  # this step is that checkpoint
    stop: bool  # the verdict ends the run

    def metrics(self) -> dict[str, float | int | str | bool]:
        """All of it as flat plain values, for whatever keeps metrics: NaN is what was not finite.

        A risk that cannot be told is absent.
        """
        found: dict[str, float | int | str | bool] = {
            name: math.nan if value is None else value
            for name, value in self.signals.items()
            if name != "risk/total" or value is not None
        }
        found |= {"step": self.step, "verdict": self.verdict.kind, "reason": self.verdict.reason, "stop": self.stop}
        return found if self.best_step is None else {**found, "best_step": self.best_step}


class Watch:
    """Looks at a lifter every so many steps; see the module."""

    def __init__(
        self,
        poses: Poses | Path | str | npt.ArrayLike,
        lift: Function,
        folder: Path | str,
        *,
        steps: int,
        every: int,
        discriminate: Function | None = None,
        real_label: float = 1.0,
        subjects: npt.ArrayLike | None = None,
        instants: npt.ArrayLike | None = None,
        representation: str = "solo",
        name: str = "watch",
        seed: int = 0,
        save: Save | None = None,
        keep: int = 2,
        tensors: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin to watch, or go on with what ``folder`` holds.

        Args:
            poses: held-out 2D poses: an array (N, 17, 2) in pixels, a pose2d file, or an opened data set, of which the
                validation split is used. They are what is judged on, so the loop must not train on them.
            lift: depths of poses, see the module for units.
            folder: the run folder to make.
            steps: how many steps the run is to take at most; a multiple of ``every``.
            every: steps between two looks.
            discriminate: (N, 17, 2) in the same unit -> (N,) scores, ``real_label`` for real poses and 0 for others.
            real_label: see ``discriminate``.
            subjects: (N,) whose pose each is, for an array; bones are constant within a person. None: one person.
            instants: (N,) for an array: rows with the same number are views of one moment. None: a single camera.
            representation: which joints have a depth sign of their own; ``solo`` for a whole-pose network.
            name, seed: of the run, for tables.
            save: writes a checkpoint to the path that it is given; called when a risk is among the lowest. Without it
                the loop keeps checkpoints itself, by :attr:`Seen.is_best`.
            keep: how many of them are kept.
            tensors: ``lift`` and ``discriminate`` take torch tensors.
            settings: sections of a study file: ``stopping``, ``training.signals`` and so on.

        Raises:
            UserError: poses of another shape, too few of them, or a folder that holds another run.
        """
        self.folder, self.lift, self.discriminate, self.save = Path(folder), lift, discriminate, save
        self.real_label, self.keep, self.tensors, self.seed = real_label, keep, tensors, seed
        given = opened_poses(poses, subjects, instants)
        study = foreign_study(
            "Watch", name, steps=steps, every=every, representation=representation, seed=seed, settings=settings
        )
        self.configuration = study.configuration(representation)
        self.representation: Representation = REPRESENTATIONS[representation]
        run = ForeignRun(self.folder, study, given, poses)
        self.validation = validation_set(given, self.configuration, run.scale)
        self.trial = run.trial(seeds=[seed], recipe=Recipe(real_label=real_label))
        self.judge = self.trial.judges[seed]
        self.best: list[tuple[float, int]] = []  # risks and steps of the checkpoints kept, lowest first
        self.step = 0
        if run.is_new:
            self.trial.write(TrialState.RUNNING)
        for row in self.trial.go_on():
            self._keep(row.step, row.risk, fresh=False)

    # ------------------------------------------------------------------ looking

    def due(self, step: int) -> bool:
        """Whether ``step`` is one to look at."""
        return step > self.step and step % self.configuration.training.evaluate_every == 0

    def check(self, step: int, numbers: Mapping[str, float] | None = None) -> Seen:
        """Look at the lifter as it is now, after ``step`` steps.

        Args:
            step: how many steps were taken; looks come in order.
            numbers: losses and other numbers of the loop, ``"generator/loss": 0.3``; one that is not finite ends the
                run. ``discriminator/loss`` (least squares, its mean over real and fake) feeds two detectors.

        Raises:
            UserError: the functions gave another shape, or the step is not after the last.
        """
        if step <= self.step:
            raise UserError(f"{self.folder}: step {step} was looked at already (the history ends at {self.step})")
        measured = signals.measure(
            cast("Any", _Lifter(self)),
            cast("Any", _Discriminator(self)),
            self.validation,
            self.real_label,
            self._joints,
        )
        found = dict(measured.signals)
        if self.discriminate is None:
            found = {name: value for name, value in found.items() if not name.startswith("discriminator/")}
        named = self.configuration.training.signals
        found |= signals.further(named, self.validation, measured, self.representation)
        given = {name if "/" in name else f"loop/{name}": value for name, value in (numbers or {}).items()}
        found |= {name: torch.tensor([float(value)]) for name, value in given.items()}
        (row,) = signals.readings(found)
        rows = self.trial.judge(step, {self.seed: (row, row["risk/total"])})
        is_best = self._keep(step, row["risk/total"], fresh=True)
        self.trial.keep_depths(step, measured.depths.numpy())
        self.trial.keep(rows)  # last: whatever the history tells of is there
        verdict = self.judge.verdict
        stop = ends_seed(verdict.kind, self.configuration.stopping)
        return Seen(step, row, row["risk/total"], verdict, self.best_step, is_best and not stop, stop)

    def _keep(self, step: int, risk: float | None, *, fresh: bool) -> bool:
        """Keep the checkpoint if its risk is among the lowest; whether it is the lowest."""
        self.step = step
        if risk is None or (len(self.best) >= self.keep and risk >= self.best[-1][0]):
            return False
        is_best = not self.best or risk < self.best[0][0]
        if fresh and self.save is not None:
            self._path(step).parent.mkdir(parents=True, exist_ok=True)
            self.save(self._path(step))
        self.best = sorted([*self.best, (risk, step)])
        for _, dropped in self.best[self.keep :]:
            self._path(dropped).unlink(missing_ok=True)
        del self.best[self.keep :]
        return is_best

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint to keep: the lowest risk of those that are not tainted by a later verdict."""
        return next((step for _, step in self.best if self.judge.may_choose(step)), None)

    @property
    def best_checkpoint(self) -> Path | None:
        """Where ``save`` wrote it."""
        return None if self.best_step is None or self.save is None else self._path(self.best_step)

    def finish(self) -> Path:
        """Say that the run has ended; returns the run folder."""
        self.trial.write(TrialState.FINISHED)
        return self.folder

    @property
    def _joints(self) -> Tensor:
        return losses.joint_weights(self.representation)

    def _path(self, step: int) -> Path:
        return layout.trial_folder(self.folder, self.trial.record.id) / "kept" / f"step-{step:09d}"


@dataclass
class _Lifter:
    """The foreign lifter as signals want one: packed, normalised."""

    watch: Watch
    seeds: int = 1

    @property
    def representation(self) -> Representation:
        return self.watch.representation

    def __call__(self, poses: Tensor) -> Tensor:
        return _called(self.watch.lift, "lift", poses, self.watch.tensors, (poses.shape[1], 17))


@dataclass
class _Discriminator:
    watch: Watch
    middle: float = 0.5

    def __call__(self, poses: Tensor) -> Tensor:
        if self.watch.discriminate is None:
            return torch.full(poses.shape[:2], self.middle)
        return _called(self.watch.discriminate, "discriminate", poses, self.watch.tensors, (poses.shape[1],))


def _called(function: Function, name: str, poses: Tensor, tensors: bool, shape: tuple[int, ...]) -> Tensor:
    given = poses[0] * CAMERA_DISTANCE
    found = function(given) if tensors else function(given.numpy())
    result = found.detach().cpu() if isinstance(found, Tensor) else torch.from_numpy(np.array(found, np.float32))
    if tuple(result.shape) != shape:
        raise UserError(f"{name}: gave {tuple(result.shape)} for poses {tuple(given.shape)}, expected {shape}")
    result = result.float()
    if name == "lift":
        result = result - result[:, ROOT : ROOT + 1]
    return result[None]
