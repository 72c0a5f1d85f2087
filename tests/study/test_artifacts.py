"""Pictures that Optuna's dashboard shows beside the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta

from tests.fakes import FakeTraining, fake_poses
from tests.study.conftest import make_study
from tips_dist.runfolder import RunFolder, TrialState, layout, read_trial
from tips_dist.runfolder.example import study_record
from tips_dist.study import artifacts
from tips_dist.study.search import TrialSearch, open_storage, study_name
from tips_dist.study.trainable import run_trial


def searched(run: Path) -> Path:
    (run / layout.TRIALS).mkdir(parents=True)
    study = make_study(representations=["solo"], seeds=2)
    study_record(study).save(layout.STUDY.at(run))
    search = TrialSearch(study, run)
    search.recover()
    while trial := search.propose():
        run_trial(run, trial.id, fake_poses(), FakeTraining(), lambda report: None)
        search.tell(read_trial(run, trial.id))
    return run


def test_every_trial_has_its_curve(tmp_path: Path) -> None:
    run = searched(tmp_path / "test-run")
    storage = open_storage(RunFolder(run).study.study, run)
    found = optuna.load_study(study_name=study_name(run, "solo"), storage=storage).get_trials()
    for one in found:
        (meta,) = get_all_artifact_meta(one, storage=storage)
        assert (meta.filename, meta.mimetype) == (artifacts.CURVE, "image/png")
        assert (run / "artifacts" / meta.artifact_id).read_bytes().startswith(b"\x89PNG")
    assert layout.file_kind(f"artifacts/{meta.artifact_id}") is layout.FileKind.OTHER


def test_the_student_s_lifts_are_shown_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = searched(tmp_path / "test-run")
    studies = TrialSearch(RunFolder(run).study.study, run).studies
    assert artifacts.attach_lift(run, fake_poses(), studies) == "nothing to do"  # there is no student
    monkeypatch.setattr(artifacts, "_lift", lambda folder, poses: np.zeros((8, 8, 3), np.uint8))
    assert artifacts.attach_lift(run, fake_poses(), studies) == "1 pictures"
    assert artifacts.attach_lift(run, fake_poses(), studies) == "nothing to do"
    assert [meta.filename for meta in get_all_artifact_meta(studies["solo"])] == [artifacts.LIFT]


def test_what_cannot_be_stored_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "test-run"
    run.mkdir()
    (run / "artifacts").write_text("in the way")
    searched(run)
    assert all(trial.state is TrialState.FINISHED for trial in RunFolder(run).trials)
    monkeypatch.setattr(artifacts, "_lift", lambda folder, poses: np.zeros((8, 8, 3), np.uint8))
    studies = TrialSearch(RunFolder(run).study.study, run).studies
    assert artifacts.attach_lift(run, fake_poses(), studies).startswith("left out: ")
