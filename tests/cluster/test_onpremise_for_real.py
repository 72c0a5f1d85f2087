"""cluster/onpremise/cluster.yaml by `ray up`, over SSH, on hosts of this machine (``make recipes``)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.hosts import Hosts, absent
from tips_dist.runfolder import layout, read_trials

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
MISSING = absent((SSHD, "ssh", "ssh-keygen", "rsync"), "openssh-server, rsync")
pytestmark = [
    pytest.mark.recipes,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "hosts can be made here"),
    pytest.mark.xdist_group("slurm"),
]
RECIPE = Path(__file__).parents[2] / "cluster" / "onpremise" / "cluster.yaml"
STUDY = """
name: onpremise
data: {procedural: {poses: 600}}
representations: [solo, torso_legs]
seeds: 1
model: {width: 16, discriminator_blocks: 1, student_blocks: 1}
training: {steps: 100, batch_size: 32, evaluate_every: 20, validation_poses: 64}
search: {trials: 1}
distillation: {steps: 20}
"""
USER = "ada"
PATIENT = "RAY_raylet_start_wait_time_s=120 RAY_health_check_timeout_ms=60000"  # Ray's own is for idle machines
COUNT = """
import ray
ray.init("auto", log_to_driver=False)
print("alive", sum(node["Alive"] for node in ray.nodes()))
"""


class Lab(Hosts):
    """A desk and three machines with SSH, a user and an environment each, as cluster/README.md asks for."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, ["desk", "big", "small1", "small2"])

    def start(self) -> None:
        ssh = self.place / "home-desk" / ".ssh"
        ssh.mkdir(parents=True)
        for key in (ssh / "id_ed25519", self.place / "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (self.place / "sshd_config").write_text(
            f"HostKey {self.place}/host\nAuthorizedKeysFile {ssh}/id_ed25519.pub\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication no\nPidFile none\nPermitRootLogin yes\nSetEnv {PATIENT} OMP_NUM_THREADS=1\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        users = Path("/etc/passwd").read_text()
        users = "".join(line for line in users.splitlines(keepends=True) if ":x:0:" not in line)
        for name in self.names:
            home = self.place / f"home-{name}"
            home.mkdir(exist_ok=True)
            (self.place / f"passwd-{name}").write_text(f"{USER}:x:0:0::{home}:/bin/bash\n{users}")
        for name in self.names[1:]:
            (self.place / f"home-{name}" / "tips-dist").symlink_to(sys.prefix)
            passwd = self.place / f"passwd-{name}"
            self.daemon(name, f"{SSHD} -D -e -f {self.place}/sshd_config", os.environ, passwd=passwd)
            # Ray asks which way leads out; nothing goes there
            route = ["route", "add", "default", "via", self.address("desk")]
            subprocess.run(["ip", "-n", self._space(name), *route], check=True)

    def at_the_desk(self, command: str, seconds: float) -> str:
        """What a command prints that a user types; it must succeed."""
        done = subprocess.run(
            self.words("desk", command, {"/etc/passwd": self.place / "passwd-desk"}),
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.user(),
            cwd=self.place,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}{self._logs()}")
        return done.stdout

    def user(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        home = self.place / "home-desk"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / ".ray" / "tips-dist-token")}
        path = f"{sys.prefix}/bin:{own['PATH']}"
        return {**own, **token, "HOME": str(home), "USER": USER, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


def test_from_ray_up_to_a_student(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        place = lab.place
        text = RECIPE.read_text().replace("<USER>", USER)
        for hole, name in {"HEAD_IP": "big", "WORKER_IP_1": "small1", "WORKER_IP_2": "small2"}.items():
            text = text.replace(f"<{hole}>", lab.address(name))
        assert set(yaml.safe_load(text)) & {"available_node_types", "head_node_type"} == set()
        (place / "cluster.yaml").write_text(text)
        (place / "study.yaml").write_text(STUDY)
        token = place / "home-desk" / ".ray" / "tips-dist-token"
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        (place / "count.py").write_text(COUNT)
        count = f"RAY_AUTH_TOKEN_PATH=~/.ray/auth_token RAY_AUTH_MODE=token ~/tips-dist/bin/python {place}/count.py"
        count = f"ray exec --no-config-cache cluster.yaml '{count}'"
        for last in (False, False, True):  # on a busy machine Ray gives up early; a person would call it again, too
            print(lab.at_the_desk("ray up --yes --no-config-cache cluster.yaml", 900))
            try:
                lab.until("all machines are there", lambda: "alive 3" in lab.at_the_desk(count, 300), 300)
                break
            except TimeoutError:
                if last:
                    raise
        passwd = place / "passwd-desk"
        lab.daemon("desk", f"ray dashboard --no-config-cache {place}/cluster.yaml", lab.user(), passwd=passwd)
        submit = "tips-dist submit study.yaml --address http://127.0.0.1:8265 --wait"
        print(lab.at_the_desk(f"bash -c 'until {submit}; do sleep 5; done'", 1200))
        (run,) = (place / "home-big" / "tips-dist-runs").iterdir()
        assert layout.STUDENT.at(run).exists()
        assert [trial.state.value for trial in read_trials(run)] == ["finished", "finished"]
        print(lab.at_the_desk("ray down --yes cluster.yaml", 600))
