"""A real Slurm of several nodes on this machine, for as long as a test needs it.

Debian's munged, slurmctld and slurmd (packages slurm-wlm and munge) run in network namespaces of their own: the
controller and every node is a host with its own name, address, loopback, ``/etc/hosts`` and ``/tmp/ray``, and nothing
of it can be seen from outside. Nodes map their own name to 127.0.1.1, as Debian's installer does. Needs root and
installs nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "ip", "nsenter", "unshare")
NETWORK = "10.77.0"


def missing() -> str:
    """Why no Slurm can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge, iproute2)" if absent else ""


class Slurm:
    """A cluster of ``nodes`` nodes, n1 to nN, with two CPUs each; its files lie in ``place``."""

    def __init__(self, place: Path, nodes: int) -> None:
        self.place = place
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._tag = f"tips{os.getpid()}"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Slurm:
        self.place.mkdir(parents=True)
        (self.place / "state").mkdir()
        (self.place / "munge").mkdir(mode=0o700)
        key = self.place / "munge" / "key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        (self.place / "slurm.conf").write_text(self._configuration())
        try:
            self._wire()
            self._start()
            self.until("all nodes are idle", lambda: self.run("sinfo", "--noheader", "--format=%T %D") == self._idle())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in [pid for host in ("ctl", *self.nodes) for pid in self._pids(host)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(1)
        for daemon in self._daemons:
            daemon.wait(timeout=30)
        for host in ("ctl", *self.nodes):
            subprocess.run(["ip", "netns", "delete", self._space(host)], capture_output=True)

    def _idle(self) -> str:
        return f"idle {len(self.nodes)}"

    def _space(self, name: str) -> str:
        return f"{self._tag}{name}"

    def _inside(self, name: str) -> list[str]:
        """What starts a command on a host. (`ip netns exec` would hide the cgroups, which slurmd looks for.)"""
        return ["nsenter", f"--net=/run/netns/{self._space(name)}"]

    def _configuration(self) -> str:
        nodes = "\n".join(
            f"NodeName={name} NodeAddr={NETWORK}.{10 + number} CPUs=2 RealMemory=2000 State=UNKNOWN"
            for number, name in enumerate(self.nodes)
        )
        return f"""
ClusterName=tips
SlurmctldHost=ctl({NETWORK}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.place}/munge/socket
StateSaveLocation={self.place}/state
SlurmdSpoolDir={self.place}/spool-%n
SlurmctldPidFile={self.place}/slurmctld.pid
SlurmdPidFile={self.place}/slurmd-%n.pid
SlurmctldLogFile={self.place}/slurmctld.log
SlurmdLogFile={self.place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
SlurmdTimeout=600
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

    def _wire(self) -> None:
        """One namespace for each host, all on a bridge in that of the controller."""
        control = self._space("ctl")
        _ip("netns", "add", control)
        _ip("-n", control, "link", "set", "lo", "up")
        _ip("-n", control, "link", "add", "bridge", "type", "bridge")
        _ip("-n", control, "address", "add", f"{NETWORK}.1/24", "dev", "bridge")
        _ip("-n", control, "link", "set", "bridge", "up")
        for number, name in enumerate(self.nodes):
            space = self._space(name)
            _ip("netns", "add", space)
            _ip("-n", control, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", control, "link", "set", name, "master", "bridge", "up")
            _ip("-n", space, "address", "add", f"{NETWORK}.{10 + number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", space, "link", "set", device, "up")

    def _start(self) -> None:
        munge = self.place / "munge"
        files = [f"--{kind}={munge / kind}" for kind in ("socket", "key-file", "pid-file", "log-file", "seed-file")]
        files[1] = f"--key-file={munge / 'key'}"
        self._daemon("ctl", f"munged --foreground --force {' '.join(files)}")
        self.until("munged answers", (munge / "socket").exists)
        self._daemon("ctl", "slurmctld -D -i")
        for name in self.nodes:
            self._daemon(name, f"slurmd -D -N {name}")

    def _daemon(self, host: str, command: str) -> None:
        hosts = self.place / f"hosts-{host}"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {host}\n")
        Path("/tmp/ray").mkdir(exist_ok=True)
        inside = f"hostname {host}; mount --bind {hosts} /etc/hosts; mount -t tmpfs none /tmp/ray; exec {command}"
        with (self.place / f"{host}.out").open("ab") as out:
            self._daemons.append(
                subprocess.Popen(
                    [*self._inside(host), "unshare", "--uts", "--mount", "bash", "-c", inside],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=self._environment(),
                    start_new_session=True,
                )
            )

    def _environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        return {**own, "SLURM_CONF": str(self.place / "slurm.conf"), **(more or {})}

    def run(self, *command: str, **environment: str) -> str:
        """Run one of Slurm's commands where the controller runs; gives what it prints."""
        words = [*self._inside("ctl"), *command]
        done = subprocess.run(words, capture_output=True, text=True, env=self._environment(environment))
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
        return done.stdout.strip()

    def signal(self, node: str, program: str, name: str) -> None:
        """Send a signal to the processes on a node whose command line holds ``program``."""
        for pid in self._pids(node):
            with contextlib.suppress(OSError):
                if program in Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " "):
                    os.kill(pid, signal.Signals[f"SIG{name}"])

    def _pids(self, host: str) -> list[int]:
        words = ["ip", "netns", "pids", self._space(host)]
        return [int(pid) for pid in subprocess.run(words, capture_output=True, text=True).stdout.split()]

    def submit(self, *words: str, folder: Path, **environment: str) -> str:
        """``sbatch`` in a folder, whose ``out-<job>`` gets what the job prints; gives the job's number."""
        options = ["--parsable", f"--chdir={folder}", f"--output={folder}/out-%j"]
        return self.run("sbatch", *options, *words, **environment)

    def job(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says of it."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def minutes(self, job: str) -> int:
        """For how many whole minutes a job has run."""
        *_, hours, minutes, _ = [0, 0, *map(int, re.split("[-:]", self.job(job)["RunTime"]))]
        return 60 * hours + minutes

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

    def until_ended(self, job: str, seconds: float = 120) -> str:
        """Wait until a job has ended; gives its state."""
        self.until(f"job {job} has ended", lambda: self.job(job)["JobState"] not in LIVING, seconds)
        return self.job(job)["JobState"]

    def _logs(self) -> str:
        names = sorted([*self.place.glob("*.log"), *self.place.glob("*.out")])
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in names)


LIVING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def slurm(place: Path, nodes: int) -> Iterator[Slurm]:
    """One, gone afterwards."""
    with Slurm(place, nodes) as running:
        yield running
