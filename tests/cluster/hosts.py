"""Several hosts on this machine, for as long as a test needs them.

Each is a network namespace with a name, an address, loopback, ``/etc/hosts`` and ``/tmp/ray`` of its own; its own name
is 127.0.1.1 to it, as Debian's installer makes it. Nothing of them can be seen from outside, and nothing that runs on
one sees a process that it did not start: ``ray stop``, with which the recipes begin, ends every Ray that it sees. Needs
root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

NETWORK = "10.77.0"


def absent(programs: Sequence[str], packages: str) -> str:
    """Why hosts that run ``programs`` cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "making hosts needs root"
    lacking = [name for name in (*programs, "ip", "nsenter", "unshare") if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)} (Debian: {packages}, iproute2)" if lacking else ""


class Hosts:
    """Hosts by name, the first at 10.77.0.1; what they run is told to ``daemon`` and gone at the end."""

    def __init__(self, place: Path, names: Sequence[str]) -> None:
        """Files lie in ``place``, a folder that is not there yet."""
        self.place = place
        self.names = list(names)
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.place.mkdir(parents=True)
        try:
            self._wire()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """What they run from the beginning."""

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in [pid for name in self.names for pid in self._pids(name)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(1)
        for daemon in self._daemons:
            daemon.wait(timeout=30)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", self._space(name)], capture_output=True)

    def address(self, name: str) -> str:
        """The one that the others reach it at."""
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def _space(self, name: str) -> str:
        return f"tips{os.getpid()}{name}"

    def _wire(self) -> None:
        """One namespace for each, all on a bridge in that of the first."""
        first = self._space(self.names[0])
        for name in self.names:
            _ip("netns", "add", self._space(name))
            _ip("-n", self._space(name), "link", "set", "lo", "up")
        _ip("-n", first, "link", "add", "eth0", "type", "bridge")
        for name in self.names[1:]:
            space = self._space(name)
            _ip("-n", first, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", first, "link", "set", name, "master", "eth0", "up")
        for name in self.names:
            _ip("-n", self._space(name), "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", self._space(name), "link", "set", "eth0", "up")

    def _inside(self, name: str) -> list[str]:
        """What starts a command on a host. (`ip netns exec` would hide the cgroups, which slurmd looks for.)"""
        return ["nsenter", f"--net=/run/netns/{self._space(name)}"]

    def words(self, name: str, command: str, files: Mapping[str, Path]) -> list[str]:
        """What starts a shell command on a host; ``files`` (there: here) stand in place of others."""
        hosts = self.place / f"hosts-{name}"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        own = self.place / f"ray-{name}"
        own.mkdir(exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        all_files = {"/etc/hosts": hosts, "/tmp/ray": own, **files}
        mounts = [f"mount --bind {here} {there}" for there, here in all_files.items()]
        inside = "; ".join([f"hostname {name}", *mounts, command, "exit"])  # bash stays, as init of its processes
        own_all = ["--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*self._inside(name), "unshare", *own_all, "bash", "-e", "-c", inside]

    def daemon(self, name: str, command: str, environment: Mapping[str, str], **files: Path) -> None:
        """Run a shell command on a host until the end; ``passwd`` and the like stand there in place of /etc's."""
        there = {f"/etc/{file}": own for file, own in files.items()}
        with (self.place / f"{name}.out").open("ab") as out:
            self._daemons.append(
                subprocess.Popen(
                    self.words(name, command, there),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=dict(environment),
                    start_new_session=True,
                )
            )

    def signal(self, name: str, program: str, number: signal.Signals) -> None:
        """Send a signal to the processes on a host whose command line holds ``program``."""
        for pid in self._pids(name):
            with contextlib.suppress(OSError):
                if program in Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " "):
                    os.kill(pid, number)

    def _pids(self, name: str) -> list[int]:
        words = ["ip", "netns", "pids", self._space(name)]
        return [int(pid) for pid in subprocess.run(words, capture_output=True, text=True).stdout.split()]

    def until(self, what: str, true: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):
                if true():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s: {what}\n{self._logs()}")
            time.sleep(0.5)

    def _logs(self) -> str:
        names = sorted([*self.place.glob("*.log"), *self.place.glob("*.out")])
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in names)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
