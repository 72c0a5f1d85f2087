from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
import pytest

from tests.fakes import FakeTraining, fake_conclude, fake_poses
from tests.study.conftest import LR, study_values
from tips_dist.data.writer import write_poses
from tips_dist.files import UserError, read_json, write_json
from tips_dist.runfolder import RunFolder, read_trial, read_trials
from tips_dist.study.records import StudyEvent
from tips_dist.study.run import StudyInterrupted, resume, start, status
from tips_dist.study.search import open_storage, study_name

Launch = Callable[..., Path]


def journal_states(run: Path, representation: str) -> list[str]:
    study = RunFolder(run).study.study
    storage = open_storage(study, run)
    name = study_name(run, representation)
    return [t.state.name for t in optuna.load_study(study_name=name, storage=storage).get_trials()]


def decisions(run: Path) -> Any:
    """What must not depend on who was killed when."""
    trials = {t.id: (t.parameters, t.state, t.outcome) for t in read_trials(run)}
    return trials, read_json(run / "selection.json")


def again(run: Path, **options: Any) -> Path:
    return resume(run, **{"train": FakeTraining(), "conclude": fake_conclude, **options})


def test_a_study_runs_to_its_end(launch: Launch, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[StudyEvent] = []
    run = launch(FakeTraining(diverge={"solo-001": {0: 20, 1: 10}}, fail={"torso_legs-001": 7}), events.append)
    assert capfd.readouterr() == ("", "")  # the live view has the terminal to itself
    states = {t.id: t.state for t in read_trials(run)}
    assert states == {
        "solo-000": "finished",
        "solo-001": "finished",
        "torso_legs-000": "finished",
        "torso_legs-001": "failed",
    }
    assert journal_states(run, "solo") == ["COMPLETE", "PRUNED"]
    assert journal_states(run, "torso_legs") == ["COMPLETE", "FAIL"]
    assert (run / "selection.json").exists()
    last = {event.trial: event for event in events}
    assert {trial: event.state for trial, event in last.items()} == states
    assert last["torso_legs-001"].error == "ValueError: told to fail at step 7"
    steps = [event.step for event in events if event.trial == "solo-000" and event.state == "running"]
    assert steps == list(range(5, 41, 5))
    ended = next(e for e in events if e.trial == "solo-001" and e.step == 20)
    assert ended.verdicts == {"diverged": 2}
    record = read_json(run / "study.json")
    assert record["resolved"]["search"]["trials"] == 2
    assert record["data"]["counts"] == {"train": 32, "validation": 16, "test": 16}
    assert (run / "study.yaml").read_text() == (run.parents[1] / "test.yaml").read_text()


def test_a_killed_worker_goes_on_from_its_checkpoint(launch: Launch, calm: Path) -> None:
    undisturbed = calm
    killed = launch(FakeTraining(kill={"solo-000": 27}, torn={"torso_legs-001": 33}), name="killed")
    assert read_trial(killed, "solo-000").attempts == 2
    assert decisions(killed) == decisions(undisturbed)
    assert read_trial(undisturbed, "solo-000").attempts == 1


def test_a_trial_whose_worker_always_dies_fails_and_the_others_go_on(launch: Launch) -> None:
    run = launch(Dying("solo-000"), resources={"max_failures": 1}, representations=["solo"])
    trial = read_trial(run, "solo-000")
    assert (trial.state, trial.attempts) == ("failed", 2)
    assert (trial.error or "").startswith("its worker died")
    assert (trial.error or "").endswith("or crashed (2 times)")
    assert read_trial(run, "solo-001").state == "finished"
    assert journal_states(run, "solo") == ["FAIL", "COMPLETE"]


class Dying(FakeTraining):
    """Kills its worker each time it works on one trial."""

    always: str

    def __init__(self, trial: str, once: Mapping[str, int] = MappingProxyType({})) -> None:
        super().__init__(kill={trial: 3, **once})
        object.__setattr__(self, "always", trial)

    def _misbehave(self, trial: str, step: int, folder: Path) -> None:
        if trial == self.always:
            (folder / "misbehaved").unlink(missing_ok=True)
        super()._misbehave(trial, step, folder)


def test_a_pack_goes_on_after_its_worker_was_killed_and_without_the_trial_that_kills_it(launch: Launch) -> None:
    """Twice two trials on two workers; one of them kills its worker once, another always."""
    train = Dying("solo-003", {"solo-001": 27})
    run = launch(
        train, representations=["solo"], search={"trials": 4, "sampler": "random"},
        resources={"pack": 2, "max_failures": 1},
    )  # fmt: skip
    trials = read_trials(run)
    assert [trial.state for trial in trials] == ["finished"] * 3 + ["failed"]
    assert [trial.attempts for trial in trials] == [1, 2, 1, 2]
    assert journal_states(run, "solo") == ["COMPLETE"] * 3 + ["FAIL"]
    assert (run / "selection.json").exists()


def test_a_hung_worker_is_found_by_its_heartbeat(launch: Launch) -> None:
    run = launch(FakeTraining(stop={"solo-000": 12}), resources={"heartbeat_seconds": 2.0}, representations=["solo"])
    trial = read_trial(run, "solo-000")
    assert (trial.state, trial.attempts) == ("finished", 2)


def test_resume_of_a_finished_study_changes_nothing(inline: Launch) -> None:
    run = inline()
    names = ("trial.json", "study.json", "history.jsonl", "optuna.journal")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.name in names}
    again(run, train=FakeTraining(fail={"solo-000": 1}))
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_more_trials(inline: Launch) -> None:
    run = inline(search={"trials": 1, "sampler": "tpe"})
    again(run, trials=2)
    assert status(run).trials == {"finished": 6, "to_come": 0}
    assert journal_states(run, "solo") == ["COMPLETE"] * 3
    again(run)  # the extension is remembered, not repeated
    assert len(read_trials(run)) == 6
    for trials, message in ((0, "at least 1"), (-3, "at least 1")):
        with pytest.raises(UserError, match=message):
            again(run, trials=trials)


def test_no_more_trials_than_the_grid_has_points(inline: Launch) -> None:
    run = inline(search={"trials": 9, "sampler": "grid"}, space={"model.width": {"choice": [8, 16]}})
    assert status(run).trials == {"finished": 4, "to_come": 0}
    with pytest.raises(UserError, match="no further points"):
        again(run, trials=1)


def test_ctrl_c_saves_every_trial_and_resume_ends_the_same(launch: Launch, calm: Path) -> None:
    pressed: list[float] = []

    def press(event: StudyEvent) -> None:
        if event.step >= 10 and not pressed:
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StudyInterrupted, match=r"tips-dist resume .*hurried") as caught:
        launch(FakeTraining(step_seconds=0.05), press, name="hurried")
    assert time.monotonic() - pressed[0] < 10
    run = caught.value.run
    saved = [t for t in read_trials(run) if t.state == "pending" and t.attempts]
    assert saved
    assert all((t.folder(run) / "checkpoint" / "state.json").exists() for t in saved)
    assert not [t for t in read_trials(run) if t.state == "running"]
    again(run)
    assert decisions(run) == decisions(calm)


@pytest.mark.chaos  # what is left behind can hold this session's CPUs, so that the tests after it would wait
def test_a_trial_that_does_not_answer_ctrl_c_is_left_behind_in_time(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPS_DIST_GRACE", "1")
    threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(StudyInterrupted) as caught:
        launch(FakeTraining(step_seconds=60.0), representations=["solo"])
    assert time.monotonic() - begun < 14
    assert {t.state for t in read_trials(caught.value.run)} <= {"running", "pending"}
    assert caught.value.unsaved
    assert "could not save within 1 s" in caught.value.words()


def test_conditional_dimensions_and_schedulers_reach_the_trials(launch: Launch) -> None:
    """The scheduler stops the hopeless of one representation; the other's never have a risk, and it stops nobody."""
    only = {**LR, "losses.cycle_3d": {"uniform": [0.5, 1.0], "only": ["torso_legs"]}}
    search = {"trials": 6, "sampler": "random", "scheduler": "asha"}
    silent = [f"solo-{number:03d}" for number in range(6)]
    run = launch(FakeTraining(step_seconds=0.002, silent=silent), search=search, space=only)
    trials = read_trials(run)
    assert {t.state for t in trials if t.representation == "solo"} == {"finished"}
    assert {t.state for t in trials if t.representation == "torso_legs"} == {"finished", "stopped"}
    assert all(("losses.cycle_3d" in t.parameters) == (t.representation == "torso_legs") for t in trials)
    stopped = next(t for t in trials if t.state == "stopped")
    assert stopped.ended
    assert stopped.wall_seconds > 0
    assert re.fullmatch(r"stopped by the asha scheduler at step \d+", stopped.error or "")
    assert "PRUNED" in journal_states(run, "torso_legs")
    assert "RUNNING" not in journal_states(run, "solo") + journal_states(run, "torso_legs")


# ---------------------------------------------------------------------- refusals


def test_a_study_too_big_for_the_machine_leaves_nothing_behind(launch: Launch, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(UserError, match="asks for 512 CPUs"):
        launch(resources={"cpus": 512})
    assert time.monotonic() - begun < 5
    assert not (tmp_path / "runs").exists()


def test_an_existing_run_folder_is_refused(inline: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda pattern, *moment: "20260101-000000")
    run = inline()
    before = sorted(run.parent.rglob("*"))
    with pytest.raises(UserError, match="exists already"):
        inline()
    assert sorted(run.parent.rglob("*")) == before


def test_not_a_run_folder(tmp_path: Path) -> None:
    for action in (resume, status):
        with pytest.raises(UserError, match="not a run folder"):
            action(tmp_path)


def test_a_changed_study_file_is_refused_with_a_diff(inline: Launch, tmp_path: Path) -> None:
    run = inline()
    path = run / "study.yaml"
    text = path.read_text()
    path.write_text("# a comment changes nothing\n" + text)
    again(run)
    path.write_text(text.replace("steps: 40", "steps: 45"))
    with pytest.raises(UserError, match=r'-  "steps": 40,\n\+  "steps": 45,'):
        again(run)
    path.write_text(text)
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(study_values(seeds=3)))
    with pytest.raises(UserError, match=r'\+ "seeds": 3'):
        again(run, study_path=other)


def test_changed_data_are_refused(inline: Launch, tmp_path: Path) -> None:
    run = inline()
    (tmp_path / "fake.pose2d.h5").unlink()
    write_poses(tmp_path / "fake.pose2d.h5", fake_poses(128))
    with pytest.raises(UserError, match="not the poses"):
        again(run)


def test_missing_data_are_refused_before_anything_is_made(tmp_path: Path, ray_session: None) -> None:
    from tests.study.conftest import make_study

    with pytest.raises(UserError, match=r"fake\.pose2d\.h5"):
        start(make_study(), study_path=tmp_path / "test.yaml", text="", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------- status


def test_status_of_a_dead_run_says_what_is_stuck(inline: Launch) -> None:
    run = inline(search={"trials": 2})
    path = run / "trials" / "solo-001" / "trial.json"
    write_json(path, {**read_json(path), "state": "running", "outcome": None})
    seen = status(run)
    assert seen.trials == {"finished": 3, "interrupted": 1, "to_come": 0}
    assert seen.working is None
    assert not seen.done
    (entry,) = seen.running
    assert (entry.trial, entry.step, entry.steps) == ("solo-001", 40, 40)
    assert "nobody works on this run" in (entry.stuck or "")
    assert seen.doing == f"nobody works on this run; go on with: tips-dist resume {run.resolve()}"
    assert seen.seeds == {"healthy": 8}
    assert seen.best_risk is not None
    assert seen.best_risk > 0
    json.dumps(seen.plain())
    again(run)
    assert status(run).done
