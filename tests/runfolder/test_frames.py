"""A run folder as tables, row by row; and what stopping saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tips_dist.files import StorageError
from tips_dist.runfolder import RunFolder, TrialState, example
from tips_dist.runfolder.budget import budget_of, frozen_seeds
from tips_dist.runfolder.depths import write_depths


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(example.build(tmp_path_factory.mktemp("frames") / "run", trials=2, seeds=2, steps=200))


def test_trials_and_their_seeds(run: RunFolder) -> None:
    trials, seeds = run.frame("trials"), run.frame("seeds")
    assert trials.trial.tolist() == [trial.id for trial in run.trials]
    for row, trial in zip(trials.to_dict("records"), run.trials, strict=True):
        assert (row["representation"], row["state"], row["seeds"]) == (trial.representation, trial.state, 2)
        assert (row["steps"], row["attempts"], row["started"]) == (trial.steps, trial.attempts, trial.started)
        assert {key: row[key] for key in trial.parameters} == trial.parameters
        assert "outcome" not in row
    expected = [(trial.id, one.seed, one.verdict, one.best_risk) for trial in run.trials for one in trial.seed_outcomes]
    assert list(zip(seeds.trial, seeds.seed, seeds.verdict, seeds.best_risk, strict=True)) == expected
    assert not {"values", "candidates"} & set(seeds.columns)


def test_choices_and_errors(run: RunFolder) -> None:
    assert run.selection is not None
    assert run.evaluation is not None
    chosen, errors = run.frame("selection"), run.frame("evaluation")
    assert list(zip(chosen.trial, chosen.seed, chosen.step, strict=True)) == [
        (one.trial, one.seed, one.step) for one in run.selection.seeds
    ]
    assert "looks" not in chosen.columns
    expected = [
        (name, trial.representation, seed, which, getattr(found, which).n_mpjpe)
        for name, trial in run.evaluation.trials.items()
        for seed, found in trial.seeds.items()
        for which in type(found).model_fields
        if which != "non_finite_steps" and getattr(found, which) is not None
    ]
    columns = [errors[name] for name in ("trial", "representation", "seed", "checkpoint", "n_mpjpe")]
    assert list(zip(*columns, strict=True)) == expected


def test_steps_carry_what_is_known_of_their_trial_and_true_errors(run: RunFolder) -> None:
    steps = run.frame()
    assert steps.columns[:2].tolist() == ["trial", "representation"]
    trial = run.trials[0]
    own = steps[(steps.trial == trial.id) & (steps.seed == 1)]
    curve = run.curves.of(trial.id, 1)
    assert curve is not None
    assert own.step.tolist() == curve.steps.tolist()
    np.testing.assert_array_equal(own.n_mpjpe, curve.errors["n_mpjpe"])
    for key, value in trial.parameters.items():
        assert (own[key] == value).all()


def test_tables_of_nothing_are_empty(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    example.study_record().save(folder / "study.json")
    bare = RunFolder(folder)
    assert [len(bare.frame(of)) for of in ("steps", "trials", "seeds", "selection", "evaluation")] == [0] * 5


# --- what stopping saved ---------------------------------------------------------------------------------------------


def test_the_budget_of_a_few_trials_by_hand() -> None:
    outcomes = [
        example.outcome(0, stopped_step=120),
        example.outcome(1, stopped_step=400, frozen=350),
        example.outcome(2, stopped_step=400),
    ]
    ended = example.trial("solo-000", outcomes)
    ended = ended.now(thaw=[2])
    steps = ended.steps
    cut = example.trial("solo-001", outcomes[:2]).now(state=TrialState.STOPPED, stopped_step=100, outcome=None)
    uncut = cut.now(stopped_step=None)
    failed = ended.now(state=TrialState.FAILED)
    found = budget_of([ended, cut, uncut, failed, ended.now(state=TrialState.RUNNING)])
    assert found.planned == steps * (len(ended.seeds) + 2 * len(cut.seeds))
    assert found.trained == 120 + 400 + 400 + 100 * len(cut.seeds) + steps * len(uncut.seeds)
    assert found.frozen == 1 + 2 * len(cut.seeds)
    assert (found.revived, found.stopped_trials) == (1, 2)
    assert found.saved == found.planned - found.trained
    assert frozen_seeds(ended) == [1]
    assert frozen_seeds(cut) == list(cut.seeds)


# --- depths ----------------------------------------------------------------------------------------------------------


def test_depths_are_written_step_by_step_and_seed_by_seed(tmp_path: Path) -> None:
    path, shape = tmp_path / "depths.npy", (3, 2, 4, 17)
    steps = np.random.default_rng(0).normal(size=(3, 2, 4, 17))
    steps[1, 0, 0, :2] = 1e9, -1e9
    write_depths(path, shape, 1, steps[1])
    write_depths(path, shape, 2, steps[2, 1:], places=[1])
    found = np.load(path)
    assert (found.shape, found.dtype) == (shape, np.float16)
    assert found[1, 0, 0, :2].tolist() == [1e4, -1e4]  # what float16 holds; such depths are gone anyway
    np.testing.assert_allclose(found[1], steps[1].clip(-1e4, 1e4), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[2, 1], steps[2, 1], rtol=1e-3, atol=1e-4)
    assert not found[0].any()
    assert not found[2, 0].any()
    with pytest.raises(StorageError, match="nowhere"):
        write_depths(tmp_path / "nowhere" / "depths.npy", shape, 0, steps[0])
