"""Nodes that share no disk with the driver, nor a network stack: a study spreads over them and loses nothing.

The nodes are namespaces of this machine (tests/chaos/apart.py). Not shown here: separate hosts, slow networks.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import stage
from tests.chaos.apart import Apart, apart, eventually
from tests.chaos.stage import REAL, Driver, alive, decisions, evaluations, kill_quietly, prepare, run_folder, states
from tests.chaos.test_cluster import children
from tests.chaos.test_spread import study
from tips_dist.files import read_json

pytestmark = pytest.mark.chaos

Nodes = list[subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def nobody_left_behind() -> Iterator[None]:
    yield
    while stage.STARTED:
        stage.STARTED.pop().kill()


def start(cluster: Apart, folder: Path, **options: Any) -> Driver:
    return Driver(folder, cluster.address, environment=cluster.environment, inside=cluster.inside, **options)


def unseen(nodes: Nodes, run: Path) -> bool:
    """Whether none of the nodes sees the run folder, though each has a folder where it lies."""
    looks = [["nsenter", f"--target={node.pid}", "--mount", "ls", "-A", str(run.parent)] for node in nodes]
    return not any(subprocess.run(look, capture_output=True, text=True, check=True).stdout for look in looks)


def below(nodes: Nodes, name: str) -> dict[int, int]:
    """Processes of a name on the nodes: id -> number of the node."""
    found = {pid: n for n, node in enumerate(nodes) if node.poll() is None for pid in children(node.pid)}
    return {pid: n for pid, n in found.items() if _command(pid).startswith(name)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def offices(cluster: Apart) -> set[int]:
    """Processes that write run folders for nodes that do not see them."""
    return {pid for pid in children(cluster.processes[0].pid) if _command(pid).startswith("ray::Clerk")}


def at_work(run: Path, nodes: Nodes) -> set[int]:
    """The numbers of the nodes that show signs of life."""
    workers = below(nodes, "ray::ImplicitFunc")
    return {workers[beat["pid"]] for beat in alive(run) if beat["pid"] in workers and beat.get("step")}


def test_a_study_spreads_over_them_and_whatever_dies_it_is_that_of_one_machine(tmp_path: Path) -> None:
    """A node, then the office, then the driver die; then it is interrupted, and ends on the driver's machine alone."""
    calm = stage.undisturbed(tmp_path / "calm")
    with apart(2) as (cluster, nodes):
        folder = prepare(cluster.folder)
        driver = start(cluster, folder, step_seconds=0.1)
        run = driver.until(lambda run: len(at_work(run, nodes)) == 2)
        assert unseen(nodes, run)
        cluster.kill(nodes[1])
        since = evaluations(run)
        driver.until(lambda run: evaluations(run) > since + 16 and at_work(run, nodes) == {0})

        (office,) = offices(cluster)
        assert kill_quietly(office)
        since = evaluations(run)
        driver.until(lambda run: evaluations(run) > since + 16)

        (office,) = offices(cluster)
        driver.kill()
        eventually(lambda: office not in offices(cluster), 60.0)  # gone with its driver
        driver = start(cluster, folder, step_seconds=0.1)
        since = evaluations(run)
        driver.until(lambda run: evaluations(run) > since + 16 and bool(at_work(run, nodes)))
        assert states(run)["pending"] + states(run)["running"]  # not at its end yet

        begun = time.monotonic()
        driver.process.send_signal(signal.SIGINT)
        assert driver.wait()[0] == 130
        print(f"interrupted in {time.monotonic() - begun:.1f} s")
        assert states(run)["running"] == 0
        assert not list(run.rglob("*.tmp"))
        Driver(folder).succeeds()
        assert decisions(run) == calm
        trials = [read_json(path) for path in run.glob("trials/*/trial.json")]
        assert max(trial["attempts"] for trial in trials) > 1


def test_the_real_loop_gives_the_bytes_of_one_machine(tmp_path: Path) -> None:
    Driver(prepare(tmp_path, REAL), real=True).succeeds()
    here = run_folder(tmp_path)
    assert here is not None
    with apart(2) as (cluster, nodes):
        folder = prepare(cluster.folder, REAL)
        driver = start(cluster, folder, real=True)
        run = driver.until(lambda run: bool(at_work(run, nodes)) and evaluations(run) >= 20)
        worker = next(iter(below(nodes, "ray::ImplicitFunc")))
        kill_quietly(worker)
        eventually(lambda: worker not in below(nodes, "ray::ImplicitFunc"))
        driver.succeeds()
        assert unseen(nodes, run)
        for name in ("selection.json", "student/student.safetensors"):
            assert (run / name).read_bytes() == (here / name).read_bytes()
        assert decisions(run) == decisions(here)
        for trial in here.glob("trials/*"):
            names = {path.relative_to(trial).as_posix() for path in trial.rglob("*.safetensors")}
            there = run / "trials" / trial.name
            assert {path.relative_to(there).as_posix() for path in there.rglob("*.safetensors")} == names
            for name in [*(name for name in names if name.startswith("candidates/")), "depths.npy"]:
                assert (there / name).read_bytes() == (trial / name).read_bytes(), f"{trial.name}: {name}"
            assert list(there.glob("tensorboard/seed0/events.*"))


def test_the_workers_of_one_trial_on_different_disks(tmp_path: Path) -> None:
    """Two nodes train a trial together; the one of rank 0 dies and a third takes its place."""
    Driver(prepare(tmp_path, study(300)), real=True).succeeds()
    here = run_folder(tmp_path)
    assert here is not None
    with apart(3) as (cluster, nodes):
        folder = prepare(cluster.folder, study(300))
        driver = start(cluster, folder, real=True)
        run = driver.until(lambda run: evaluations(run) >= 8 and bool(at_work(run, nodes)))
        (lead,) = at_work(run, nodes)
        assert {*below(nodes, "ray::Follower").values()} - {lead}
        cluster.kill(nodes[lead])
        driver.succeeds()
        record = read_json(run / "trials" / "torso_legs-000" / "trial.json")
        assert (record["state"], record["outcome"]["execution"]["workers"]) == ("finished", 2)
        assert record["attempts"] >= 2
        assert unseen([node for node in nodes if node.poll() is None], run)
        assert (run / "selection.json").read_bytes() == (here / "selection.json").read_bytes()
        assert decisions(run) == decisions(here)
