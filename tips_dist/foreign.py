"""A run folder for trainings that are not ours, so that everything that reads one reads them.

:class:`ForeignRun` makes the folder (or goes on with it) and :class:`ForeignTrial` judges and records a trial of it.
A loop that runs is watched (:mod:`tips_dist.watch`), one that has run is imported (:mod:`tips_dist.history_import`),
and somebody's own Ray Tune script calls back (:mod:`tips_dist.adapters.tune`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from tips_dist.config import Configuration, Study
from tips_dist.data.store import SPLITS, Poses, normalisation_scale, read_poses
from tips_dist.data.writer import write_poses
from tips_dist.files import UserError, write_text
from tips_dist.monitoring import Monitor
from tips_dist.runfolder import History, HistoryRow, Outcome, SeedOutcome, StudyRecord, Trial, TrialState, layout
from tips_dist.runfolder.depths import write_depths
from tips_dist.runfolder.history import append
from tips_dist.runfolder.lock import timestamp
from tips_dist.runfolder.records import CrossingSpan, DataRecord, Parameter
from tips_dist.sections import digest, validate
from tips_dist.skeleton import HEAD, JOINTS, ROOT
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.stability.verdicts import HEALTHY
from tips_dist.study_file import check_names

POSES = "poses.pose2d.h5"  # in the run folder, where the poses came as an array
Signals = Mapping[str, float | None]
Found = Mapping[int, tuple[Signals, float | None]]  # seed -> its signals at a step, and its risk


def foreign_study(
    who: str,
    name: str,
    *,
    steps: int,
    every: int,
    representation: str = "solo",
    seed: int = 0,
    seeds: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """What a foreign training is recorded as.

    Raises:
        UserError: a setting is unknown or does not fit; ``who`` asked.
    """
    given = dict(settings or {})
    training = {**dict(given.get("training", {})), "steps": steps, "evaluate_every": every, "average": 0.0}
    values = {**given, "name": name, "representations": [representation], "seed": seed, "seeds": seeds}
    study = validate(Study, {**values, "training": training}, where=who)
    check_names(study, who)
    return study


def opened_poses(poses: Any, subjects: Any = None, instants: Any = None) -> Poses:
    """A data set as it is, of a file, or of an array (N, 17, 2) in pixels, all of it held out.

    Raises:
        UserError: the array has another shape, or ``subjects`` or ``instants`` are not one for each pose.
    """
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


def pose_scale(poses: Poses) -> float:
    """Pixels per ten mean root-to-head distances: as in training where there are train rows, else of all poses."""
    if len(poses.rows("train")):
        return normalisation_scale(poses)
    return 10.0 * float(np.linalg.norm(poses.poses[:, HEAD] - poses.poses[:, ROOT], axis=-1).mean())


class ForeignRun:
    """The run folder of a foreign training: made when it is not there, gone on with when it is."""

    def __init__(self, folder: Path, study: Study, poses: Poses | None, source: Any = None) -> None:
        """Make the folder, or see that it belongs to this training.

        Args:
            folder: the run folder.
            study: what the training is recorded as, see :func:`foreign_study`.
            poses: what is judged on; None where only numbers are known.
            source: as the caller gave them: a path is recorded, anything else written into the folder.

        Raises:
            UserError: it holds another run.
        """
        self.folder, self.study, self.poses = folder, study, poses
        self.scale = 1.0 if poses is None else pose_scale(poses)
        path = layout.STUDY.at(folder)
        self.is_new = not path.exists()
        if self.is_new:
            self._make(path, source)
        else:
            self._check(StudyRecord.load(path))

    def trial(
        self,
        number: int = 0,
        *,
        seeds: Sequence[int] = (0,),
        parameters: Mapping[str, Parameter] | None = None,
        recipe: Recipe | None = None,
    ) -> ForeignTrial:
        """One of its trials, with seeds that are judged each for itself."""
        representation = self.study.representations[0]
        record = Trial(
            id=f"{representation}-{number:03d}",
            representation=representation,
            number=number,
            parameters=dict(parameters or {}),
            configuration=self.study.configuration(representation),
            seeds=list(seeds),
            state=TrialState.RUNNING,
            started=timestamp(),
            attempts=1,
        )
        return ForeignTrial(self.folder, record, recipe or Recipe())

    def _make(self, path: Path, source: Any) -> None:
        (self.folder / layout.TRIALS).mkdir(parents=True, exist_ok=True)
        if self.poses is None:
            data = DataRecord(digest="", path="", scale=self.scale)  # no path leads to poses that nobody gave
        else:
            is_file = isinstance(source, (str, Path))
            if not is_file:
                write_poses(self.folder / POSES, self.poses)
            data = DataRecord(
                digest=self.poses.digest,
                path=str(Path(source).resolve()) if is_file else POSES,
                scale=self.scale,
                counts={split: len(self.poses.rows(split)) for split in SPLITS},
            )
        text = yaml.safe_dump(self.study.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        write_text(layout.STUDY_TEXT.at(self.folder), text)
        StudyRecord(
            name=self.study.name,
            digest=digest(self.study),
            resolved=self.study,
            data=data,
            created=timestamp(),
            mark=secrets.token_hex(16),
        ).save(path)

    def _check(self, record: StudyRecord) -> None:
        if record.data.digest != ("" if self.poses is None else self.poses.digest):
            raise UserError(f"{self.folder}: holds a run on other poses; choose another folder, or bring the same")
        if record.digest != digest(self.study):
            raise UserError(f"{self.folder}: belongs to another run ({record.name}), or to other settings")


class ForeignTrial:
    """Judges one trial's seeds, and writes its history, depths, TensorBoard files and record."""

    def __init__(self, folder: Path, record: Trial, recipe: Recipe) -> None:
        self.folder, self.record = folder, record
        self.configuration: Configuration = record.configuration
        stopping = self.configuration.stopping
        self.judges = {seed: Judge.of(record.steps, recipe, stopping) for seed in record.seeds}
        self.lowest: dict[int, tuple[float, int]] = {}  # seed -> its lowest risk so far, and that step
        self.last: dict[int, int] = {}  # seed -> the last step it was looked at
        about = {"representation": record.representation, **record.parameters}
        self.monitor = Monitor(layout.EVENTS.at(folder, record.id).parent, about)
        self._told: dict[int, str] = {}  # seed -> the verdict that TensorBoard shows
        self._began = time.monotonic()
        record.folder(folder).mkdir(parents=True, exist_ok=True)

    def go_on(self) -> list[HistoryRow]:
        """Judge what is recorded so far once more, and return it."""
        rows = list(History.load(layout.HISTORY.at(self.folder, self.record.id)))
        for row in rows:
            self.judge(row.step, {row.seed: (row.signals, row.risk)})
            self._told[row.seed] = row.verdict
        return rows

    def judge(self, step: int, found: Found) -> list[HistoryRow]:
        """Judge each seed's signals at a step; nothing is written yet."""
        rows = []
        for seed, (signals, risk) in found.items():
            values = {**signals, "risk/total": risk}
            verdict = self.judges[seed].update(step, values)
            if risk is not None and (seed not in self.lowest or risk < self.lowest[seed][0]):
                self.lowest[seed] = (risk, step)
            self.last[seed] = step
            rows.append(HistoryRow(step, seed, risk, verdict.kind, values))
        return rows

    def show(self, rows: Sequence[HistoryRow]) -> None:
        """Write the rows of the step that was judged last for TensorBoard."""
        self.monitor.evaluation(
            rows[0].step, [{"seed": row.seed, "verdict": row.verdict, **row.signals} for row in rows]
        )
        for row in rows:
            if row.verdict != self._told.get(row.seed, HEALTHY):
                verdict = self.judges[row.seed].verdict
                self.monitor.verdict(row.step, row.seed, verdict.kind, verdict.reason, verdict.onset)
            self._told[row.seed] = row.verdict

    def keep(self, rows: Sequence[HistoryRow]) -> None:
        """Record the rows of the step that was judged last: history, TensorBoard, the trial's record."""
        append(layout.HISTORY.at(self.folder, self.record.id), rows)
        self.show(rows)
        self.write(TrialState.RUNNING)

    def keep_depths(self, step: int, depths: npt.NDArray[np.floating]) -> None:
        """Record the validation depths (S, V, 17) of a step: what ``evaluate`` and ``scorecard`` compare with truth.

        There is room for them at the multiples of ``evaluate_every``; elsewhere nothing is kept.
        """
        training = self.configuration.training
        if not training.record_depths or step % training.evaluate_every or step > training.steps:
            return
        shape = (training.steps // training.evaluate_every, len(self.record.seeds), depths.shape[1], len(JOINTS))
        path = layout.DEPTHS.at(self.folder, self.record.id)
        write_depths(path, shape, step // training.evaluate_every - 1, depths)

    def write(self, state: TrialState, error: str | None = None) -> Trial:
        """Write the record, with the outcome if it has ended."""
        seconds = time.monotonic() - self._began
        changes: dict[str, object] = {"state": state, "wall_seconds": round(seconds, 3), "error": error}
        if state.final:
            self.monitor.close()
            ended = [self._outcome(seed) for seed in self.record.seeds]
            changes |= {
                "ended": timestamp(),
                "outcome": Outcome(seeds=ended, training_seconds=seconds, parameters={}),
            }
        return self.record.now(**changes).write(self.folder)

    def _outcome(self, seed: int) -> SeedOutcome:
        judge, (risk, step) = self.judges[seed], self.lowest.get(seed, (None, None))
        verdict = judge.verdict
        return SeedOutcome(
            seed=seed,
            verdict=verdict.kind,
            reason=verdict.reason,
            onset=verdict.onset,
            stopped_step=self.last.get(seed, 0),
            best_risk=risk,
            best_step=step,
            values=dict(verdict.values),
            crossings=[CrossingSpan(**dataclasses.asdict(one)) for one in judge.crossings],
            settled=judge.settled,
        )
