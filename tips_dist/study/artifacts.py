"""Pictures for Optuna's dashboard: the curve of every trial, and what the student makes of a few poses.

They lie in ``artifacts/`` of the run folder, which ``optuna-dashboard --artifact-dir`` takes. They decide nothing;
a study is whole without them, and what cannot be drawn or stored is left out.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from PIL import Image

from tips_dist import drawing
from tips_dist.data.store import Poses, normalised
from tips_dist.files import UserError, shown
from tips_dist.runfolder import History, RunFolder, Trial, layout

POSES = 4  # of the student's picture
CURVE, LIFT = "curve.png", "lift.png"


def attach_curve(run: Path, trial: Trial, frozen: FrozenTrial, storage: BaseStorage) -> None:
    """Attach the risk of each seed over the steps to Optuna's trial, before that is told how it ended."""
    with contextlib.suppress(Exception):  # of Optuna, Pillow or the disk: no picture is worth a trial
        history = History.load(layout.HISTORY.at(run, trial.id))
        if len(history) and not get_all_artifact_meta(frozen, storage=storage):
            lines = {}
            for seed in history.seeds:
                rows = history.of(seed).rows
                risks = [np.nan if row.risk is None else row.risk for row in rows]
                lines[f"seed {seed}: {rows[-1].verdict.replace('_', '-')}"] = [row.step for row in rows], risks
            _store(run, frozen, CURVE, drawing.curve_picture(lines, f"{trial.id}: risk of each seed"), storage)


def attach_lift(run: Path, poses: Poses, studies: dict[str, optuna.Study]) -> str:
    """Attach what the student makes of a few validation poses to the studies of a run; says how many, or why none."""
    try:
        lacking = [study for study in studies.values() if not get_all_artifact_meta(study)]
        picture = _lift(RunFolder(run), poses) if lacking else None
        if picture is None:
            return "nothing to do"
        for study in lacking:
            _store(run, study, LIFT, picture)
    except Exception as error:  # as above
        return f"left out: {shown(error)}"
    return f"{len(lacking)} pictures"


def _store(
    run: Path, of: optuna.Study | FrozenTrial, name: str, picture: drawing.Picture, storage: BaseStorage | None = None
) -> None:
    place = layout.ARTIFACTS.at(run).parent
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        Image.fromarray(picture).save(path)
        store = FileSystemArtifactStore(place)
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=of, storage=storage)


def _lift(folder: RunFolder, poses: Poses) -> drawing.Picture | None:
    """A few validation poses lifted by the student; None before there is one."""
    from tips_dist.models.student import Student

    try:
        student = Student.load(layout.STUDENT_WEIGHTS.at(folder.path))
    except UserError:
        return None
    rows = poses.rows("validation")
    if not len(rows):
        return None
    rows = rows[[index * len(rows) // POSES for index in range(POSES)]]
    return drawing.pose_picture(normalised(poses, rows, student.record.scale), student.lift(poses.poses[rows]))
