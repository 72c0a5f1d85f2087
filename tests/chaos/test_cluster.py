"""A cluster of several nodes, started as a user would, takes a job, loses a node, and its run is read from elsewhere.

The nodes are processes of this machine with a token between them; storage is moto's S3 server. Not shown here: separate
hosts, a network that fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.chaos.stage import ROOT, alive
from tips_dist.files import read_json
from tips_dist.study.starting import PATIENCE, free_ports

pytestmark = pytest.mark.chaos

BIN = Path(sys.executable).parent
AGENTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
KEY = "key-that-nobody-must-see"
STUDY = """
name: chaos
data: {procedural: {poses: 600}}
representations: [solo]
seeds: 2
model: {width: 16, discriminator_blocks: 1, student_blocks: 1}
training: {steps: 3000, batch_size: 32, evaluate_every: 10, checkpoint_every: 2, validation_poses: 64}
stopping: {divergence: "off", plateau: "off"}
search: {trials: 3, sampler: random}
space: {training.generator_lr: {log_uniform: [1.0e-4, 1.0e-3]}}
distillation: {steps: 20}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def children(pid: int) -> dict[int, str]:
    """All processes below one: id -> name."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in table.splitlines()]
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        own = {int(child): name for child, above, name in rows if int(above) == parent}
        found |= own
        waiting += own
    return found


@dataclass
class Nodes:
    """``ray start --block`` processes, each a node."""

    scratch: Path
    environment: dict[str, str]
    gcs: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Ports of agents are said: a raylet waits for one that chooses its own no longer than 15 s, and ends."""
        ports = [f"--{name}={port}" for name, port in zip(AGENTS, free_ports(len(AGENTS)), strict=True)]
        command = [str(BIN / "ray"), "start", "--block", "--object-store-memory=100000000", *ports, *arguments]
        log = (self.scratch / f"node{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def head(self) -> None:
        ports = [f"--port={self.gcs}", f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={free_port()}"]
        self.start("--head", "--num-cpus=0", f"--temp-dir={self.scratch}/ray", *ports)

    def worker(self) -> subprocess.Popen[bytes]:
        """Add a node. On a busy machine Ray's own start-up limits may be too short: then try again."""
        address = f"{socket.gethostbyname(socket.gethostname())}:{self.gcs}"
        for _ in range(5):
            process = self.start(f"--address={address}", "--num-cpus=1")
            log = self.scratch / f"node{len(self.processes) - 1}.log"
            eventually(lambda process=process, log=log: process.poll() is not None or b"--block" in log.read_bytes())
            if process.poll() is None:
                return process
        raise AssertionError("no further node starts on this machine")

    def stop(self) -> None:
        for process in self.processes:
            for pid in children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    patience = {**PATIENCE, "RAY_health_check_timeout_ms": "60000", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="td-", ignore_cleanup_errors=True) as scratch:  # short: sockets lie below
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "HOME": scratch}
        found = Nodes(Path(scratch), {**own, **patience, **token, "OMP_NUM_THREADS": "1"})
        try:
            found.head()
            yield found
        finally:
            found.stop()


@pytest.fixture
def storage(nodes: Nodes) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    nodes.environment.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY=KEY,
        AWS_DEFAULT_REGION="us-east-1",
    )
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            make = "import boto3; boto3.client('s3').create_bucket(Bucket='studies')"
            eventually(lambda: subprocess.run([sys.executable, "-c", make], env=nodes.environment).returncode == 0)
            yield "s3://studies/runs"
        finally:
            server.kill()


def eventually(condition: object, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.3)


def tips_dist(nodes: Nodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "tips-dist"), *arguments],
        cwd=ROOT,
        env=nodes.environment,
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_submit_lose_a_node_go_on_and_read_from_storage(nodes: Nodes, storage: str, tmp_path: Path) -> None:
    study, runs = tmp_path / "chaos.yaml", tmp_path / "runs"
    study.write_text(STUDY)
    where = ["--address", f"http://127.0.0.1:{nodes.dashboard}"]
    eventually(lambda: tips_dist(nodes, "jobs", "list", *where).returncode == 0)
    first = nodes.worker()
    nodes.worker()
    keys = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"]
    forward = [word for name in keys for word in ("--env", name)]
    order = ["submit", str(study), *where, "--runs", str(runs), "--storage", storage, *forward]

    submitted = tips_dist(nodes, *order)
    assert submitted.returncode == 0, submitted.stderr
    assert "nothing was submitted" in tips_dist(nodes, *order).stdout

    def two_nodes_work() -> bool:
        return any(len({beat["node"] for beat in alive(run) if beat.get("step")}) == 2 for run in runs.glob("chaos-*"))

    eventually(two_nodes_work)
    job = submitted.stdout.partition(":")[0]
    status = tips_dist(nodes, "status", job, *where, "--json")  # by the dashboard alone
    assert status.returncode == 0, status.stderr
    assert f"(job {job})" in json.loads(status.stdout)["working"]["host"]
    raylet = next(pid for pid, name in children(first.pid).items() if name == "raylet")
    os.kill(raylet, signal.SIGKILL)

    ended = tips_dist(nodes, *order, "--follow")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run = next(runs.glob("chaos-*"))
    trials = [read_json(path) for path in run.glob("trials/*/trial.json")]
    assert [trial["state"] for trial in trials] == ["finished"] * 3
    assert max(trial["attempts"] for trial in trials) == 2  # the one whose node was lost
    assert all(seed["stopped_step"] == 3000 for trial in trials for seed in trial["outcome"]["seeds"])

    summary = tips_dist(nodes, "summary", f"{storage}/{run.name}", "--json")
    assert summary.returncode == 0, summary.stderr
    copy = tips_dist(nodes, "fetch", f"{storage}/{run.name}", "-o", str(tmp_path / "home"))
    assert copy.returncode == 0, copy.stderr
    assert (tmp_path / "home" / "selection.json").read_bytes() == (run / "selection.json").read_bytes()

    summary = tips_dist(nodes, "summary", job, *where, "--json")
    assert summary.returncode == 0, summary.stderr
    report = tips_dist(nodes, "report", job, *where)
    assert report.returncode == 0, report.stderr
    (page,) = re.findall(r"\S+report\.html", report.stdout)
    assert Path(page).stat().st_size > 100_000
    copy = tips_dist(nodes, "fetch", job, *where, "-o", str(tmp_path / "by-job"))
    assert copy.returncode == 0, copy.stderr
    assert (tmp_path / "by-job" / "selection.json").read_bytes() == (run / "selection.json").read_bytes()
    assert len(json.loads(tips_dist(nodes, "jobs", "list", *where, "--json").stdout)) == 1

    texts = [path for base in (nodes.scratch, run) for path in base.rglob("*") if path.is_file()]
    assert not [path for path in texts if KEY.encode() in path.read_bytes()]
