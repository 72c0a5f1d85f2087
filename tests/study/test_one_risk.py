"""A trial's risk is one number: Optuna, the live view, status, summary, answer and report name the same best trial."""

from __future__ import annotations

import io
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from tests.fakes import FakeTraining, fake_poses
from tests.study.conftest import LR, make_study
from tips_dist.report.html import write_report
from tips_dist.report.live import LiveView
from tips_dist.report.summary import write_summary
from tips_dist.runfolder import RunFolder, TrialState, layout, read_trial
from tips_dist.runfolder.example import study_record
from tips_dist.study.records import StudyEvent
from tips_dist.study.search import TrialSearch, open_storage, study_name
from tips_dist.study.status import status
from tips_dist.study.trainable import Report, run_trial

LUCKY = {f"solo-{number:03d}": {0: 40, 1: 40} for number in (1, 3)}  # two of five seeds break at the last step


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A small search, without Ray: the run folder, and the last risk that each trial told while it ran."""
    run = tmp_path_factory.mktemp("one") / "test-run"
    (run / layout.TRIALS).mkdir(parents=True)
    study = make_study(representations=["solo"], seeds=5, search={"trials": 5, "sampler": "tpe"}, space=LR)
    study_record(study).save(layout.STUDY.at(run))
    layout.STUDY_TEXT.at(run).write_text("name: test\n")
    search = TrialSearch(study, run)
    search.recover()
    told: dict[str, float] = {}

    def tell(report: Report) -> None:
        told[str(report["trial"])] = float(report["risk"])
        search.report(str(report["trial"]), "solo", int(report["step"]), float(report["risk"]))

    while trial := search.propose():
        run_trial(run, trial.id, fake_poses(), FakeTraining(diverge=LUCKY), tell)
        search.tell(read_trial(run, trial.id))
    return run, told


def optuna_study(run: Path) -> optuna.Study:
    study = RunFolder(run).study.study
    return optuna.load_study(study_name=study_name(run, "solo"), storage=open_storage(study, run))


def test_every_reader_names_the_same_best_trial_and_number(searched: tuple[Path, dict[str, float]]) -> None:
    run, told = searched
    best = optuna_study(run).best_trial
    identity, value = best.user_attrs["trial"], best.value
    summary = write_summary(run)
    rows = {row.trial: row.risk for row in summary.trials if row.risk is not None}
    assert len(rows) == 5
    assert min(rows, key=lambda name: rows[name].value) == identity
    risk = rows[identity]
    assert (risk.value, risk.runs) == (value, 5)
    assert risk.low <= risk.value <= risk.high
    assert summary.answer is not None
    assert [(one.trial, one.risk) for one in summary.answer.best] == [(identity, risk)]
    assert status(run).best_risk == value
    assert min(told, key=lambda name: told[name]) == identity
    assert told[identity] == value
    page = write_report(RunFolder(run), summary).read_text()
    assert f"solo: {identity}" in page


def test_the_live_view_shows_the_number_that_optuna_minimises(searched: tuple[Path, dict[str, float]]) -> None:
    _, told = searched
    screen = Console(file=io.StringIO(), width=120)
    with LiveView(screen, trials=5) as view:
        for identity, risk in told.items():
            view(StudyEvent(identity, "solo", TrialState.FINISHED, 40, 40, risk))
    assert isinstance(screen.file, io.StringIO)
    assert all(f"risk {risk:.4g}" in screen.file.getvalue() for risk in told.values())


def test_what_a_dashboard_shows_of_trial_and_study(searched: tuple[Path, dict[str, float]]) -> None:
    run, _ = searched
    study = optuna_study(run)
    assert study.user_attrs["run"] == run.name
    assert study.user_attrs["data_digest"] == RunFolder(run).study.data.digest
    assert (study.user_attrs["name"], study.user_attrs["representation"]) == ("test", "solo")
    for frozen in study.get_trials():
        about = frozen.user_attrs
        trial = read_trial(run, about["trial"])
        assert about["folder"] == f"{run.name}/trials/{trial.id}"
        assert about["risks"] == {str(seed.seed): seed.best_risk for seed in trial.seed_outcomes}
        assert about["verdicts"] == ({"healthy": 3, "diverged": 2} if trial.id in LUCKY else {"healthy": 5})
        assert (about["steps"], about["seconds"], about["representation"]) == (40, trial.wall_seconds, "solo")
        assert list(frozen.intermediate_values) == list(range(5, 41, 5))
