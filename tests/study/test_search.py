from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.study.conftest import LR, make_study
from tips_dist.config import SEARCH_STORAGE, Study
from tips_dist.files import UserError, read_json
from tips_dist.runfolder import Outcome, Trial, layout, read_trials
from tips_dist.runfolder import TrialState as State
from tips_dist.runfolder.example import outcome
from tips_dist.study.search import TrialSearch, open_storage, study_name

SAMPLERS = ["tpe", "gp", "nsga2", "cmaes", "qmc", "random", "grid"]
TWO = {**LR, "losses.cycle_2d": {"uniform": [0.0, 10.0]}}
GRID = {"training.generator_lr": {"choice": [1e-4, 1e-3]}, "losses.cycle_2d": {"choice": [1.0, 3.0, 10.0]}}


def finished(trial: Trial, risks: list[float], verdict: str = "healthy") -> Trial:
    seeds = [outcome(i, risk, verdict=verdict, reason="why") for i, risk in enumerate(risks)]
    ended = Outcome(seeds=seeds, training_seconds=1.0, parameters={})
    return trial.now(state=State.FINISHED, outcome=ended)


def open_search(study: Study, run: Path) -> tuple[TrialSearch, list[Trial]]:
    run.mkdir(exist_ok=True)
    search = TrialSearch(study, run)
    return search, search.recover()


def work_off(search: TrialSearch, run: Path, limit: int = 10**6) -> None:
    """Run trials to their end; the risk is the distance of cycle_2d from 7."""
    while limit and (trial := search.propose()):
        risk = abs(trial.configuration.losses.cycle_2d - 7.0)
        search.tell(finished(trial, [risk, risk]).write(run))
        limit -= 1


def optuna_trials(study: Study, run: Path, representation: str) -> list[optuna.trial.FrozenTrial]:
    name = study_name(run, representation)
    return optuna.load_study(study_name=name, storage=open_storage(study, run)).get_trials()


def parameters(run: Path) -> dict[str, Any]:
    return {trial.id: trial.parameters for trial in read_trials(run)}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_spends_equal_budgets_in_turns(sampler: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = make_study(search={"trials": 6, "sampler": sampler}, space=GRID if sampler == "grid" else TWO)
    search, unfinished = open_search(study, run)
    assert unfinished == []
    order = []
    while trial := search.propose():
        assert read_json(trial.folder(run) / "trial.json")["parameters"] == trial.parameters
        order.append(trial.id)
        search.tell(finished(trial, [float(trial.number)] * 2).write(run))
    assert order == [f"{name}-{n:03d}" for n in range(6) for name in ("solo", "torso_legs")]
    for name in study.representations:
        trials = optuna_trials(study, run, name)
        assert [t.state for t in trials] == [TrialState.COMPLETE] * 6
        assert [t.values for t in trials] == [[float(n)] for n in range(6)]
        assert len({str(t.params) for t in trials}) >= (4 if sampler == "nsga2" else 6)  # a child may be a copy


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_was_interrupted_proposes_what_an_undisturbed_one_does(sampler: str, tmp_path: Path) -> None:
    study = make_study(search={"trials": 8, "sampler": sampler}, space=GRID if sampler == "grid" else TWO)
    whole, broken = tmp_path / "whole" / "run", tmp_path / "broken" / "run"
    for run in (whole, broken):
        run.mkdir(parents=True)
    search, _ = open_search(study, whole)
    work_off(search, whole)
    for _ in range(20):  # a new process after every trial
        search, _ = open_search(study, broken)
        work_off(search, broken, limit=1)
    assert parameters(broken) == parameters(whole)


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 30), ("gp", 18), ("cmaes", 30)])
def test_samplers_with_history_learn(sampler: str, trials: int, tmp_path: Path) -> None:
    study = make_study(representations=["solo"], search={"trials": trials, "sampler": sampler}, space=TWO)
    run = tmp_path / "run"
    search, _ = open_search(study, run)
    work_off(search, run)
    risks = [t.seed_outcomes[0].best_risk or 0.0 for t in read_trials(run)]
    assert sum(risks[-8:]) < sum(risks[:8])


def test_states_told_to_optuna(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = make_study(representations=["solo"], search={"trials": 5, "sampler": "tpe"})
    search, _ = open_search(study, run)
    trials = [t for _ in range(5) if (t := search.propose())]
    search.tell(finished(trials[0], [1.0, 2.0]).write(run))
    search.tell(finished(trials[1], [1.0, 2.0], "diverged").write(run))
    search.tell(trials[2].now(state=State.STOPPED, error="stopped by the asha scheduler at step 5").write(run))
    search.tell(trials[3].now(state=State.FAILED, error="ValueError: no").write(run))
    search.tell(finished(trials[0], [9.0, 9.0]))  # told twice: the first stands
    told = optuna_trials(study, run, "solo")
    assert [t.state.name for t in told] == ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "RUNNING"]
    assert told[0].value == 1.5  # the median over the seeds
    assert told[1].user_attrs["verdicts"] == {"diverged": 2}
    assert told[1].user_attrs["reasons"] == ["seed 0: diverged: why", "seed 1: diverged: why"]
    assert told[2].user_attrs["reasons"] == ["stopped by the asha scheduler at step 5"]
    assert told[3].user_attrs["error"] == "ValueError: no"


def test_recover_cleans_orphans_and_tells_what_was_not_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = make_study(representations=["solo"], search={"trials": 4})
    search, _ = open_search(study, run)
    first, second = search.propose(), search.propose()
    assert first is not None
    assert second is not None
    finished(first, [1.0, 1.0]).write(run)  # killed before Optuna was told
    search.studies["solo"].ask()  # killed before the record was written
    search, unfinished = open_search(study, run)
    assert [trial.id for trial in unfinished] == ["solo-001"]
    assert [t.state.name for t in optuna_trials(study, run, "solo")] == ["COMPLETE", "RUNNING", "FAIL"]
    third = search.propose()
    assert third is not None
    assert third.id == "solo-002"


def test_the_records_rebuild_a_journal_that_is_gone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = make_study(representations=["solo"], search={"trials": 4, "sampler": "tpe"})
    search, _ = open_search(study, run)
    work_off(search, run, limit=2)
    search.propose()
    (run / layout.JOURNAL.name).unlink()
    search, unfinished = open_search(study, run)
    assert [trial.id for trial in unfinished] == ["solo-002"]
    told = optuna_trials(study, run, "solo")
    assert [t.state.name for t in told] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert {t.user_attrs["trial"]: t.params for t in told} == parameters(run)


def test_a_journal_line_cut_short_and_a_dead_lock_are_repaired(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = make_study(representations=["solo"], search={"trials": 4})
    search, _ = open_search(study, run)
    work_off(search, run, limit=2)
    with (run / layout.JOURNAL.name).open("ab") as stream:
        stream.write(b'{"op_code":4,"worker')
    (run / (layout.JOURNAL.name + ".lock")).symlink_to(layout.JOURNAL.name)
    search, _ = open_search(study, run)
    work_off(search, run)
    assert [t.state for t in optuna_trials(study, run, "solo")] == [TrialState.COMPLETE] * 4


def test_enqueued_points_come_first_and_need_not_be_whole(tmp_path: Path) -> None:
    run = tmp_path / "run"
    points = [{"losses.cycle_2d": 4.5, "training.generator_lr": 1e-3}, {"losses.cycle_2d": 5.5}]
    study = make_study(search={"trials": 3, "sampler": "tpe", "enqueue": points}, space=TWO)
    search, _ = open_search(study, run)
    work_off(search, run)
    drawn = parameters(run)
    assert drawn["solo-000"] == drawn["torso_legs-000"] == points[0]
    assert drawn["solo-001"]["losses.cycle_2d"] == 5.5
    assert drawn["solo-002"]["losses.cycle_2d"] not in (4.5, 5.5)


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_two_objectives(sampler: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    search_section = {"trials": 8, "sampler": sampler, "objectives": ["risk", "instability"]}
    study = make_study(representations=["solo"], search=search_section, space=TWO)
    search, _ = open_search(study, run)
    diverged = search.propose()
    assert diverged is not None
    search.tell(finished(diverged, [1.0, 2.0], "diverged").write(run))
    work_off(search, run)
    told = optuna_trials(study, run, "solo")
    assert told[0].state == TrialState.PRUNED
    assert all(len(t.values) == 2 for t in told[1:])


def test_another_optuna_storage_is_named_by_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlalchemy")
    run = tmp_path / "run"
    study = make_study(representations=["solo"], search={"trials": 2, "storage": "environment"})
    monkeypatch.delenv(SEARCH_STORAGE, raising=False)
    with pytest.raises(UserError, match=f"set {SEARCH_STORAGE}"):
        TrialSearch(study, run)
    monkeypatch.setenv(SEARCH_STORAGE, "nonsense://me:hunter2@host/db?password=hunter2")
    with pytest.raises(UserError, match=r"nonsense://…@host/db: cannot be opened") as caught:
        TrialSearch(study, run)
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv(SEARCH_STORAGE, f"sqlite:///{tmp_path / 'optuna.db'}")
    search, _ = open_search(study, run)
    work_off(search, run)
    assert not (run / layout.JOURNAL.name).exists()
    assert len(optuna_trials(study, run, "solo")) == 2


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_schedulers_stop_the_hopeless_and_survive_a_restart(scheduler: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = make_study(representations=["solo"], search={"trials": 8, "sampler": "random", "scheduler": scheduler})
    search, _ = open_search(study, run)
    for _ in range(6):
        good = search.propose()
        assert good is not None
        stopped = any(search.report(good.id, "solo", step, 1.0) for step in range(5, 41, 5))
        search.tell(finished(good, [1.0, 1.0]).write(run) if not stopped else good.now(state=State.STOPPED).write(run))
    bad = search.propose()
    assert bad is not None
    search, unfinished = open_search(study, run)  # a new process knows what the old one knew
    assert [trial.id for trial in unfinished] == [bad.id]
    steps = [step for step in range(5, 41, 5) if search.report(bad.id, "solo", step, 5.0)]
    assert steps
    idle = make_none(study, tmp_path)
    trial = idle.propose()
    assert trial is not None
    assert not [step for step in range(5, 41, 5) if idle.report(trial.id, "solo", step, 5.0)]
    (drawn,) = optuna_trials(study, tmp_path / "none", "solo")
    assert drawn.intermediate_values == dict.fromkeys(range(5, 41, 5), 5.0)  # for dashboards, all the same


def make_none(study: Study, folder: Path) -> TrialSearch:
    none = study.model_copy(update={"search": study.search.model_copy(update={"scheduler": "none"})})
    return open_search(none, folder / "none")[0]
