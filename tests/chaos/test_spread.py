"""A trial with workers on several nodes: the numbers are those of one worker, whoever of them dies.

The nodes are raylets of this machine. Not shown here: separate hosts, cards, a network that fails.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.nodes import cluster
from tests.chaos.stage import REAL, Driver, alive, evaluations, kill_quietly, prepare, run_folder
from tests.chaos.test_cluster import children
from tests.training.test_execution import equal
from tests.training.test_loop import history
from tips_dist.config import Configuration
from tips_dist.files import read_json
from tips_dist.runfolder import RunFolder
from tips_dist.sections import validate
from tips_dist.training.loop import train

pytestmark = pytest.mark.chaos

STUDY = REAL.replace("[solo, torso_legs]", "[torso_legs]").replace("trials: 2", "trials: 1").replace("200", "{steps}")
STUDY += 'stopping: {divergence: "off", plateau: "off"}\nresources: {cpus: 2, workers: 2, max_failures: 10}\n'


def study(steps: int) -> str:
    return STUDY.replace("{steps}", str(steps))


def alone(run: Path, folder: Path, steps: int) -> list[dict[str, Any]]:
    """The history of the run's trial as one worker trains it, up to a step."""
    record = read_json(run / "trials" / "torso_legs-000" / "trial.json")
    record["configuration"]["training"]["steps"] = steps
    poses = RunFolder(run).poses()
    train(validate(Configuration, record["configuration"], where="test"), record["seeds"], poses, folder)
    return [{k: v for k, v in row.items() if not k.startswith("throughput/")} for row in history(folder)]


def followers(nodes: dict[str, Any]) -> dict[str, int]:
    """Workers other than rank 0: node id -> process id."""
    found = {node: children(raylet) for node, raylet in nodes["raylets"].items()}
    return {n: pid for n, own in found.items() for pid, name in own.items() if name.startswith("ray::Follower")}


def working(follower: int) -> bool:
    """Whether a worker still follows (Ray leaves the idle processes of a killed raylet alone for a while)."""
    try:
        return Path(f"/proc/{follower}/cmdline").read_bytes().startswith(b"ray::Follower.follow")
    except OSError:
        return False


def restarted(before: int) -> Callable[[Path], bool]:
    """Whether a run's trial has another process as rank 0 than before."""
    return lambda run: bool(alive(run)) and alive(run)[0]["pid"] != before


def test_two_nodes_give_the_numbers_of_one_worker(tmp_path: Path) -> None:
    with cluster(2, loopback=False) as nodes:
        driver = Driver(prepare(tmp_path, study(40)), nodes["address"], real=True, environment=nodes["environment"])
        driver.succeeds()
        assert not nodes["address"].startswith("127.")
    run = run_folder(tmp_path)
    assert run is not None
    trial = read_json(run / "trials" / "torso_legs-000" / "trial.json")
    assert (trial["state"], trial["attempts"], trial["outcome"]["execution"]["workers"]) == ("finished", 1, 2)
    equal(run / "trials" / "torso_legs-000", alone(run, tmp_path / "alone", 40))


def test_workers_and_nodes_die_and_the_trial_goes_on(tmp_path: Path) -> None:
    """A follower, then rank 0, then a follower's raylet alone, which gloo does not notice; nobody is left behind."""
    with cluster(3) as nodes:
        folder = prepare(tmp_path, study(10**6))
        driver = Driver(folder, nodes["address"], real=True, environment=nodes["environment"])

        def progressing(since: int) -> Path:
            return driver.until(lambda run: bool(evaluations(run) > since and followers(nodes) and alive(run)))

        run = progressing(20)
        for victim in ("follower", "rank 0", "raylet"):
            (node, follower), before = next(iter(followers(nodes).items())), alive(run)[0]
            assert before["node"] != node
            kill_quietly({"follower": follower, "rank 0": before["pid"], "raylet": nodes["raylets"][node]}[victim])
            killed = time.monotonic()
            driver.until(restarted(before["pid"]))
            print(f"{victim}: another rank 0 after {time.monotonic() - killed:.1f} s")
            run = progressing(evaluations(run) + 10)
            assert not working(follower)
        last = list(followers(nodes).values())
        driver.process.send_signal(signal.SIGINT)
        assert driver.wait()[0] == 130
        assert not any(map(working, last))
    trial = run / "trials" / "torso_legs-000"
    assert (read_json(trial / "trial.json")["state"], read_json(trial / "trial.json")["attempts"]) == ("pending", 4)
    assert "worker 1 of 2 is gone" in (trial / "error.txt").read_text()
    rows = history(trial)
    steps = sorted({row["step"] for row in rows})
    assert [(row["step"], row["seed"]) for row in rows] == [(s, k) for s in steps for k in (0, 1)]
    assert steps == list(range(10, steps[-1] + 1, 10))
