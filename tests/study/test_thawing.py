"""Frozen seeds that go on: when a person says so, and with the steps that stopping saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeTraining, fake_conclude
from tips_dist.files import UserError
from tips_dist.runfolder import RunFolder, TrialState, read_trial, read_trials
from tips_dist.runfolder.budget import budget_of
from tips_dist.study.run import resume, status
from tips_dist.study.thawing import saved_steps

LR_KEY = "training.generator_lr"
Launch = Callable[..., Path]
STOPS = {"solo-000": {0: 20}, "solo-001": {0: 10, 1: 20}}


def training(**options: Any) -> FakeTraining:
    return FakeTraining(diverge=STOPS, **options)


def thawed(run: Path, *selectors: str, train: FakeTraining | None = None) -> list[str]:
    """Resume with --thaw and return what was said."""
    said: list[str] = []
    resume(run, train=train or training(), conclude=fake_conclude, thaw=selectors, notice=said.append)
    return said


def stopped(run: Path) -> dict[str, list[int]]:
    return {trial.id: [seed.stopped_step for seed in trial.seed_outcomes] for trial in read_trials(run)}


def test_all_frozen_seeds_go_on_and_a_second_time_changes_nothing(inline: Launch) -> None:
    run = inline(training(), representations=["solo"])
    assert stopped(run) == {"solo-000": [20, 40], "solo-001": [10, 20]}
    assert (status(run).frozen, status(run).revived) == (3, 0)
    assert thawed(run) == ["thawed: solo-000 seed 0", "thawed: solo-001 seed 0, 1"]
    assert stopped(run) == {"solo-000": [40, 40], "solo-001": [40, 40]}
    assert (status(run).frozen, status(run).revived) == (0, 3)
    before = {path: path.read_bytes() for path in run.rglob("trial.json")}
    (line,) = thawed(run, train=FakeTraining(fail={"solo-000": 1}))
    assert line.startswith(f"{run}: nothing is frozen, so nothing was thawed")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("selectors", "revived"),
    [
        (["solo-001"], {"solo-001": [0, 1]}),
        (["solo-001:1", "solo-000:0"], {"solo-000": [0], "solo-001": [1]}),
        (["diverged"], {"solo-000": [0], "solo-001": [0, 1]}),
        (["healthy"], {}),
        (["solo-000:1"], {}),
    ],
)
def test_seeds_are_named_by_trial_number_or_verdict(
    inline: Launch, selectors: list[str], revived: dict[str, list[int]]
) -> None:
    run = inline(training(), representations=["solo"])
    said = thawed(run, *selectors)
    assert {trial.id: trial.thaw for trial in read_trials(run) if trial.thaw} == revived
    if not revived:
        assert "nothing is frozen among" in said[0]


@pytest.mark.parametrize("selector", ["solo-007", "solo-000:5", "solo-000:", "plateaued", "torso_legs-000:0"])
def test_a_selector_that_names_nothing_is_refused(inline: Launch, selector: str) -> None:
    run = inline(training(), representations=["solo"])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"--thaw {selector}: names nothing of .*TRIAL:SEED"):
        thawed(run, selector)
    assert {path: path.read_bytes() for path in before if path.exists()} == before


def test_a_state_that_is_lost_is_said_and_the_others_go_on(inline: Launch) -> None:
    run = inline(training(), representations=["solo"])
    lost = run / "trials" / "solo-001" / "frozen" / "seed0.safetensors"
    lost.write_bytes(b"{}")
    said = thawed(run)
    assert "solo-001 seed 0 stays where it stopped" in said[0]
    assert read_trial(run, "solo-001").thaw == [1]


def test_killed_while_it_thaws_a_plain_resume_goes_on(inline: Launch) -> None:
    run = inline(training(), representations=["solo"])
    thawed(run, "solo-001", train=training(fail={"solo-001": 7}))
    trial = read_trial(run, "solo-001")
    assert (trial.state, trial.thaw) == ("failed", [0, 1])
    trial.now(state=TrialState.RUNNING).write(run)  # as a driver that was killed leaves it
    resume(run, train=training(), conclude=fake_conclude)
    assert stopped(run)["solo-001"] == [40, 40]


def test_a_trial_that_was_stopped_as_a_whole_goes_on_as_a_whole(inline: Launch) -> None:
    run = inline(representations=["solo"])
    whole = read_trial(run, "solo-000")
    whole.now(state=TrialState.STOPPED, outcome=None, stopped_step=20, error="stopped at step 20").write(run)
    found = budget_of(read_trials(run))
    assert (found.frozen, found.saved, found.stopped_trials) == (2, 40, 1)
    with pytest.raises(UserError, match="thaw it as a whole: solo-000"):
        thawed(run, "solo-000:1")
    assert thawed(run, "solo-000") == ["thawed: solo-000 seed 0, 1"]
    again = read_trial(run, "solo-000")
    assert (again.state, again.error, again.thaw) == ("finished", None, [0, 1])
    assert stopped(run)["solo-000"] == [40, 40]
    assert budget_of(read_trials(run)).saved == 0


def test_by_default_saved_steps_are_saved(inline: Launch) -> None:
    run = inline(training(verdict="plateaued"), representations=["solo"])
    assert budget_of(read_trials(run)).model_dump() == {
        "planned": 160,
        "trained": 90,
        "frozen": 3,
        "revived": 0,
        "stopped_trials": 0,
    }
    assert budget_of(read_trials(run)).saved == 70


def test_saved_steps_go_to_sound_frozen_seeds_of_low_risk(inline: Launch) -> None:
    run = inline(training(verdict="plateaued"), representations=["solo"], stopping={"freed": "thaw"})
    trials = read_trials(run)
    risks = sorted(seed.best_risk or 0 for trial in trials for seed in trial.seed_outcomes)
    revived = [seed for trial in trials for seed in trial.seed_outcomes if seed.seed in trial.thaw]
    assert 0 < len(revived) < 3
    assert all((seed.best_risk or 9) <= risks[1] for seed in revived)
    assert saved_steps(RunFolder(run).study, trials) == budget_of(trials).saved > 0
    assert not any(trial.thaw for trial in read_trials(inline(training(), name="bad", stopping={"freed": "thaw"})))


def test_saved_steps_go_to_further_trials_and_never_more_than_were_saved(inline: Launch) -> None:
    """Of each trial both seeds stop halfway: two trials pay for one more, which pays for nothing."""
    halfway = FakeTraining(diverge={f"solo-{number:03d}": {0: 20, 1: 20} for number in range(9)})
    run = inline(halfway, representations=["solo"], stopping={"freed": "trials"})
    record, trials = RunFolder(run).study, read_trials(run)
    assert [trial.id for trial in trials] == ["solo-000", "solo-001", "solo-002"]
    assert [(extension.trials, extension.freed) for extension in record.extensions] == [(1, True)]
    assert record.asked.search.trials == 2
    assert saved_steps(record, trials) == 40  # what the third saved is half of what a fourth would need
    resume(run, train=halfway, conclude=fake_conclude)
    assert len(read_trials(run)) == 3


def test_with_one_seed_a_trial_the_test_says_that_it_stops_none(inline: Launch, capsys: Any) -> None:
    inline(representations=["solo"], seeds=1, stopping={"trials": "test"})
    assert "with one seed each it stops none" in capsys.readouterr().err


def test_on_ray_a_surely_worse_trial_is_stopped_and_thawed_ends_as_if_it_had_not(
    launch: Launch, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"representations": ["solo"], "seeds": 4, "resources": {"max_concurrent": 1}}
    search = {"trials": 3, "sampler": "random", "enqueue": [{LR_KEY: 3.2e-4}, {LR_KEY: 1.0e-5}, {LR_KEY: 3.0e-4}]}
    run = launch(FakeTraining(step_seconds=0.002), search=search, stopping={"trials": "test"}, **changes)
    trials = read_trials(run)
    assert [trial.state for trial in trials] == ["finished", "stopped", "finished"]
    assert "surely worse than solo-000" in (trials[1].error or "")
    assert trials[1].stopped_step == 15  # the first look: 12 of 40 steps
    assert thawed(run, train=FakeTraining()) == ["thawed: solo-001 seed 0, 1, 2, 3"]
    calm = launch(FakeTraining(), name="calm", search=search, **changes)
    assert [trial.outcome for trial in read_trials(run)] == [trial.outcome for trial in read_trials(calm)]
