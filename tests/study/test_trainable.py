from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeTraining, fake_poses
from tests.study.test_records import make_trial
from tips_dist.files import StorageError, read_json, read_json_lines
from tips_dist.runfolder import Trial, read_trial
from tips_dist.study import trainable
from tips_dist.study.trainable import NO_RISK, one_by_one, run_pack, run_trial
from tips_dist.training.execution import WorkerLost


class Listener:
    """Takes reports; raises on command, as Ray does to stop a trial."""

    def __init__(self, stop_at: int | None = None, error: BaseException | None = None) -> None:
        self.reports: list[dict[str, Any]] = []
        self.stop_at, self.error = stop_at, error

    def __call__(self, report: dict[str, Any]) -> None:
        self.reports.append(report)
        if self.error is not None and report.get("step") == self.stop_at:
            raise self.error


def go(run: Path, train: Any, listener: Listener | None = None) -> Trial:
    run_trial(run, "solo-000", fake_poses(), train, listener or Listener(), heartbeat=1.0, node="here")
    return read_trial(run, "solo-000")


def history(run: Path) -> list[dict[str, Any]]:
    return list(read_json_lines(run / "trials" / "solo-000" / "history.jsonl"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_trial().write(tmp_path)
    return tmp_path


def test_a_finished_trial_holds_its_outcome(run: Path) -> None:
    listener = Listener()
    trial = go(run, FakeTraining(diverge={"solo-000": {1: 20}}), listener)
    assert (trial.state, trial.attempts, trial.error) == ("finished", 1, None)
    assert trial.outcome is not None
    assert [seed.verdict for seed in trial.outcome.seeds] == ["healthy", "diverged"]
    assert [report["step"] for report in listener.reports] == list(range(5, 41, 5))
    assert listener.reports[-1]["verdicts/diverged"] == 1
    alive = read_json(run / "trials" / "solo-000" / "alive.json")
    assert (alive["pid"], alive["node"], alive["step"]) == (os.getpid(), "here", 40)


def test_a_finished_trial_is_never_trained_again(run: Path) -> None:
    first = go(run, FakeTraining())
    assert go(run, FakeTraining(fail={"solo-000": 1})) == first


def test_the_reported_risk_is_always_a_number(run: Path) -> None:
    listener = Listener()
    go(run, FakeTraining(silent=["solo-000"]), listener)
    assert {(report["risk"], report["judged"]) for report in listener.reports} == {(NO_RISK, False)}


def test_a_lost_worker_fails_no_trial(run: Path) -> None:
    def lost(*arguments: Any, **options: Any) -> Any:
        raise WorkerLost("worker 1 of 2 is gone")

    with pytest.raises(WorkerLost):
        go(run, lost)
    assert read_trial(run, "solo-000").state == "running"  # as after any other death of its worker
    assert "worker 1 of 2" in (run / "trials" / "solo-000" / "error.txt").read_text()


def test_an_exception_becomes_a_failed_record(run: Path) -> None:
    trial = go(run, FakeTraining(fail={"solo-000": 12}))
    assert (trial.state, trial.error) == ("failed", "ValueError: told to fail at step 12")
    assert "Traceback" in (run / "trials" / "solo-000" / "error.txt").read_text()


def test_a_trial_stopped_by_ray_goes_on_from_its_checkpoint(run: Path) -> None:
    with pytest.raises(SystemExit):
        go(run, FakeTraining(), Listener(stop_at=25, error=SystemExit()))
    assert read_trial(run, "solo-000").state == "running"
    listener = Listener()
    trial = go(run, FakeTraining(), listener)
    assert [report["step"] for report in listener.reports] == [25, 30, 35, 40]  # the last checkpoint was at 20
    assert trial.attempts == 2
    assert [row["step"] for row in history(run) if row["seed"] == 0] == list(range(5, 41, 5))


def test_an_interrupted_and_resumed_trial_equals_an_undisturbed_one(run: Path, tmp_path_factory: Any) -> None:
    class Interrupt(Listener):
        def __call__(self, report: dict[str, Any]) -> None:
            super().__call__(report)
            if report["step"] == 15:
                (run / ".stop").touch()
                time.sleep(0.5)  # the flag is looked for twice a second

    interrupted = go(run, FakeTraining(), Interrupt())
    assert interrupted.state == "pending"
    assert history(run)[-1]["step"] == 15
    (run / ".stop").unlink()
    listener = Listener()
    resumed = go(run, FakeTraining(), listener)
    assert listener.reports[0]["step"] == 20
    other = tmp_path_factory.mktemp("other")
    make_trial().write(other)
    undisturbed = go(other, FakeTraining())
    assert resumed.outcome == undisturbed.outcome
    assert history(run) == history(other)


def test_an_outage_of_storage_is_waited_for(run: Path) -> None:
    calls = []

    def train(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise StorageError("gone") from OSError(5, "Input/output error")
        return FakeTraining()(*arguments, **keywords)

    assert go(run, train).state == "finished"


def test_a_full_disk_is_raised_and_the_trial_stays_unfinished(run: Path) -> None:
    def train(*arguments: Any, **keywords: Any) -> Any:
        raise StorageError("full") from OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="full"):
        go(run, train)
    assert read_trial(run, "solo-000").state == "running"


def test_the_heartbeat_shows_life_between_reports(run: Path) -> None:
    path = run / "trials" / "solo-000" / "alive.json"
    times = []

    def train(*arguments: Any, **keywords: Any) -> Any:
        for _ in range(2):
            times.append(path.stat().st_mtime_ns)
            time.sleep(0.5)
        return FakeTraining()(*arguments, **keywords)

    go(run, train)
    assert times[1] > times[0]


def test_the_fake_has_the_real_loops_signature() -> None:
    import inspect

    loop = pytest.importorskip("tips_dist.training.loop")
    real = inspect.signature(loop.train).parameters
    fake = inspect.signature(FakeTraining.__call__).parameters
    assert set(fake) - {"self"} <= set(real)
    assert set(inspect.signature(trainable.Train.__call__).parameters) - {"self"} <= set(real)


def pack(run: Path, train: Any, listener: Listener | None = None) -> list[Trial]:
    names = ["solo-000", "solo-001", "solo-002"]
    for number in range(3):
        if not (run / "trials" / names[number] / "trial.json").exists():
            make_trial(number).write(run)
    run_pack(run, names, fake_poses(), one_by_one(train), listener or Listener(), heartbeat=1.0, node="here")
    return [read_trial(run, name) for name in names]


def test_the_failure_of_one_trial_of_a_pack_is_not_that_of_the_others(run: Path) -> None:
    listener = Listener()
    trials = pack(run, FakeTraining(fail={"solo-001": 12}), listener)
    assert [trial.state for trial in trials] == ["finished", "failed", "finished"]
    assert "told to fail" in (run / "trials" / "solo-001" / "error.txt").read_text()
    assert [report["trial"] for report in listener.reports if report.get("ended")] == [t.id for t in trials]
    again = Listener()
    assert pack(run, FakeTraining(), again) == trials
    assert again.reports == []


def test_a_pack_that_is_stopped_leaves_every_trial_pending(run: Path) -> None:
    with pytest.raises(SystemExit):  # as Ray stops it
        pack(run, FakeTraining(), Listener(stop_at=10, error=SystemExit()))
    assert [read_trial(run, f"solo-00{n}").state for n in range(3)] == ["running"] * 3
    assert all(trial.state == "finished" and trial.attempts == 2 for trial in pack(run, FakeTraining()))


def test_storage_that_is_away_for_a_moment_fails_no_trial_of_a_pack(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = ["solo-001"]

    def train(*arguments: Any, **options: Any) -> Any:
        if arguments[3].name in away:
            away.clear()
            raise StorageError("away")
        return FakeTraining()(*arguments, **options)

    monkeypatch.setattr("tips_dist.patience.time.sleep", lambda seconds: None)
    assert [trial.state for trial in pack(run, train)] == ["finished"] * 3
    assert [trial.attempts for trial in pack(run, train)] == [1] * 3
