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

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

from tips_dist import losses
from tips_dist.config import Study, check_names, digest, validate
from tips_dist.data.store import NAMES, SPLITS, Poses, normalisation_scale, read_poses, write_dataset
from tips_dist.files import UserError, write_text
from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.runfolder import History, HistoryRow, Outcome, SeedOutcome, StudyRecord, Trial, TrialState, layout
from tips_dist.runfolder.history import append
from tips_dist.runfolder.records import Crossing, DataRecord
from tips_dist.skeleton import HEAD, REPRESENTATIONS, ROOT, Representation
from tips_dist.stability import signals
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.stability.goals import thresholds
from tips_dist.stability.verdicts import Verdict, crossing_at, ends_seed, taints
from tips_dist.training.validation import validation_set

Function = Callable[[Any], Any]
Save = Callable[[Path], object]
POSES = "poses.pose2d.h5"  # in the run folder, where the poses came as an array


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
        given = _opened(poses, subjects, instants)
        study = _study(name, representation, steps, every, seed, settings or {})
        self.configuration = study.configuration(representation)
        self.representation: Representation = REPRESENTATIONS[representation]
        self.scale = _scale(given)
        self.validation = validation_set(given, self.configuration, self.scale)
        stopping = self.configuration.stopping
        levels = thresholds(stopping.policy, stopping.goal)
        self.judge = Judge(steps, Recipe(real_label=real_label), levels, stopping.detectors)
        self.best: list[tuple[float, int]] = []  # risks and steps of the checkpoints kept, lowest first
        self.step, self._began = 0, time.monotonic()
        self._begin(study, given, poses)

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
        found |= {name: torch.tensor([float(value)]) for name, value in (numbers or {}).items()}
        (row,) = signals.readings(found)
        return self._take(HistoryRow(step, self.seed, row["risk/total"], "", row), fresh=True)

    def _take(self, row: HistoryRow, *, fresh: bool) -> Seen:
        """Judge one row, and keep the checkpoint if its risk is among the lowest."""
        verdict = self.judge.update(row.step, row.signals)
        self.step = row.step
        is_best = False
        if row.risk is not None and (len(self.best) < self.keep or row.risk < self.best[-1][0]):
            is_best = not self.best or row.risk < self.best[0][0]
            if fresh and self.save is not None:
                self._path(row.step).parent.mkdir(parents=True, exist_ok=True)
                self.save(self._path(row.step))
            self.best = sorted([*self.best, (row.risk, row.step)])
            for _, dropped in self.best[self.keep :]:
                self._path(dropped).unlink(missing_ok=True)
            del self.best[self.keep :]
        stop = ends_seed(verdict.kind, self.configuration.stopping)
        if fresh:
            append(self._history, [HistoryRow(row.step, row.seed, row.risk, verdict.kind, row.signals)])
            self._write(TrialState.RUNNING)
        return Seen(row.step, row.signals, row.risk, verdict, self.best_step, is_best and not stop, stop)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint to keep: the lowest risk of those that are not tainted by a later verdict."""
        verdict = self.judge.verdict
        inside = self.judge.crossings
        good = [
            step
            for _, step in self.best
            if not taints(verdict.kind, verdict.onset, step)
            and crossing_at(inside, step) is None
            and step >= (self.judge.settled or 0)
        ]
        return good[0] if good else None

    @property
    def best_checkpoint(self) -> Path | None:
        """Where ``save`` wrote it."""
        return None if self.best_step is None or self.save is None else self._path(self.best_step)

    def finish(self) -> Path:
        """Say that the run has ended; returns the run folder."""
        self._write(TrialState.FINISHED)
        return self.folder

    # ------------------------------------------------------------------ the run folder

    @property
    def _trial(self) -> str:
        return f"{self.representation.name}-000"

    @property
    def _history(self) -> Path:
        return layout.HISTORY.at(self.folder, self._trial)

    @property
    def _joints(self) -> Tensor:
        return losses.joint_weights(self.representation)

    def _path(self, step: int) -> Path:
        return layout.trial_folder(self.folder, self._trial) / "kept" / f"step-{step:09d}"

    def _begin(self, study: Study, given: Poses, source: Any) -> None:
        path = layout.STUDY.at(self.folder)
        if path.exists():
            self._go_on(StudyRecord.load(path), study, given)
            return
        is_file = isinstance(source, (str, Path))
        where = str(Path(source).resolve()) if is_file else POSES
        (layout.trial_folder(self.folder, self._trial)).mkdir(parents=True, exist_ok=True)
        if not is_file:
            names = {key: getattr(given, key) for key in NAMES}

            def fill(writer: Any) -> None:
                writer.append(given.columns)
                writer.finish(names, given.source, given.frame_rate_hz)

            write_dataset(self.folder / POSES, None, fill)
        write_text(layout.STUDY_TEXT.at(self.folder), yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True)))
        StudyRecord(
            name=study.name,
            digest=digest(study),
            resolved=study,
            data=DataRecord(
                digest=given.digest,
                path=where,
                scale=self.scale,
                counts={split: len(given.rows(split)) for split in SPLITS},
            ),
            created=_now(),
        ).save(path)
        self._write(TrialState.RUNNING)

    def _go_on(self, record: StudyRecord, study: Study, given: Poses) -> None:
        if record.data.digest != given.digest:
            raise UserError(f"{self.folder}: watched on other poses; choose another folder, or bring the same")
        if record.digest != digest(study):
            raise UserError(f"{self.folder}: belongs to another run ({record.name}), or to other settings")
        for row in History.load(self._history) if self._history.exists() else ():
            self._take(row, fresh=False)

    def _write(self, state: TrialState) -> None:
        verdict = self.judge.verdict
        ended = SeedOutcome(
            seed=self.seed,
            verdict=verdict.kind,
            reason=verdict.reason,
            onset=verdict.onset,
            stopped_step=self.step,
            best_risk=self.best[0][0] if self.best else None,
            best_step=self.best[0][1] if self.best else None,
            values=dict(verdict.values),
            crossings=[Crossing(**dataclasses.asdict(one)) for one in self.judge.crossings],
            settled=self.judge.settled,
        )
        seconds = time.monotonic() - self._began
        done = state is TrialState.FINISHED
        Trial(
            id=self._trial,
            representation=self.representation.name,
            number=0,
            parameters={},
            configuration=self.configuration,
            seeds=[self.seed],
            state=state,
            started=_now(),
            ended=_now() if done else None,
            wall_seconds=round(seconds, 3),
            attempts=1,
            outcome=Outcome(seeds=[ended], training_seconds=seconds, parameters={}) if done else None,
        ).write(self.folder)


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


def _study(name: str, representation: str, steps: int, every: int, seed: int, settings: Mapping[str, Any]) -> Study:
    values = {**settings, "name": name, "representations": [representation], "seed": seed, "seeds": 1}
    training = {**dict(settings.get("training", {})), "steps": steps, "evaluate_every": every, "average": 0.0}
    study = validate(Study, {**values, "training": training}, where="Watch")
    check_names(study, "Watch")
    return study


def _opened(poses: Any, subjects: Any, instants: Any) -> Poses:
    if isinstance(poses, Poses):
        return poses
    if isinstance(poses, (str, Path)):
        return read_poses(Path(poses))
    array = np.ascontiguousarray(poses, dtype=np.float32)
    if array.ndim != 3 or array.shape[1:] != (17, 2) or not np.isfinite(array).all():
        raise UserError(f"poses: expected finite numbers (N, 17, 2) in pixels, got {array.shape}")
    count = len(array)
    names, people = np.unique(np.zeros(count) if subjects is None else np.asarray(subjects), return_inverse=True)
    if people.shape != (count,):
        raise UserError(f"subjects: expected one for each of {count} poses, got {people.shape}")
    frame = np.arange(count) if instants is None else np.unique(np.asarray(instants), return_inverse=True)[1]
    if frame.shape != (count,):
        raise UserError(f"instants: expected one for each of {count} poses, got {frame.shape}")
    camera = np.zeros(count, np.int32)
    seen: dict[tuple[int, int], int] = {}
    for row, key in enumerate(zip(people.tolist(), frame.tolist(), strict=True)):
        camera[row] = seen[key] = seen.get(key, -1) + 1
    return Poses(
        poses=array,
        subject=people.astype(np.int32),
        sequence=people.astype(np.int32),
        camera=camera,
        frame=frame.astype(np.int32),
        split=np.full(count, SPLITS.index("validation"), np.int8),
        subject_names=tuple(str(one) for one in names),
        sequence_names=tuple(str(one) for one in names),
        camera_names=tuple(f"camera_{index}" for index in range(int(camera.max(initial=0)) + 1)),
        source=f"an array of {count} poses ({hashlib.sha256(array.tobytes()).hexdigest()[:12]})",
        frame_rate_hz=0.0,
    )


def _scale(poses: Poses) -> float:
    """As in training where there are train rows, else of the poses given."""
    if len(poses.rows("train")):
        return normalisation_scale(poses)
    return 10.0 * float(np.linalg.norm(poses.poses[:, HEAD] - poses.poses[:, ROOT], axis=-1).mean())


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
