"""A real Slurm: Debian's munged, slurmctld and slurmd on hosts of this machine (tests/cluster/hosts.py)."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.hosts import Hosts, absent

LIVING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")


def missing() -> str:
    """Why no Slurm can be started here; empty if it can."""
    return absent(("munged", "slurmctld", "slurmd", "sbatch", "scontrol"), "slurm-wlm, munge")


class Slurm(Hosts):
    """A controller, ctl, and nodes n1 to nN with two CPUs each."""

    def __init__(self, place: Path, nodes: int) -> None:
        super().__init__(place, ["ctl", *(f"n{number}" for number in range(1, nodes + 1))])
        self.nodes = self.names[1:]

    def start(self) -> None:
        (self.place / "state").mkdir()
        munge = self.place / "munge"
        munge.mkdir(mode=0o700)
        key = munge / "key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        (self.place / "slurm.conf").write_text(self._configuration())
        kinds = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = " ".join(f"--{kind}={munge / name}" for kind, name in kinds.items())
        environment = self._environment()
        self.daemon("ctl", f"munged --foreground --force {files}", environment)
        self.until("munged answers", (munge / "socket").exists)
        self.daemon("ctl", "slurmctld -D -i", environment)
        for name in self.nodes:
            self.daemon(name, f"slurmd -D -N {name}", environment)
        idle = f"idle {len(self.nodes)}"
        self.until("all nodes are idle", lambda: self.run("sinfo", "--noheader", "--format=%T %D") == idle)

    def _configuration(self) -> str:
        nodes = "\n".join(
            f"NodeName={name} NodeAddr={self.address(name)} CPUs=2 RealMemory=2000 State=UNKNOWN" for name in self.nodes
        )
        return f"""
ClusterName=tips
SlurmctldHost=ctl({self.address("ctl")})
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

    def until_ended(self, job: str, seconds: float = 120) -> str:
        """Wait until a job has ended; gives its state."""
        self.until(f"job {job} has ended", lambda: self.job(job)["JobState"] not in LIVING, seconds)
        return self.job(job)["JobState"]
