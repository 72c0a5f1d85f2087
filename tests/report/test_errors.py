"""The paper-style tables show what the metrics say."""

from __future__ import annotations

from tips_dist.report.errors import ERROR_COLUMNS, error_tables
from tips_dist.runfolder import example


def test_overall_and_by_action() -> None:
    values = {name: 100.0 + index for index, name in enumerate(ERROR_COLUMNS)}
    rates = {f"{name}{suffix}": 50.0 for name in ("mpjpe", "pck_150", "auc_150") for suffix in ("", "_resolved")}
    by = {"action": {"walking": values, "running": {**values, "n_mpjpe": None}}}
    metrics = example.metrics(**values, **rates, poses=7, interval={"n_mpjpe": [90.0, 110.0]}, by=by)
    overall, actions = error_tables(metrics, "student on test")
    assert overall.title == "student on test: 7 poses, mm"
    assert ("N-MPJPE as predicted", "100.0", "[90.0, 110.0]") in overall.rows
    assert ("PA-MPJPE reflected", "104.0", "") in overall.rows
    assert ("PCK@150, %, sign-resolved", "50.0", "") in overall.rows
    assert actions.rows[0] == ("walking", "100.0", "101.0", "102.0", "103.0", "104.0")
    assert actions.rows[1][:2] == ("running", "-")
    assert actions.rows[-1][0] == "all"
    assert all(len(row) == len(actions.head) for row in actions.rows)
