from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tips_dist.audit import audit_run, audit_words, read_goal, read_policy
from tips_dist.config import Configuration, Policy
from tips_dist.files import UserError
from tips_dist.runfolder import History, example, layout
from tips_dist.sections import validate

STEPS = 1000


def run_folder(path: Path, histories: Mapping[int, Sequence[float | None]]) -> Path:
    """One trial, evaluated every 50 steps, with these risks per seed."""
    example.study_record().save(layout.STUDY.at(path))
    configuration = validate(Configuration, {"training": {"steps": STEPS}}, where="test")
    example.trial("solo-000", seeds=list(histories), configuration=configuration).write(path)
    example.history(histories).save(layout.HISTORY.at(path, "solo-000"))
    return path


IMPROVING = [100.0 - 2 * index for index in range(20)]
DIVERGING = [100.0 - 5 * index for index in range(8)] + [160.0] * 12
LATE_BLOOMER = [100.0, 70.0] + [72.0] * 15 + [50.0, 50.0, 50.0]


def test_the_eventual_best_is_kept_and_the_diverged_seed_stopped(tmp_path: Path) -> None:
    found = audit_run(run_folder(tmp_path, {0: IMPROVING, 1: DIVERGING}))
    by_seed = {row.seed: row for row in found.seeds}
    assert by_seed[0].stop_step is None
    assert by_seed[1].verdict == "diverged"
    assert by_seed[1].kept_risk == by_seed[1].best_risk == 65.0
    assert found.totals.best_killed is False
    assert found.totals.steps_saved is not None
    assert 0.1 < found.totals.steps_saved < 0.4
    assert "would have kept the eventual best" in audit_words(found)


def test_stopping_that_kills_the_best_says_so(tmp_path: Path) -> None:
    hasty = Policy(plateau_share=0.3, plateau_patience=4, plateau_learnt=1.0, smoothing=1.0)
    found = audit_run(run_folder(tmp_path, {0: LATE_BLOOMER, 1: IMPROVING}), hasty)
    assert found.totals.best_killed is True
    assert found.totals.best_risk_lost == pytest.approx(70 / 50 - 1)
    assert "would have stopped the eventual best" in audit_words(found)


def test_another_policy_may_keep_it(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("plateau_share: 2.0\ndrift_alarm: 50\n")
    policy = read_policy(tmp_path / "policy.yaml")
    assert audit_run(run_folder(tmp_path, {0: LATE_BLOOMER, 1: IMPROVING}), policy).totals.best_killed is False


def test_cut_histories_are_said_and_left_out(tmp_path: Path) -> None:
    found = audit_run(run_folder(tmp_path, {0: IMPROVING, 1: DIVERGING[:12]}))
    assert found.totals.cut == 1
    assert "1 of 2 histories were cut" in audit_words(found)


def test_a_seed_that_ended_non_finite_is_not_cut(tmp_path: Path) -> None:
    found = audit_run(run_folder(tmp_path, {0: IMPROVING, 1: [100.0, None]}))
    assert found.totals.cut == 0
    assert found.seeds[1].verdict == "non_finite"


def test_bad_policies_and_folders_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        audit_run(tmp_path)
    with pytest.raises(UserError, match="nothing to audit"):
        audit_run(run_folder(tmp_path / "empty", {}))
    with pytest.raises(UserError, match="no such policy file"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "policy.yaml").write_text("drift_alrm: 1\n")
    with pytest.raises(UserError, match=r"drift_alrm: unknown key \(did you mean 'drift_alarm'\?\)"):
        read_policy(tmp_path / "policy.yaml")


def test_an_absent_signal_is_not_one_that_was_not_finite(tmp_path: Path) -> None:
    """A signal that some steps lack (no second view, say) is absent to the detectors, never a number that is gone."""
    run = run_folder(tmp_path, {0: IMPROVING})
    path = layout.HISTORY.at(run, "solo-000")
    rows = History.load(path).rows
    sparse = [replace(row, signals={**row.signals, "generator/bend": 0.1}) for row in rows[:3]]
    History([*sparse, *rows[3:]]).save(path)
    assert audit_run(run).seeds[0].verdict == "healthy"
    gone = replace(rows[5], signals={**rows[5].signals, "generator/bend": None})
    History([*rows[:5], gone, *rows[6:]]).save(path)
    found = audit_run(run).seeds[0]
    assert (found.verdict, found.stop_step) == ("non_finite", 300)


def test_a_goal_decides_what_the_policy_leaves_open(tmp_path: Path) -> None:
    run = run_folder(tmp_path, {0: [100.0, 70.0, *[50.0] * 18]})
    told = [audit_run(run, goal=read_goal(text)).seeds[0].stop_step for text in ("0.5 %", "1 %", "0.05")]
    stops = [stop or STEPS + 1 for stop in told]
    assert stops == sorted(stops, reverse=True)
    assert stops[-1] < stops[0]
    for wrong in ("10 %", "much", "0.1"):
        with pytest.raises(UserError, match=r"--goal: loss: "):
            read_goal(wrong)


def test_a_risk_inside_a_crossing_is_not_the_best(tmp_path: Path) -> None:
    """However low it is."""
    run = run_folder(tmp_path, {0: [100.0, 90.0, 40.0, 40.0, 40.0, *(80.0 - n for n in range(15))]})
    path = layout.HISTORY.at(run, "solo-000")
    rows = [replace(row, signals={"mirror/mixed": 0.3 if row.risk == 40.0 else 0.0}) for row in History.load(path).rows]
    path.unlink()
    History(rows).save(path)
    found = audit_run(run).seeds[0]
    assert found.best_risk == 66.0
    assert "crossed to its mirror image at steps 150 to 300" in found.reason
