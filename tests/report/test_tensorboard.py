"""TensorBoard is started on a run and asked what it shows."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pytest

from tips_dist.monitoring import Monitor
from tips_dist.report.tensorboard import launch, link
from tips_dist.runfolder import layout
from tips_dist.runfolder.example import build


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = build(tmp_path / "run", representations=("solo",), trials=2, seeds=2, steps=100, histories=False)
    for number in range(2):
        monitor = Monitor(layout.EVENTS.at(run, f"solo-{number:03d}").parent)
        monitor.evaluation(50, [{"seed": seed, "risk": 1.0} for seed in range(2)])
        monitor.close()
    return run


def test_runs_are_called_as_the_trials_are(run: Path) -> None:
    address = launch(run, port=0)
    wanted = {"solo-000", "solo-000/seed0", "solo-000/seed1", "solo-001", "solo-001/seed0", "solo-001/seed1"}
    found: set[str] = set()
    deadline = time.monotonic() + 60
    while found != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        with urllib.request.urlopen(f"{address}data/runs") as answer:
            found = set(json.load(answer))
    assert found == wanted


def test_links_are_added_as_trials_come(run: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    late = layout.EVENTS.at(run, "solo-001").parent
    late.rename(run / "away")
    link(run, links)
    assert [path.name for path in links.iterdir()] == ["solo-000"]
    (run / "away").rename(late)
    link(run, links)
    link(run, links)
    assert sorted(path.name for path in links.iterdir()) == ["solo-000", "solo-001"]
