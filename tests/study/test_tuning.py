"""The driver's judgement of workers and reports, without a cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.study.conftest import make_study
from tests.study.test_records import make_trial
from tips_dist.config import Resources
from tips_dist.runfolder import HistoryRow, Outcome, TrialState, layout, read_trial
from tips_dist.runfolder.example import outcome
from tips_dist.runfolder.history import append
from tips_dist.runfolder.spent import Spent
from tips_dist.study.heartbeats import Heartbeats
from tips_dist.study.search import TrialSearch
from tips_dist.study.trainable import NO_RISK, SPENT
from tips_dist.study.tuning import Driver

START = 1_700_000_000_000_000_000  # a wall clock, in ns
SECOND = 1_000_000_000


def make_watch(tmp_path: Path, limit: float = 10.0) -> Heartbeats:
    study = make_study(resources={"heartbeat_seconds": limit})
    return Heartbeats(SimpleNamespace(study=study, run=tmp_path, training=list))


# (what the file's time is, our clock) in order -> at which looks the worker is called hung
HEARTBEATS: dict[str, tuple[list[tuple[int, float]], list[bool]]] = {
    "alive": ([(START + i * SECOND, i * 5.0) for i in range(5)], [False] * 5),
    "hung": ([(START, 0.0), (START, 9.0), (START, 11.0)], [False, False, True]),
    "hung, then back": (
        [(START, 0.0), (START, 11.0), (START + 1, 12.0), (START + 1, 13.0)],
        [False, True, False, False],
    ),
    "clock jumps ahead": ([(START, 0.0), (START + 10**6 * SECOND, 5.0)], [False, False]),
    "clock jumps back": ([(START, 0.0), (START - 10**6 * SECOND, 5.0), (START - 10**6 * SECOND, 14.0)], [False] * 3),
    "another host's clock": ([(START - 10**9 * SECOND + i, 5.0 * i) for i in range(5)], [False] * 5),
    "not started": ([(0, 0.0), (0, 100.0)], [False, False]),
    "storage away": ([(START, 0.0), (0, 30.0), (START, 31.0), (START, 40.0)], [False] * 4),
}


@pytest.mark.parametrize("name", HEARTBEATS)
def test_heartbeats(name: str, tmp_path: Path) -> None:
    looks, expected = HEARTBEATS[name]
    watch = make_watch(tmp_path)
    assert [watch.hangs("solo-000", changed, now) for changed, now in looks] == expected


def test_what_a_dead_worker_left_behind_is_not_held_against_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "solo-000"
    folder.mkdir(parents=True)
    (folder / "alive.json").write_text("{}")
    changed = (folder / "alive.json").stat().st_mtime_ns
    watch = make_watch(tmp_path)
    watch.on_trial_start(0, [], SimpleNamespace(config={"trials": ["solo-000"]}))
    assert not watch.hangs("solo-000", changed, 0.0)
    assert not watch.hangs("solo-000", changed, 1000.0)
    assert not watch.hangs("solo-000", changed + 1, 1001.0)
    assert watch.hangs("solo-000", changed + 1, 1012.0)
    assert not watch.hangs("solo-000", changed + 2, 1013.0)
    (folder / "alive.json").write_text("{} ")
    changed = (folder / "alive.json").stat().st_mtime_ns
    watch.on_trial_recover(0, [], SimpleNamespace(config={"trials": ["solo-000"]}))
    assert not watch.hangs("solo-000", changed, 2000.0)  # its worker died, and the next one is not there yet
    assert not watch.hangs("solo-000", changed, 3000.0)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    study = make_study(representations=["solo"], search={"trials": 8, "sampler": "random", "scheduler": "median"})
    search = TrialSearch(study, tmp_path)
    search.recover()
    return Driver(study, tmp_path, search, [], lambda event: None)


def result(step: int, risk: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "steps": 40, "risk": risk, "judged": risk != NO_RISK, "steps_per_second": 1.0, **more}


def finish(driver: Driver, identity: str) -> None:
    ended = Outcome(seeds=[outcome(0)], training_seconds=1.0, parameters={})
    name = driver.live[identity][0].id
    read_trial(driver.run, name).now(state=TrialState.FINISHED, outcome=ended).write(driver.run)
    driver.on_trial_complete(identity, result(40, 1.0))


def test_reports_without_a_risk_stop_nobody_and_teach_the_scheduler_nothing(driver: Driver) -> None:
    for number in range(4):
        driver.suggest(f"t{number}")
        for step in range(5, 41, 5):
            assert not driver.prune(f"t{number}", result(step, 1.0))
        finish(driver, f"t{number}")
    driver.suggest("silent")
    assert not any(driver.prune("silent", result(step, NO_RISK)) for step in range(5, 41, 5))
    driver.suggest("good")
    assert not any(driver.prune("good", result(step, 0.9)) for step in range(5, 41, 5))
    driver.suggest("bad")
    assert any(driver.prune("bad", result(step, 2.0)) for step in range(5, 41, 5))


def test_a_result_that_only_says_done_is_not_a_report(driver: Driver) -> None:
    driver.suggest("t")
    assert not driver.prune("t", result(5, 1.0, done=True))
    assert not driver.prune("unknown", result(5, 1.0))


def test_storage_trouble_of_one_trial_ends_the_study(driver: Driver) -> None:
    driver.suggest("t")
    driver.on_trial_result("t", {"trial": "solo-000", "halt": "the disk is full"})
    assert driver.suggest("next") == "FINISHED"
    assert driver.halted == "the disk is full"
    driver.on_trial_complete("t", {}, error=True)
    assert read_trial(driver.run, "solo-000").state == "pending"  # a resume goes on with it


def test_at_most_so_many_at_a_time(driver: Driver) -> None:
    driver.study = driver.study.model_copy(update={"resources": Resources(max_concurrent=2)})
    assert driver.suggest("a") == {"trials": ["solo-000"]}
    assert driver.suggest("b") == {"trials": ["solo-001"]}
    assert driver.suggest("c") is None  # which tells Tune to ask again later
    finish(driver, "a")
    assert driver.suggest("c") == {"trials": ["solo-002"]}
    assert driver.suggest("d") is None


def test_one_trial_waits_for_a_place_and_no_more(driver: Driver) -> None:
    places = [2]
    driver._room = lambda: places[0]
    assert [driver.suggest(name) is not None for name in "abcd"] == [True, True, True, False]
    finish(driver, "a")
    assert [driver.suggest(name) is not None for name in "de"] == [True, False]
    places[0] = 3  # a node came
    assert [driver.suggest(name) is not None for name in "ef"] == [True, False]


def test_a_trial_that_is_stopped_as_a_whole_keeps_what_its_time_went_to(driver: Driver) -> None:
    for number in range(4):
        driver.suggest(f"t{number}")
        for step in range(5, 41, 5):
            driver.prune(f"t{number}", result(step, 1.0))
        finish(driver, f"t{number}")
    driver.suggest("bad")
    name = driver.live["bad"][0].id
    assert any(driver.prune("bad", result(step, 2.0)) for step in range(5, 41, 5))
    driver.on_trial_complete("bad", result(40, 2.0, **{f"{SPENT}steps": 3.0, f"{SPENT}evaluation": 0.5}))
    assert read_trial(driver.run, name).spent == Spent(steps=3.0, evaluation=0.5)


def test_unfinished_trials_come_before_new_ones(tmp_path: Path) -> None:
    study = make_study(representations=["solo"])
    search = TrialSearch(study, tmp_path)
    make_trial(0).now(state=TrialState.RUNNING, attempts=1).write(tmp_path)
    driver = Driver(study, tmp_path, search, search.recover(), lambda event: None)
    assert driver.suggest("a") == {"trials": ["solo-000"]}
    assert driver.suggest("b") == {"trials": ["solo-001"]}
    assert driver.suggest("c") == "FINISHED"


@pytest.mark.parametrize(("risk", "stopped"), [(9.0, True), (1.02, False)])
def test_a_trial_is_stopped_when_its_seeds_are_clear_of_the_best(tmp_path: Path, risk: float, stopped: bool) -> None:
    study = make_study(representations=["solo"], seeds=3, stopping={"trials": "test"})
    search = TrialSearch(study, tmp_path)
    search.recover()
    driver = Driver(study, tmp_path, search, [], lambda event: None)
    for name, level in (("good", 1.0), ("bad", risk)):
        driver.suggest(name)
        history = layout.HISTORY.at(tmp_path, driver.live[name][0].id)
        append(history, [HistoryRow(20, seed, level + 0.01 * seed, "healthy") for seed in range(3)])
    assert not driver.prune("bad", result(15, risk))  # no look
    assert not driver.prune("good", result(20, 1.0))
    assert driver.prune("bad", result(20, risk)) is stopped
    driver.on_trial_complete("bad", {"time_total_s": 1.0})
    trial = read_trial(tmp_path, "solo-001")
    assert (trial.state, trial.stopped_step) == (("stopped", 20) if stopped else ("pending", None))
    if stopped:
        assert "stopped at step 20: surely worse than solo-000: risk 9.01 against 1.01" in (trial.error or "")
        again = Driver(study, tmp_path, search, [trial.now(state=TrialState.PENDING, thaw=[0, 1, 2])], lambda _: None)
        again.suggest("bad")
        assert not again.prune("bad", result(20, risk))  # it was thawed


def test_a_trial_whose_worker_always_dies_says_why(driver: Driver) -> None:
    driver.suggest("t")
    driver.failures.hear(["solo-000"], "The actor is dead because its worker process has died. SYSTEM_ERROR", "n")
    driver.failures.hung("solo-000", 60.0)
    driver.failures.hear(["solo-000"], "The actor is dead because its worker process has died. SYSTEM_ERROR", "n")
    driver.on_trial_complete("t", {}, error=True)
    trial = read_trial(driver.run, "solo-000")
    assert trial.state == "failed"
    assert (trial.error or "").startswith(
        "its worker hung (no sign of life for 60 s) and was killed (once); before, once"
    )


def test_a_trial_that_met_a_node_without_a_plug_in_is_tried_again_and_then_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(representations=["solo"], search={"trials": 1}, space={}, resources={"max_failures": 1})
    search = TrialSearch(study, tmp_path)
    search.recover()
    driver = Driver(study, tmp_path, search, [], lambda event: None, strangers=True)
    for name in ("a", "b"):
        assert driver.suggest(name) == {"trials": ["solo-000"]}
        assert driver.suggest("other") is None  # it may come back
        driver.on_trial_result(name, {"trial": "solo-000", "lacks": "plug-in mine: on node it is not installed"})
        driver.on_trial_complete(name, {})
    assert driver.suggest("c") == "FINISHED"
    assert driver.halted is None
    left = read_trial(tmp_path, "solo-000")
    assert (left.state, left.error) == ("pending", "plug-in mine: on node it is not installed")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("plug-in mine: on node it is not installed; its trials are tried on other nodes")
