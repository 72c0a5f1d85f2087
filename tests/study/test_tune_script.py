"""Somebody's own Ray Tune script with our stopper, on the real Ray."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.chaos  # as long as all that it shows is shown by tests/adapters/test_tune.py too
def test_the_stopper_ends_trials_that_explode_and_all_are_recorded(ray_session: None, tmp_path: Path) -> None:
    script = runpy.run_path(str(EXAMPLES / "tune_script.py"))
    run = script["main"](tmp_path / "run", steps=500, every=25, trials=3)
    seeds = run.frame("seeds").set_index("lr")
    assert len(seeds) == 3
    assert seeds["stopped_step"].iloc[0] == 500
    highest = seeds.sort_index().iloc[-1]
    assert highest["verdict"] in ("non_finite", "collapsed", "diverged")
    assert highest["stopped_step"] < 500
    assert set(run.frame("trials")["state"]) == {"finished"}
    assert "agreement/views" in run.frame().columns
