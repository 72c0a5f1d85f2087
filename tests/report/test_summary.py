from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tips_dist.bootstrap import Statistic
from tips_dist.files import UserError
from tips_dist.report.formats import markdown
from tips_dist.report.summary import summarise, write_summary
from tips_dist.report.tables import interval, notes, representation_tables, time_table, verdict_words
from tips_dist.runfolder import RunFolder, layout, read_trial
from tips_dist.runfolder.example import build
from tips_dist.runfolder.records import Execution
from tips_dist.runfolder.spent import Session, Spent, Times
from tips_dist.stability.statistic import trial_risk


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path / "run")


def test_counts_verdicts_and_savings_by_representation(run: Path) -> None:
    solo, parts = write_summary(run).representations
    assert (solo.representation, solo.trials, solo.runs) == ("solo", 2, 8)
    assert solo.verdicts == {"healthy": 4, "diverged": 4}
    assert parts.verdicts == {"healthy": 8}
    assert solo.stopped_step == 1700  # the middle of four that ran 2000 steps and four stopped at 1400
    assert solo.steps_saved == pytest.approx(0.15)
    assert parts.steps_saved == 0
    assert solo.risk is not None
    assert solo.risk.low <= solo.risk.value <= solo.risk.high


def test_seed_steps_saved_frozen_and_revived_are_counted_and_said(run: Path) -> None:
    found = write_summary(run)
    assert found.budget is not None
    assert (found.budget.saved, found.budget.frozen, found.budget.revived) == (4 * 600, 0, 0)
    assert not any("frozen" in line for line in notes(found))
    trial = RunFolder(run).trials[0]
    assert trial.outcome is not None
    seeds = [
        seed.model_copy(update={"frozen": seed.stopped_step if place == 0 else None})
        for place, seed in enumerate(trial.outcome.seeds)
    ]
    trial.now(outcome=trial.outcome.model_copy(update={"seeds": seeds}), thaw=[trial.seeds[1]]).write(run)
    planned = found.budget.planned
    assert (
        f"Stopping saved 2,400 of {planned:,} seed-steps. Seeds frozen: 1; revived: 1. tips-dist resume RUN --thaw "
        "lets frozen ones go on." in notes(write_summary(run))
    )


def test_where_the_time_went_is_told_of_whole_runs(run: Path) -> None:
    assert write_summary(run).time is None  # no account was kept
    trial = RunFolder(run).trials[0]
    assert trial.outcome is not None
    spent = Spent(steps=60.0, evaluation=6.0, records=2.0)
    trial.now(outcome=trial.outcome.model_copy(update={"spent": spent})).write(run)
    phases = {"start": 5.0, "training": 40.0, "distilling": 5.0}
    Times(
        sessions=[Session(began="now", host="x", unit="cores", machine=2.0, each=1.0, phases=phases, ended=True)]
    ).save(layout.TIMES.at(run))
    found = write_summary(run)
    (table,) = time_table(found.time)
    assert table.title == "Where the time went: 50 s of 2 cores"
    assert table.rows[0] == ("training steps", "60.0", "60.0%")
    assert ("workers starting, waiting", "12.0", "12.0%") in table.rows
    words = next(line for line in notes(found) if "machine's time" in line)
    assert words.startswith("Training steps took 60% of the machine's time (50 s of 2 cores); most of the rest: ")
    folder = RunFolder(run)
    assert summarise(folder.only(folder.trials[:1])).time is None
    layout.TIMES.at(run).write_text("[]")
    assert write_summary(run).time is None
    assert time_table(None) == []


def value(found: Statistic | None) -> float:
    assert found is not None
    return found.value


@pytest.mark.parametrize(
    ("asked", "execution", "told"),
    [
        ("bf16", {"precision": "float32"}, True),
        ("tf32", {"matmul": "onednn", "precision": "tf32"}, True),  # on a processor
        ("bf16", {"precision": "bf16"}, False),
        ("tf32", {"matmul": "tf32", "precision": "tf32"}, False),
        ("float32", {"precision": "float32"}, False),
    ],
)
def test_a_precision_that_the_hardware_lacks_is_told(
    run: Path, asked: str, execution: dict[str, str], told: bool
) -> None:
    trial = RunFolder(run).trials[0]
    assert trial.outcome is not None
    training = trial.configuration.training.model_copy(update={"precision": asked})
    trial.now(
        configuration=trial.configuration.model_copy(update={"training": training}),
        outcome=trial.outcome.model_copy(update={"execution": Execution.model_validate(execution)}),
    ).write(run)
    found = [line for line in notes(write_summary(run)) if line.startswith("Precision: ")]
    assert [f"Precision: 1 of 4 trials asked for {asked} and ran in float32" in line for line in found] == [True] * told


def test_errors_are_means_of_the_selected_checkpoints(run: Path) -> None:
    """Computed once more, straight from evaluation.json."""
    solo = write_summary(run).representations[0].errors
    assert solo is not None
    evaluation = json.loads((run / "evaluation.json").read_text())
    seeds = [
        seed
        for name, trial in evaluation["trials"].items()
        if name.startswith("solo-")
        for seed in trial["seeds"].values()
    ]
    for metric in ("n_mpjpe", "n_mpjpe_resolved", "pa_mpjpe", "pa_mpjpe_resolved"):
        expected = np.mean([seed["selected"][metric] for seed in seeds])
        assert value(solo.metrics[metric]) == pytest.approx(expected)
    against = np.mean([seed["random"]["n_mpjpe_resolved"] - seed["selected"]["n_mpjpe_resolved"] for seed in seeds])
    assert value(solo.against["random"]) == pytest.approx(against)
    assert value(solo.against["best"]) <= 0
    assert value(solo.checkpoints["best"]) <= value(solo.checkpoints["selected"])


def test_differences_between_representations(run: Path) -> None:
    found = {row.metric: row for row in write_summary(run).differences}
    assert (found["risk"].first, found["risk"].second) == ("solo", "torso_legs")
    assert found["n_mpjpe_resolved"].difference.low > 0
    assert found["n_mpjpe_resolved"].cliffs_delta == 1.0


def test_nothing_but_the_errors_depends_on_truth(run: Path) -> None:
    with_truth = write_summary(run)
    (run / "evaluation.json").unlink()
    without = write_summary(run)
    assert without.evaluated is False
    assert without.student is None
    for first, second in zip(with_truth.representations, without.representations, strict=True):
        assert second.errors is None
        assert first.model_copy(update={"errors": None}) == second
    assert [row.metric for row in without.differences] == ["risk"]


def test_runs_without_a_candidate_count_as_runs_but_not_in_errors(tmp_path: Path) -> None:
    solo = write_summary(build(tmp_path / "run", seeds=8, trials=1)).representations[0]
    assert solo.verdicts["non_finite"] == 1
    assert solo.runs == 8
    assert solo.risk is not None
    assert solo.errors is not None
    measured = solo.errors.metrics["n_mpjpe"]
    assert measured is not None
    assert measured.runs == 7
    assert solo.risk.runs == 8  # it counts, as worse than any other


def test_a_trials_risk_is_not_that_of_its_luckiest_broken_seed(run: Path) -> None:
    """The middle of four seeds of which two are broken is the worse of the sound ones, whatever the broken ones had."""
    trial = read_trial(run, "solo-000")
    assert trial.outcome is not None
    risks = {0: 0.5, 1: 0.1, 2: 0.3, 3: 0.1}  # the odd ones diverged
    seeds = [seed.model_copy(update={"best_risk": risks[seed.seed]}) for seed in trial.outcome.seeds]
    trial.now(outcome=trial.outcome.model_copy(update={"seeds": seeds})).write(run)
    found = {one.trial: one for one in write_summary(run).trials}
    assert value(found["solo-000"].risk) == 0.5
    broken = [seed.model_copy(update={"verdict": "collapsed"}) for seed in seeds]
    trial.now(outcome=trial.outcome.model_copy(update={"seeds": broken})).write(run)
    assert {one.trial: one for one in write_summary(run).trials}["solo-000"].risk is None


def test_tables_show_the_risk_that_the_search_minimises(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=3, seeds=8, steps=400)
    for one in write_summary(run).trials:
        seeds = read_trial(run, one.trial).seed_outcomes
        assert value(one.risk) == pytest.approx(trial_risk((seed.best_risk, seed.verdict) for seed in seeds))


def test_the_summary_quotes_all_that_was_measured_of_the_student(run: Path) -> None:
    """Intervals, signs and confidences included, as evaluation.json has them."""
    write_summary(run)
    summary, evaluation = (json.loads((run / name).read_text()) for name in ("summary.json", "evaluation.json"))
    assert summary["student"] == evaluation["student"]
    for metrics in summary["student"].values():
        assert metrics["interval"]["n_mpjpe"] == [91.0, 101.0]
        assert metrics["part_signs"] == [1]
        assert metrics["sign_confidence"] == [0.9]


def test_unfinished_and_failed_trials_are_said(run: Path) -> None:
    edit(run / "trials/solo-000/trial.json", state="running", outcome=None)
    edit(run / "trials/solo-001/trial.json", state="failed", outcome=None, error="boom")
    summary = write_summary(run)
    solo = summary.representations[0]
    assert (solo.trials, solo.runs, solo.risk, solo.errors) == (2, 0, None, None)
    assert "1 failed, 1 running" in notes(summary)[0]
    assert markdown(representation_tables(summary), notes(summary)).count("none yet") == 1


def test_a_study_without_any_trial_yet(run: Path) -> None:
    shutil.rmtree(run / "trials")
    (run / "evaluation.json").unlink()
    summary = write_summary(run)
    assert "No runs yet." in notes(summary)


def test_summary_json_is_what_was_returned(run: Path) -> None:
    summary = write_summary(run)
    assert json.loads((run / "summary.json").read_text()) == summary.plain()
    assert RunFolder(run).summary == summary


def test_markdown_tables_have_equal_columns(run: Path) -> None:
    summary = write_summary(run)
    text = markdown(representation_tables(summary), notes(summary))
    for table in text.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    assert "Estimated without truth" in text
    assert "Measured against truth" in text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: shutil.rmtree(run), "no such run folder"),
        (lambda run: (run / "study.json").unlink(), "not a run folder"),
        (lambda run: (run / "study.json").write_text("{"), "study.json: not valid JSON"),
        (lambda run: edit(run / "study.json", schema=9), "study.json: made by a newer version"),
        (lambda run: (run / "trials/solo-000/trial.json").write_text("[]"), "trial.json: expected a JSON object"),
        (lambda run: (run / "trials/solo-000/trial.json").write_text('{"schema": 1}'), "id: this field is missing"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_named(run: Path, damage: Any, words: str) -> None:
    damage(run)
    with pytest.raises(UserError, match=words):
        write_summary(run)


def test_words() -> None:
    assert verdict_words({"non_finite": 1, "healthy": 3, "odd": 2}) == "3 healthy, 1 non-finite, 2 odd"
    assert interval(Statistic(value=1.25, low=1.0, high=2.0, runs=4), 1) == "1.2 (1.0..2.0)"
    assert interval(Statistic(value=1.0, low=1.0, high=1.0, runs=1), 1, sign=True) == "+1.0"
    assert interval(None, 1) == "-"
