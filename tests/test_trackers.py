"""Copies of a run in MLflow and Weights & Biases, with the real libraries, offline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tips_dist import registry
from tips_dist.cli import app
from tips_dist.files import UserError
from tips_dist.report.summary import write_summary
from tips_dist.runfolder import RunFolder, Trial, example
from tips_dist.testing import TrackerContract
from tips_dist.trackers import Tracking, track, tracked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = example.build(tmp_path_factory.mktemp("run") / "run", trials=1, steps=200, depths=8)
    write_summary(folder)
    return folder


class Told:
    """A tracker that remembers what it is told."""

    heard: list[tuple[Any, ...]] = []  # noqa: RUF012
    known = 0

    def __init__(self, record: Any, folder: Path) -> None:
        self.heard.append(("made", record.name))

    def begin(self, trial: Trial) -> int:
        self.heard.append(("begin", trial.id))
        return self.known

    def scalars(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        self.heard.append(("scalars", trial.id, step, dict(values)))

    def verdict(self, trial: Trial, seed: int, step: int, kind: str, reason: str) -> None:
        self.heard.append(("verdict", trial.id, seed, kind))

    def end(self, trial: Trial) -> None:
        self.heard.append(("end", trial.id))

    def summary(self, values: Mapping[str, Any]) -> None:
        self.heard.append(("summary",))

    def close(self) -> None:
        self.heard.append(("close",))


class Broken(Told):
    def scalars(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        raise ConnectionError("nobody there")


@pytest.fixture(autouse=True)
def told() -> Iterator[list[tuple[Any, ...]]]:
    Told.heard.clear()
    registry.register("trackers", "told", Told)
    registry.register("trackers", "broken", Broken)
    yield Told.heard
    registry.unregister("trackers", "told")
    registry.unregister("trackers", "broken")


def test_every_row_is_told_once_in_order_and_verdicts_and_the_summary_too(run: Path, told: list[Any]) -> None:
    track(run, ["told"])
    folder = RunFolder(run)
    for trial in folder.trials:
        steps = [entry[2] for entry in told if entry[:2] == ("scalars", trial.id)]
        assert steps == sorted({row.step for row in folder.history(trial)})
        assert {entry[2] for entry in told if entry[:2] == ("verdict", trial.id)} == set(trial.seeds)
    assert told[-2:] == [("summary",), ("close",)]
    values = next(entry[3] for entry in told if entry[0] == "scalars")
    assert "seed0/risk/total" in values


class TestTold(TrackerContract):
    name = "told"


def test_what_is_there_already_is_not_told_again(run: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "known", 100)
    tracking = Tracking(run, ["told"])
    tracking.update()
    assert min(entry[2] for entry in told if entry[0] == "scalars") > 100
    before = len(told)
    tracking.update()
    assert len(told) == before


def test_one_that_fails_is_said_once_and_halts_nothing(
    run: Path, told: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with tracked(run, ["broken", "told"], every=0.01):
        pass
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "tracker broken: ConnectionError: nobody there" in said
    assert f"tips-dist track {run} --to broken" in said
    assert ("close",) in told


def test_a_name_that_nobody_registered_is_said_with_the_nearest(run: Path) -> None:
    with pytest.raises(UserError, match=r"no tracker 'mlfow' .did you mean 'mlflow'"):
        track(run, ["mlfow"])


def test_a_library_that_is_missing_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"tracker wandb: .*pip install 'tips-dist\[trackers\]'"):
        track(run, ["wandb"])


@pytest.mark.slow
def test_mlflow_gets_a_run_for_each_trial_and_nothing_twice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/runs")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # quicker made than a database
    for _ in range(2):
        found = CliRunner().invoke(app, ["track", str(run), "--to", "mlflow"])
        assert found.exit_code == 0, found.output
    client = mlflow.MlflowClient()
    (experiment,) = [one for one in client.search_experiments() if one.name == RunFolder(run).study.name]
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    trials = RunFolder(run).trials
    assert set(runs) == {run.name, *(trial.id for trial in trials)}
    for trial in trials:
        one = runs[trial.id]
        rows = RunFolder(run).history(trial).of(trial.seeds[0])
        metrics = client.get_metric_history(one.info.run_id, "seed0/risk/total")
        assert [metric.step for metric in metrics] == [row.step for row in rows]
        assert [metric.value for metric in metrics] == [row.risk for row in rows]
        assert one.data.params["representation"] == trial.representation
        assert one.data.tags["verdict/seed0"].startswith(trial.seed_outcomes[0].verdict)
        assert one.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(runs[run.name].info.run_id)] == ["summary.json"]


@pytest.mark.slow
def test_weights_and_biases_keeps_it_offline(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    found = CliRunner().invoke(app, ["track", str(run), "--to", "wandb"])
    assert found.exit_code == 0, found.output
    names = {path.name.split("-", 3)[-1] for path in (tmp_path / "wandb").glob("offline-run-*")}
    mark = RunFolder(run).study.identity[:16]
    assert names == {f"{mark}-{name}" for name in (*(trial.id for trial in RunFolder(run).trials), "summary")}
    for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb"):
        assert path.stat().st_size > 0
