"""Which trials train as one program, and what the driver makes of their reports; no cluster."""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import make_study
from tests.study.test_search import finished
from tips_dist.config import Resources, Study
from tips_dist.runfolder import Outcome, Trial, TrialState, layout, read_trial, read_trials
from tips_dist.runfolder.choices import Selection
from tips_dist.runfolder.example import outcome
from tips_dist.selection import select
from tips_dist.study.cluster import Machine
from tips_dist.study.monitored import monitored_together, monitored_train
from tips_dist.study.packs import Packs, foreseen, rows_that_pay
from tips_dist.study.run import start
from tips_dist.study.search import TrialSearch
from tips_dist.study.trainable import one_by_one, run_pack
from tips_dist.study.tuning import Driver
from tips_dist.study_file import parse_study

SMALL = {"width": 32}  # of which a core takes 16 rows
FREE = {"trials": 16, "sampler": "random"}


def made(run: Path, room: int = 1, **changes: Any) -> tuple[TrialSearch, Packs, Driver]:
    values: dict[str, Any] = {"representations": ["solo"], "model": SMALL, "search": FREE, **changes}
    study = make_study(**values)
    search = TrialSearch(study, run)
    unfinished = search.recover()
    packs = Packs(study, search, study.resources, lambda: room)
    return search, packs, Driver(study, run, search, unfinished, lambda event: None, packs=packs)


def sizes(driver: Driver, most: int = 50) -> list[int]:
    """How many trials each pack has that is asked for at once."""
    found = []
    for number in range(most):
        config = driver.suggest(f"t{number}")
        if not isinstance(config, dict):
            break
        found.append(len(config["trials"]))
    return found


@pytest.mark.parametrize(
    ("room", "changes", "expected"),
    [
        (1, {}, [8, 8]),  # 16 rows of two seeds
        (1, {"seeds": 1}, [16]),
        (1, {"seeds": 32}, [1] * 16),
        (2, {"seeds": 1}, [8, 8]),  # as many packs as there are places
        (3, {"seeds": 1}, [5, 5, 5, 1]),
        (40, {}, [1] * 16),
        (1, {"model": {"width": 256}}, [1] * 16),  # one trial keeps a core busy
        (1, {"resources": {"pack": 1}}, [1] * 16),
        (1, {"resources": {"pack": 5}, "model": {"width": 256}}, [5, 5, 5, 1]),
        (1, {"resources": {"max_concurrent": 3}}, [3]),
        (1, {"resources": {"workers": 2, "cpus": 2, "pack": 4}}, [1] * 16),
        (1, {"search": {**FREE, "scheduler": "asha"}}, [1] * 16),
        (1, {"stopping": {"trials": "test"}}, [1] * 16),
        (1, {"representations": ["solo", "torso_legs"], "search": {**FREE, "trials": 8}}, [8, 8]),
        (1, {"search": {**FREE, "sampler": "tpe"}}, [8, 2, *[1] * 6]),  # ten at random, then none before one has ended
        (1, {"search": {**FREE, "sampler": "tpe"}, "resources": {"pack": 4}}, [4] * 4),
        (1, {"search": {**FREE, "sampler": "cmaes"}}, [1] * 16),
    ],
)
def test_sizes(tmp_path: Path, room: int, changes: dict[str, Any], expected: list[int]) -> None:
    _, _, driver = made(tmp_path, room, **changes)
    study = driver.study
    assert sizes(driver) == expected
    most = foreseen(study, study.configuration("solo"), study.resources, room)
    assert most == max(expected) or (study.search.sampler == "cmaes" and most == 3)  # once it has learnt from some


def test_a_learning_sampler_is_asked_for_a_quarter_of_what_it_knows(tmp_path: Path) -> None:
    search, packs, _ = made(tmp_path, search={"trials": 30, "sampler": "tpe"})
    for _ in range(17):
        trial = search.propose()
        assert trial is not None
        search.tell(finished(trial, [1.0, 2.0]).write(tmp_path))
    first = search.propose()
    assert first is not None
    pack = packs.fill(first, deque(), 0, 0)
    assert [trial.id for trial in pack] == ["solo-017", "solo-018", "solo-019", "solo-020"]
    knew = [one.user_attrs["knew"] for one in search.studies["solo"].get_trials()]
    assert knew == [*range(17), 17, 17, 17, 17]


def test_other_programs_wait_for_a_pack_of_their_own(tmp_path: Path) -> None:
    space = {"losses.bend": {"choice": [0.0, 1.0]}, "training.generator_lr": {"uniform": [1e-4, 1e-3]}}
    _, _, driver = made(tmp_path, space=space)
    ids: list[str] = []
    while isinstance(config := driver.suggest(str(len(ids))), dict):
        trials = [read_trial(tmp_path, identity) for identity in config["trials"]]
        assert len({trial.configuration.losses.bend for trial in trials}) == 1
        ids += config["trials"]
    assert sorted(ids) == [f"solo-{n:03d}" for n in range(16)]
    assert len(driver.live) < 8


def test_unfinished_trials_are_packed_first(tmp_path: Path) -> None:
    search, _, _ = made(tmp_path)
    for state in (TrialState.RUNNING, TrialState.PENDING):
        trial = search.propose()
        assert trial is not None
        trial.now(state=state).write(tmp_path)
    _, _, driver = made(tmp_path, seeds=2)
    config = driver.suggest("a")
    assert isinstance(config, dict)
    assert config["trials"][:3] == ["solo-000", "solo-001", "solo-002"]


def test_what_cannot_be_packed_is_said(tmp_path: Path) -> None:
    _, packs, _ = made(tmp_path, resources={"pack": 4}, stopping={"trials": "test"})
    assert packs.words() == "resources.pack: every trial trains by itself, as stopping.trials: test stops single trials"
    assert made(tmp_path, stopping={"trials": "test"})[1].words() == ""


@pytest.mark.parametrize(
    ("resources", "rows"),
    [({}, 4), ({"cpus": 2}, 8), ({"gpus": 1.0}, 128), ({"gpus": 0.25}, 32), ({"gpus": "auto"}, 4)],
)
def test_rows_that_pay(resources: dict[str, Any], rows: int) -> None:
    study = make_study(model={"width": 128})
    assert rows_that_pay(study.configuration("solo"), Resources(**resources)) == rows


def end(run: Path, identity: str, state: TrialState = TrialState.FINISHED) -> Trial:
    ended = Outcome(seeds=[outcome(0)], training_seconds=1.0, parameters={})
    return read_trial(run, identity).now(state=state, outcome=ended).write(run)


def test_a_trial_that_ends_before_its_pack_is_told_at_once(tmp_path: Path) -> None:
    search, _, driver = made(tmp_path, resources={"pack": 3})
    driver.suggest("a")
    end(tmp_path, "solo-001")
    driver.on_trial_result("a", {"trial": "solo-001", "ended": True})
    assert search.known("solo") == 1
    assert [trial.id for trial in driver.training()] == ["solo-000", "solo-002"]
    driver.on_trial_result("a", {"trial": "solo-002", "ended": True})  # its record is on its way
    assert [trial.id for trial in driver.training()] == ["solo-000"]
    for name in ("solo-000", "solo-002"):
        end(tmp_path, name)
    driver.on_trial_complete("a", {})
    assert search.known("solo") == 3
    assert driver.suggest("b") == {"trials": ["solo-003", "solo-004", "solo-005"]}


def test_the_trials_of_a_pack_whose_worker_dies_are_tried_alone_and_the_one_at_fault_fails(tmp_path: Path) -> None:
    _, _, driver = made(tmp_path, search={"trials": 2, "sampler": "random"})
    assert driver.suggest("a") == {"trials": ["solo-000", "solo-001"]}
    assert driver.suggest("b") is None  # they may come back
    driver.on_trial_complete("a", {}, error=True)
    assert driver.suggest("b") == {"trials": ["solo-000"]}
    assert driver.suggest("c") == {"trials": ["solo-001"]}
    end(tmp_path, "solo-000")
    driver.on_trial_complete("b", {})
    driver.on_trial_complete("c", {}, error=True)
    assert [read_trial(tmp_path, f"solo-00{n}").state for n in (0, 1)] == ["finished", "failed"]
    assert driver.suggest("d") == "FINISHED"


SMALL_STUDY = """
name: test
data: {procedural: {poses: 1500}}
representations: [solo]
seeds: 2
model: {width: 16, discriminator_blocks: 1}
training: {steps: 40, batch_size: 16, evaluate_every: 10, checkpoint_every: 2, validation_poses: 64}
stopping: {divergence: off, plateau: off, policy: {crossing: 1.0}}
search: {trials: 4, sampler: random}
space: {training.generator_lr: {log_uniform: [1.0e-4, 1.0e-3]}, losses.cycle_2d: {uniform: [1.0, 10.0]}}
resources: {pack: PACK}
"""


def run_packs(study: Study, run: Path, poses: Any, search: TrialSearch, unfinished: Any, *others: Any) -> None:
    """What the driver's ``run_trials`` does with the real loop, one pack after another in this process."""
    packs = Packs(study, search, study.resources.model_copy(update={"gpus": 0.0}), lambda: 1)
    driver = Driver(study, run, search, unfinished, lambda event: None, packs=packs)
    while isinstance(config := driver.suggest("here"), dict):
        together = monitored_together if len(config["trials"]) > 1 else one_by_one(monitored_train)
        run_pack(run, config["trials"], poses, together, lambda report: driver.on_trial_result("here", report))
        driver.on_trial_complete("here", {})


def test_a_study_in_packs_decides_what_it_decides_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tips_dist.study.run.connected", lambda *arguments: contextlib.nullcontext(Machine("cores", 1.0, 1.0))
    )
    monkeypatch.setattr("tips_dist.study.tuning.run_trials", run_packs)
    found = {}
    for pack in ("1", "auto"):
        text = SMALL_STUDY.replace("PACK", pack)
        path = tmp_path / f"{pack}.yaml"
        path.write_text(text)
        run = start(
            parse_study(text, str(path)),
            study_path=path,
            text=text,
            runs=tmp_path / pack,
            conclude=conclude,
        )
        found[pack] = Selection.load(layout.SELECTION.at(run)).model_dump(), read_trials(run)
    (alone, each), (packed, together) = found.values()
    same(packed, alone)
    assert [trial.outcome.execution.trials for trial in each if trial.outcome] == [1] * 4
    assert [trial.outcome.execution.trials for trial in together if trial.outcome] == [4] * 4


def conclude(run: Path, poses: Any) -> None:
    select(run)


def same(one: Any, other: Any, where: str = "") -> None:
    """Equal but for the rounding of packed numbers, 0.2 %."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            same(value, other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for place, value in enumerate(one):
            same(value, other[place], f"{where}[{place}]")
    else:
        near = isinstance(one, float) and isinstance(other, float)
        assert one == (pytest.approx(other, rel=2e-3, abs=1e-4) if near else other), where
