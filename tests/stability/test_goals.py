"""Goals: thresholds that follow from how much error may be risked."""

from __future__ import annotations

import pytest

from tips_dist.config import Goal, Policy, Stopping
from tips_dist.files import UserError
from tips_dist.sections import recorded
from tips_dist.stability.goals import goal_table, thresholds
from tips_dist.study_file import parse_study

STUDY = "name: a\nrepresentations: [solo]\n"


@pytest.mark.parametrize(("text", "loss"), [("1 %", 0.01), ("0.5%", 0.005), ("0.02", 0.02), ("5 %", 0.05)])
def test_a_goal_is_a_share_or_per_cent(text: str, loss: float) -> None:
    assert parse_study(f"{STUDY}stopping: {{goal: {{loss: {text}}}}}", "x").stopping.goal.loss == pytest.approx(loss)


@pytest.mark.parametrize("text", ["0", "10 %", "1", "much", "1 % %", "nan %"])
def test_another_goal_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"x: stopping\.goal\.loss: ") as caught:
        parse_study(f"{STUDY}stopping: {{goal: {{loss: {text}}}}}", "x")
    assert "\n" not in str(caught.value)


def test_the_table_fills_in_what_the_policy_leaves_open() -> None:
    rows = goal_table()
    for place, loss in enumerate(rows["loss"]):
        filled = thresholds(Policy(), Goal(loss=loss))
        assert all(getattr(filled, name) == rows[name][place] for name in rows if name != "loss")
    between = thresholds(Policy(), Goal(loss=0.03)).plateau_share
    ends = [thresholds(Policy(), Goal(loss=loss)).plateau_share for loss in (0.02, 0.05)]
    assert between is not None
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0] >= between >= ends[1]
    assert thresholds(Policy(plateau_share=0.7), Goal(loss=0.05)).plateau_share == 0.7


def test_who_risks_more_waits_less() -> None:
    rows = goal_table()
    assert rows["loss"] == sorted(rows["loss"])
    assert rows["plateau_share"] == sorted(rows["plateau_share"], reverse=True)
    assert rows["drifting_alarm"] == sorted(rows["drifting_alarm"], reverse=True)


def test_a_run_from_before_goals_keeps_its_own_rules() -> None:
    old = {"divergence": "default", "plateau": "default", "policy": {"flat": 0.1}}
    found = recorded(Stopping, old)
    filled = thresholds(found.policy, found.goal)
    assert (filled.plateau_share, filled.plateau_wait, filled.plateau_progress) == (0.4, 0.0, 0.01)
    assert filled.crossing == 1.0
    assert filled.drifting_alarm == 10.0
