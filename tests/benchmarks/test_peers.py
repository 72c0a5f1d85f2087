"""The peers' errors on test people are those of the weights that their runs left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.compare import Unseen, unseen, unseen_table
from benchmarks.recipe import SEEDS, Run, finish, load
from tips_dist.data import procedural
from tips_dist.data.store import normalisation_scale
from tips_dist.evaluation.measuring import Bench
from tips_dist.registry import unregister
from tips_dist.training.validation import validation_rows

unregister("losses", "flow_prior")  # which the import brought; other tests of this process know built-in parts alone

VALUES: dict[str, float | str | bool] = {
    "model.width": 12, "training.steps": 100, "training.batch_size": 16, "training.validation_poses": 64,
    "training.candidates": 2,
}  # fmt: skip


def test_weights_have_the_errors_that_the_run_recorded(tmp_path: Path) -> None:
    """On the run's own validation poses: at the last evaluation step, and where each seed's risk chose."""
    poses, joints = procedural.generate(1200, 5, cameras=2)
    run = Run("tiny", "torso_legs", VALUES)
    finish(run, poses, joints, tmp_path)
    curve = load(run, tmp_path)
    assert curve is not None
    bench = Bench.of(poses, joints, validation_rows(poses, 64), normalisation_scale(poses))
    found = unseen(curve, bench, tmp_path / run.name)
    assert found.last == pytest.approx(curve.errors[-1], rel=2e-3)  # depths are recorded as float16
    places = np.searchsorted(curve.steps, curve.chosen)
    assert found.chosen == pytest.approx(curve.errors[places, np.arange(len(SEEDS))], rel=2e-3)
    assert (places < len(curve.steps) - 1).any()  # so the two are not the same weights


def test_others_are_held_against_our_choice() -> None:
    ours = Unseen(np.array([9.0, 9.0]), np.array([1.0, 3.0]))
    other = Unseen(np.array([7.0, 9.0]), np.array([5.0, 5.0]))
    lines = unseen_table({"ours": ours, "other": other}).splitlines()
    assert lines[2].endswith("| 2.0 (1.0..3.0) |  |")
    assert "| other | 8.0 (7.0..9.0) | 5.0 (5.0..5.0) | +6.0 (" in lines[3]
