"""cluster/slurm/study.sbatch on a real slurmctld and three real slurmd, each a host of its own (``make recipes``)."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.fake_study import SCRIPT, make_fakes
from tests.cluster.slurm import Slurm, missing
from tips_dist.runfolder import RunFolder, layout

pytestmark = [
    pytest.mark.recipes,
    pytest.mark.skipif(bool(missing()), reason=missing() or "a Slurm can be started here"),
    pytest.mark.xdist_group("slurm"),
]

# Two trials that last some two and a half minutes on any machine: each step of this loss takes its time.
PLUGIN = """
import time
from tips_dist.registry import register

@register("losses", "patient")
def patient(scene):
    time.sleep(0.1)
    return scene.pose.sum((1, 2, 3)) * 0
"""
STUDY = """
name: slurm
data: {procedural: {poses: 600}}
representations: [solo, torso_legs]
seeds: 1
model: {width: 16, discriminator_blocks: 1, student_blocks: 1}
training: {steps: 1500, batch_size: 32, evaluate_every: 20, checkpoint_every: 1, validation_poses: 64}
losses: {extra: {patient: 1.0}}
stopping: {divergence: "off", plateau: "off"}
search: {trials: 1}
distillation: {steps: 20}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm") / "cluster", nodes=3) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with studies and programs that only pretend."""
    make_fakes(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("name: x\n")
    return tmp_path


def submit(cluster: Slurm, place: Path, *words: str, nodes: int = 1, **environment: str) -> str:
    """The script with programs that pretend, in ``place``."""
    fakes = {"VENV": str(place / "venv"), "LOG": str(place / "log"), **environment}
    options = [f"--nodes={nodes}", "--cpus-per-task=1", *[word for word in words if word.startswith("--")]]
    studies = [word for word in words if not word.startswith("--")]
    return cluster.submit(*options, str(SCRIPT), *studies, folder=place, **fakes)


def log(place: Path) -> str:
    return (place / "log").read_text() if (place / "log").exists() else ""


def out(place: Path) -> str:
    """What all jobs of a folder have printed."""
    return "".join(path.read_text() for path in sorted(place.glob("out-*")))


def test_several_nodes_and_one_that_is_lost(cluster: Slurm, place: Path) -> None:
    """Where Ray ends on a node, the job's output names the node, the study goes on, and Ray is started there again."""
    job = submit(cluster, place, "a.yaml", nodes=3, STEPS="100000", ON_THE_WAY="10.77.0.2")
    cluster.until("the study runs", lambda: "tips-dist run" in log(place))
    cluster.until("Ray runs on all nodes", lambda: log(place).count("ray start") == 3)
    lost = next(node for node in cluster.nodes if node not in cluster.job(job)["BatchHost"])
    cluster.signal(lost, "venv/bin/ray start --block --node", signal.SIGKILL)
    cluster.until("the lost node is named", lambda: f"{lost}: Ray has ended here (try 1 of 20)" in out(place))
    cluster.until("Ray runs there again", lambda: log(place).count("ray start") == 4)
    assert cluster.job(job)["JobState"] == "RUNNING"
    cluster.run("scancel", job)
    assert cluster.until_ended(job) == "CANCELLED"


def test_a_cancelled_job_saves_and_does_not_come_back(cluster: Slurm, place: Path) -> None:
    job = submit(cluster, place, "a.yaml", STEPS="100000")
    cluster.until("the study runs", lambda: "tips-dist run" in log(place))
    cluster.run("scancel", job)
    assert cluster.until_ended(job) == "CANCELLED"
    cluster.until("the state is saved", lambda: "state saved" in log(place))
    assert cluster.job(job)["Restarts"] == "0"
    assert "back into the queue" not in out(place)


def test_an_interrupted_job_saves_and_does_not_come_back(cluster: Slurm, place: Path) -> None:
    job = submit(cluster, place, "a.yaml", STEPS="100000")
    cluster.until("the study runs", lambda: "tips-dist run" in log(place))
    cluster.run("scancel", "--batch", "--signal=INT", job)
    assert cluster.until_ended(job) == "FAILED"  # exit code 130
    assert "state saved" in log(place)
    assert cluster.job(job)["Restarts"] == "0"


def test_an_array_of_studies_and_one_of_them_out_of_time(cluster: Slurm, place: Path) -> None:
    """Each index has its study; a notice to the last one sends only that one back, though it has the array's number."""
    job = submit(cluster, place, "--array=1-2", "a.yaml", "b.yaml", STEPS="100000")
    for study in ("a", "b"):
        cluster.until(f"{study} runs", lambda study=study: f"tips-dist run {study}.yaml" in log(place))  # type: ignore[misc]
    cluster.run("scancel", "--batch", "--signal=TERM", f"{job}_2")
    cluster.until("it has gone back", lambda: cluster.job(f"{job}_2")["Restarts"] == "1")
    cluster.until("its state was saved", lambda: "state saved" in log(place))
    assert cluster.job(f"{job}_1")["JobState"] == "RUNNING"
    assert cluster.job(f"{job}_1")["Restarts"] == "0"
    cluster.run("scancel", job)
    assert f"job {job}_2 goes back into the queue" in out(place)


def test_an_index_without_a_study(cluster: Slurm, place: Path) -> None:
    job = submit(cluster, place, "--array=3", "a.yaml", "b.yaml")
    assert cluster.until_ended(f"{job}_3") == "FAILED"
    assert "no study number 3, 2 are named; give --array=1-2" in out(place)


def test_a_study_over_the_time_limit_to_its_end(cluster: Slurm, tmp_path: Path) -> None:
    """Ray, training and Slurm are real: the time limit comes, the job goes back, and the study comes to its end."""
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "patient.py").write_text(PLUGIN)
    options = ["--nodes=2", "--cpus-per-task=1", "--time=60", "--signal=B:TERM@60"]
    words = ["study.yaml", "--plugin", "patient.py", "--set", "resources.cpus=1"]
    environment = {
        "VENV": sys.prefix,
        "TIPS_DIST_GRACE": "40",
        "TIPS_DIST_WAIT": "900",
        "RAY_health_check_timeout_ms": "60000",  # this machine may be busy; a node that is slow is not dead
        "RAY_health_check_failure_threshold": "20",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(200 * 2**20),
        "OMP_NUM_THREADS": "1",
    }
    job = cluster.submit(*options, str(SCRIPT), *words, folder=tmp_path, **environment)
    runs = tmp_path / "runs"

    def trained() -> bool:
        assert cluster.job(job)["JobState"] != "FAILED", out(tmp_path)[-3000:]
        return len(reached(runs)) == 2

    cluster.until("both trials have trained for a while", trained, 1200)
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={cluster.minutes(job) + 2}")
    cluster.until("the time limit has sent it back", lambda: cluster.job(job)["Restarts"] == "1", 300)
    said = out(tmp_path)
    assert f"all 2 nodes are there, the head at {cluster.address('n1')}:" in said
    assert f"job {job} goes back into the queue" in said
    before = reached(runs)
    assert min(before.values()) < 1500, before
    # Slurm waits two minutes by itself: within the second of its end a node takes the job for the killed one
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now+10")
    assert cluster.until_ended(job, 1500) == "COMPLETED", out(tmp_path)[-3000:]
    assert "starts anew" not in out(tmp_path)
    (run,) = runs.iterdir()
    assert layout.STUDENT.at(run).exists()
    frame = RunFolder(run).frame()
    for trial, step in before.items():
        steps = frame[frame["trial"] == trial]["step"].tolist()
        assert steps == list(range(20, 1501, 20))  # on from where it was: nothing twice, nothing left out
        assert step in steps
    print(out(tmp_path))


def reached(runs: Path) -> dict[str, int]:
    """The last step of each trial that has been evaluated, of the one run in a folder."""
    rows = [
        json.loads(line) | {"trial": path.parent.name}
        for path in runs.glob("*/trials/*/history.jsonl")
        for line in path.read_text().splitlines()
    ]
    return {row["trial"]: row["step"] for row in rows}
