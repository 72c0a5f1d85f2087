"""The stopper and the recorder of your own Ray Tune script; the real Ray runs in tests/study/test_tune_script.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import tips_dist as td
from tips_dist.adapters.tune import RunFolderCallback, VerdictStopper
from tips_dist.cli import app
from tips_dist.files import UserError


def reports(*, broken_at: int | None = None) -> list[dict[str, Any]]:
    return [
        {
            "training_iteration": step,
            "risk/total": 100.0 / step,
            "generator": {"loss": float("nan") if step == broken_at else 0.3},
            "accuracy": 0.6,
            "verdict": "a word",
            "time_total_s": 3.0,
            "config": {"lr": 1e-3},
        }
        for step in range(1, 11)
    ]


def test_it_stops_the_trial_whose_numbers_are_gone_and_no_other() -> None:
    stopper = VerdictStopper(steps=10)
    good = [stopper("a", report) for report in reports()]
    bad = [stopper("b", report) for report in reports(broken_at=4)]
    assert not any(good)
    assert bad.index(True) == 3
    assert stopper.verdict("b").reason == "not finite: generator/loss"
    assert not stopper.stop_all()
    assert pickle.loads(pickle.dumps(stopper)).verdict("b") == stopper.verdict("b")


def test_what_trials_report_is_a_run_folder(tmp_path: Path) -> None:
    callback = pickle.loads(pickle.dumps(RunFolderCallback(tmp_path / "run", steps=10)))
    trials = [
        SimpleNamespace(trial_id=name, config={"lr": lr, "net": {"width": 8}}) for name, lr in (("a", 0.1), ("b", 9.0))
    ]
    for index in range(10):
        for trial, broken_at in zip(trials, (None, 4), strict=True):
            callback.on_trial_result(index, trials, trial, reports(broken_at=broken_at)[index])
    callback.on_trial_result(10, trials, trials[0], reports()[3])  # of a worker that began again
    callback.on_trial_complete(10, trials, trials[0])
    callback.on_trial_error(10, trials, trials[1])
    run = td.RunFolder(tmp_path / "run")
    assert [trial.state for trial in run.trials] == ["finished", "failed"]
    assert run.trials[0].parameters == {"tune": "a", "lr": 0.1, "net/width": 8}
    assert [row["verdict"] for row in run.frame("seeds").to_dict("records")] == ["healthy", "non_finite"]
    frame = run.frame()
    assert len(frame) == 20
    assert {"generator/loss", "loop/accuracy"} <= set(frame.columns)
    assert not [name for name in frame.columns if "time" in name or "config" in name]
    for command in ("summary", "report", "audit", "status"):
        found = CliRunner().invoke(app, [command, str(run.path)])
        assert found.exit_code == 0, f"{command}: {found.output} {found.exception!r}"


def test_settings_that_do_not_fit_are_said_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"VerdictStopper: stoping: unknown key"):
        VerdictStopper(steps=10, settings={"stoping": {}})
    with pytest.raises(UserError, match=r"RunFolderCallback: .*not a multiple"):
        RunFolderCallback(tmp_path, steps=10, every=3)
