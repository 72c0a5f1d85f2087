"""The answer box: what won, what to use, what is better and how sure, what broke, what to do next."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.report.test_html import write
from tips_dist.bootstrap import Statistic
from tips_dist.cli import app
from tips_dist.report import answer as answers
from tips_dist.report.answer_words import answer_lines
from tips_dist.report.summary import summarise, write_summary
from tips_dist.runfolder import Evaluation, RunFolder, Summary, TrialState, layout, read_trial
from tips_dist.runfolder.choices import SecondLook, Selection
from tips_dist.runfolder.example import build, metrics
from tips_dist.runfolder.results import Answer, CandidateMetrics


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path / "run")


def found(run: Path) -> Answer:
    answer = write_summary(run).answer
    assert answer is not None
    return answer


def said(run: Path, topic: str) -> str:
    return " ".join(line.text for line in answer_lines(write_summary(run)) if line.topic == topic)


def steps(run: Path) -> list[list[str]]:
    return [shlex.split(step.command) for step in found(run).steps if step.command]


def on_test(run: Path, error_of: dict[str, float]) -> None:
    """Add errors of every seed's checkpoint on the test poses."""
    rows = [
        CandidateMetrics(
            **metrics(n_mpjpe_resolved=error_of[trial.representation] + seed.seed).model_dump(),
            trial=trial.id,
            file="x",
            seed=seed.seed,
            step=seed.best_step or 0,
            risk=seed.best_risk,
            representation=trial.representation,
        )
        for trial in RunFolder(run).trials
        for seed in trial.seed_outcomes
    ]
    path = layout.EVALUATION.at(run)
    Evaluation.load(path).model_copy(update={"selected_test": rows}).save(path)


def test_without_truth_the_answer_says_how_far_errors_lie_from_the_risk(run: Path) -> None:
    layout.EVALUATION.at(run).unlink()
    assert said(run, "Errors").endswith("risk is an estimate, not an error.")  # no second look, no interval
    path = layout.SELECTION.at(run)
    look = SecondLook(poses=100, instants=20, regime="views", plus_minus=0.25)
    Selection.load(path).model_copy(update={"second_look": look}).save(path)
    assert found(run).plus_minus == 0.25
    assert "nine errors in ten are thought to lie within -20 and +25 % of it" in said(run, "Errors")


def test_the_best_configuration_is_the_trial_of_lowest_risk(run: Path) -> None:
    summary = write_summary(run)
    for best in found(run).best:
        rivals = [t for t in summary.trials if t.representation == best.representation and t.risk]
        lowest = min(rivals, key=lambda trial: trial.risk.value if trial.risk else 9e9)
        assert (best.trial, best.parameters, best.tried) == (lowest.trial, lowest.parameters, len(rivals))
        assert best.trial in said(run, "Best configuration")


def test_the_student_is_quoted_on_test_with_the_line_that_lifts(run: Path) -> None:
    use = found(run).recommended
    assert use is not None
    assert (use.kind, use.errors["test"].value) == ("student", 97.5)
    assert shlex.split(use.lift)[:3] == ["tips-dist", "lift", str(layout.STUDENT_WEIGHTS.at(run))]
    assert "97.5 mm (91.0..101.0) on test" in said(run, "Use")


def test_errors_of_an_older_student_are_not_quoted(run: Path) -> None:
    path = layout.EVALUATION.at(run)
    Evaluation.load(path).model_copy(update={"student_digest": "0" * 64}).save(path)
    use = found(run).recommended
    assert use is not None
    assert use.errors == {}
    assert "tips-dist evaluate" in " ".join(step.command or "" for step in found(run).steps)


def test_without_truth_the_answer_says_so_and_how_to_get_it(run: Path) -> None:
    layout.EVALUATION.at(run).unlink()
    answer = found(run)
    assert [row.metric for row in answer.chosen] == ["risk"]
    assert ["tips-dist", "evaluate", str(run), "--truth", "NAME.truth3d.h5"] in steps(run)
    assert "estimate, not an error" in said(run, "Errors")
    assert not [line for line in answer_lines(write_summary(run)) if " mm" in line.text and line.topic != "Next"]


def test_best_configurations_are_compared_on_test_where_it_was_measured(run: Path) -> None:
    validation = next(row for row in found(run).chosen if row.metric != "risk")
    assert validation.split == "validation"
    on_test(run, {"solo": 120.0, "torso_legs": 100.0})
    answer = found(run)
    test = next(row for row in answer.chosen if row.metric != "risk")
    assert (test.split, test.difference.value, test.difference.runs, test.pooled) == ("test", 20.0, 8, False)
    assert test.sure
    text = said(run, "Which is better")
    assert "on test: torso_legs" in text
    assert "better than solo" in text
    assert "All 16 runs pooled, sign-resolved N-MPJPE on validation" in text


def test_what_cannot_be_told_apart_is_said_and_more_seeds_are_advised(run: Path) -> None:
    on_test(run, {"solo": 100.0, "torso_legs": 100.0})
    assert "cannot be told apart" in said(run, "Which is better")
    assert "seeds: 16" in said(run, "Next")


def test_errors_that_tell_apart_are_not_contradicted_by_risks_that_do_not(run: Path) -> None:
    on_test(run, {"solo": 100.0, "torso_legs": 80.0})
    folder = RunFolder(run)
    chosen = [
        row if row.metric != "risk" else row.model_copy(update={"difference": Statistic(0.0, -9.0, 9.0, 8)})
        for row in found(run).chosen
    ]
    assert {row.sure for row in chosen} == {True, False}
    steps = answers._steps(folder, summarise(folder), None, chosen)
    assert not any("cannot be told apart" in step.text for step in steps)


def test_broken_seeds_are_counted_with_their_reason(run: Path) -> None:
    solo, parts = found(run).broken
    assert (solo.broken, solo.runs, solo.verdicts, list(solo.reasons)) == (
        4,
        8,
        {"diverged": 4},
        ["the risk left its best"],
    )
    assert parts.broken == 0


def test_selection_is_compared_with_last_random_and_oracle(run: Path) -> None:
    text = said(run, "Choosing without truth")
    assert all(word in text for word in ("the best there was", "the last", "a random one", "validation"))


def test_an_unfinished_run_is_to_be_finished_first_and_a_failed_trial_named(run: Path) -> None:
    read_trial(run, "solo-000").now(state=TrialState.RUNNING, outcome=None).write(run)
    read_trial(run, "solo-001").now(state=TrialState.FAILED, outcome=None, error="boom").write(run)
    assert steps(run)[0] == ["tips-dist", "resume", str(run)]
    assert "error.txt" in said(run, "Next")


def test_before_a_student_the_candidate_of_lowest_risk_is_named(run: Path) -> None:
    layout.STUDENT_WEIGHTS.at(run).unlink()
    use = found(run).recommended
    assert use is not None
    teacher = min(write_summary(run).teachers, key=lambda item: item.risk)
    assert (use.kind, use.file) == ("candidate", teacher.file)
    assert ["tips-dist", "distill", str(run)] in steps(run)


def test_a_run_that_has_just_begun(run: Path) -> None:
    shutil.rmtree(run / "trials")
    layout.EVALUATION.at(run).unlink()
    assert said(run, "Answer") == "No run has ended yet."


def test_a_summary_written_before_there_was_an_answer_still_reads(run: Path) -> None:
    write_summary(run)
    path = layout.SUMMARY.at(run)
    values = json.loads(path.read_text())
    del values["answer"]
    path.write_text(json.dumps(values))
    assert Summary.load(path).answer is None


def test_every_format_and_the_report_open_with_the_answer(run: Path) -> None:
    runner, trial = CliRunner(), found(run).best[0].trial
    for style in ("", "--json", "--markdown", "--latex", "--csv"):
        result = runner.invoke(app, ["summary", str(run), *([style] if style else [])], terminal_width=100)
        assert result.exit_code == 0, result.output
        if style == "--json":
            assert json.loads(result.output)["answer"]["best"][0]["trial"] == trial
            continue
        assert result.output.index("Best configuration") < result.output.index("stopped at"), style
        assert trial in result.output
    rows = list(csv.reader(io.StringIO(runner.invoke(app, ["summary", str(run), "--csv"]).output)))
    assert rows[0] == ["about", "answer", "command"]
    page = write(run).read_text()
    assert page.index(f"solo: {trial}") < page.index("<h2>")
