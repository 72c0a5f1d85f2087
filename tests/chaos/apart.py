"""A Ray cluster whose nodes share neither disk nor network stack: each in a mount and a network namespace of its own.

One bridge joins them. The head, and the drivers, are at home: they see this machine's disk. A node has a file system of
its own where the run folders lie, with a folder of the same name as theirs in it, and a /dev/shm of its own. Root is
needed; where it is not enough, tests are skipped with a word.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.chaos.stage import ROOT
from tests.chaos.test_cluster import children

RAY = Path(sys.executable).parent / "ray"
NETWORK = "10.213.0"
PORT = 6379
# A raylet waits no longer than 15 s for an agent to choose a port; in a network of its own none is taken.
PORTS = [
    "--dashboard-agent-listen-port=52365",
    "--dashboard-agent-grpc-port=52366",
    "--metrics-export-port=52367",
    "--runtime-env-agent-port=52368",
]


@dataclass
class Apart:
    """The cluster; ``folder`` is where drivers work, which no node sees."""

    folder: Path
    name: str = field(default_factory=lambda: f"td{os.getpid()}")
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.environment = {
            **own,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_raylet_start_wait_time_s": "300",
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "300",  # before a node on a busy machine gives its head up
            "RAY_health_check_timeout_ms": "60000",
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    @property
    def address(self) -> str:
        return f"{NETWORK}.1:{PORT}"

    @property
    def inside(self) -> list[str]:
        """Before a driver's command: at home."""
        return ["ip", "netns", "exec", self.spaces[0]]

    def head(self) -> None:
        home = self._space("h")
        _do("ip", "-n", home, "link", "add", "bridge", "type", "bridge")
        self._address(home, "bridge", f"{NETWORK}.1", f"{NETWORK}.1")
        self._start(self.inside, "--head", f"--port={PORT}", f"--node-ip-address={NETWORK}.1", "--num-cpus=0")

    def node(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Add a node; with its process all of it ends (:meth:`kill`)."""
        number = len(self.spaces)
        space, device, there = self._space(str(number)), f"{self.name}v{number}", f"{NETWORK}.{number + 1}"
        _do("ip", "-n", self.spaces[0], "link", "add", device, "type", "veth", "peer", "name", "lan", "netns", space)
        _do("ip", "-n", self.spaces[0], "link", "set", device, "master", "bridge", "up")
        self._address(space, "lan", there, f"{NETWORK}.1")
        disk = f"mount -t tmpfs none {self.folder} && mount -t tmpfs none /dev/shm && mkdir -p {self.folder}/runs"
        own = ["ip", "netns", "exec", space, "unshare", "--mount", "--propagation", "private"]
        shell = [*own, "sh", "-c", f'{disk} && mkdir {self.folder}/tmp && cd {ROOT} && exec "$@"', "sh"]
        where = [f"--address={self.address}", f"--node-ip-address={there}", f"--num-cpus={cpus}"]
        for _ in range(3):  # a busy machine's patience may be too short
            process = self._start(shell, *where)
            if process.poll() is None:
                return process
        raise AssertionError("no further node starts on this machine")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """A node loses its power."""
        below = children(process.pid)
        for pid in [process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self.processes:
            self.kill(process)
        for space in reversed(self.spaces):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    def _space(self, suffix: str) -> str:
        space = f"{self.name}{suffix}"
        _do("ip", "netns", "add", space)
        self.spaces.append(space)
        _do("ip", "-n", space, "link", "set", "lo", "up")
        return space

    def _address(self, space: str, device: str, own: str, gateway: str) -> None:
        _do("ip", "-n", space, "address", "add", f"{own}/24", "dev", device)
        _do("ip", "-n", space, "link", "set", device, "up")
        route = ("via", gateway) if own != gateway else ("dev", device)
        _do("ip", "-n", space, "route", "add", "default", *route)  # by it Ray finds its own address

    def _start(self, where: list[str], *arguments: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"log{len(self.processes)}"
        temporary = {} if "--head" in arguments else {"TMPDIR": f"{self.folder}/tmp"}
        more = [f"--temp-dir={self.folder}/ray", "--include-dashboard=false"] if "--head" in arguments else []
        command = [*where, str(RAY), "start", "--block", "--object-store-memory=100000000", *PORTS, *arguments, *more]
        with log.open("wb") as stream:
            environment = {**self.environment, **temporary}
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        self.processes.append(process)
        eventually(lambda: process.poll() is not None or b"--block" in log.read_bytes())
        return process


def eventually(condition: Callable[[], bool], seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.3)


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"namespaces are not permitted here ({' '.join(command[:4])}: {done.stderr.strip()})")


@contextlib.contextmanager
def apart(nodes: int) -> Iterator[tuple[Apart, list[subprocess.Popen[bytes]]]]:
    """The cluster and its nodes, one CPU each."""
    for tool in ("ip", "unshare", "mount"):
        if not any(Path(place, tool).exists() for place in os.environ["PATH"].split(":")):
            pytest.skip(f"{tool} is not installed here")
    with tempfile.TemporaryDirectory(prefix="td-", ignore_cleanup_errors=True) as folder:  # short: sockets lie below
        made = Apart(Path(folder))
        try:
            made.head()
            yield made, [made.node() for _ in range(nodes)]
        finally:
            made.close()
