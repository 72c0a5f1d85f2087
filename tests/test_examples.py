"""The examples run: the foreign loop and its watch."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_watch_stops_a_foreign_loop_that_diverges_and_keeps_what_was_before(tmp_path: Path) -> None:
    loop = runpy.run_path(str(EXAMPLES / "foreign_loop.py"))
    run = loop["main"](tmp_path / "run", steps=1000, every=50, diverge_at=300)
    (trial,) = run.trials
    (ended,) = trial.seed_outcomes
    assert ended.verdict in ("diverged", "collapsed", "non_finite")
    assert 300 < ended.stopped_step < 1000
    assert ended.best_step <= 300
    assert list((tmp_path / "run").glob(f"trials/*/kept/step-{ended.best_step:09d}"))
