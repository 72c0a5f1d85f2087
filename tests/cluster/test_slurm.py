"""The Slurm script, run with a fake srun, scontrol and environment: what starts where, and what is left behind."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "study.sbatch"
FAKES = {
    "bin/scontrol": 'echo "$@" >>"$LOG"; printf "node1\\nnode2\\nnode3\\n" | head -n "${NODES:-3}"',
    # srun runs its command here, as on the node it names
    "bin/srun": """
        node=; while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done
        echo "srun on $node: $*" >>"$LOG"
        if [[ $1 == hostname ]]; then echo "10.0.0.1 fd00::1"; exit; fi
        exec "$@" """,
    "venv/bin/ray": """
        if [[ $1 == health-check ]]; then
          echo x >>"$LOG.health"; (( $(wc -l <"$LOG.health") > ${SLOW:-1} )); exit
        fi
        stat -c %a "$RAY_AUTH_TOKEN_PATH" >>"$LOG.mode"; wc -c <"$RAY_AUTH_TOKEN_PATH" >>"$LOG.mode"
        trap 'echo "ray ended" >>"$LOG"; exit' TERM; while :; do sleep 0.05; done""",
    "venv/bin/tips-dist": """
        echo "tips-dist $*" >>"$LOG"
        trap 'echo "state saved" >>"$LOG"; exit 130' TERM
        for ((i = 0; i < ${STEPS:-1}; i++)); do sleep 0.05; done
        exit "${CODE:-0}" """,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, body in FAKES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    (tmp_path / "my study.yaml").write_text("name: x\n")
    return tmp_path


def start(place: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        cwd=place,
        env={
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "LOG": str(place / "log"),
            "VENV": str(place / "venv"),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "8",
            "SLURM_GPUS_ON_NODE": "4",
            "RAY_WAIT": "0.02",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def log(place: Path) -> list[str]:
    return (place / "log").read_text().splitlines() if (place / "log").exists() else []


def tokens(place: Path) -> list[Path]:
    return list(place.glob(".tips-dist-token.*"))


def test_head_workers_and_study(place: Path) -> None:
    process = start(place, "my study.yaml", "--set", "training.steps=100")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    lines = log(place)
    head = next(line for line in lines if line.startswith("srun on node1:") and "--head" in line)
    assert "--node-ip-address=10.0.0.1 --port=24711 --dashboard-host=127.0.0.1" in head
    assert "--num-cpus=8 --num-gpus=4" in head
    workers = next(line for line in lines if "--address=" in line)
    assert workers.startswith("srun on node2,node3:")
    assert "--address=10.0.0.1:24711" in workers
    study = next(line for line in lines if line.startswith("tips-dist"))
    words = "run my study.yaml --continue --runs runs --address 10.0.0.1:24711 --set training.steps=100"
    assert study == f"tips-dist {words}"
    assert lines.index(head) < lines.index(study)


def test_the_token_is_ours_alone_and_gone_afterwards(place: Path) -> None:
    start(place, "my study.yaml", STEPS="5").communicate(timeout=60)
    modes = (place / "log.mode").read_text().split()
    assert set(modes[::2]) == {"600"}
    assert set(modes[1::2]) == {"64"}
    assert tokens(place) == []
    assert not any("TOKEN" in line for line in log(place))


def test_its_exit_code_is_that_of_the_study(place: Path) -> None:
    process = start(place, "my study.yaml", CODE="2")
    process.communicate(timeout=60)
    assert process.returncode == 2


def test_one_node_has_no_other_workers(place: Path) -> None:
    process = start(place, "my study.yaml", NODES="1")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not any("--address=" in line for line in log(place))


def test_an_ending_job_saves_the_study_first(place: Path) -> None:
    process = start(place, "my study.yaml", STEPS="2000")
    deadline = time.monotonic() + 30
    while not any(line.startswith("tips-dist") for line in log(place)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    lines = log(place)
    assert "state saved" in lines
    assert "ray ended" in lines
    assert lines.index("state saved") < lines.index("ray ended")
    assert tokens(place) == []


def test_a_head_that_never_answers(place: Path) -> None:
    process = start(place, "my study.yaml", SLOW="1000", RAY_WAIT="0.001")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the Ray head on node1 does not answer at 10.0.0.1:24711" in error
    assert tokens(place) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "usage: sbatch"),
        (("other.yaml",), {}, "other.yaml: no such study file"),
        (("my study.yaml",), {"VENV": "nowhere"}, "nowhere/bin/tips-dist: not there; set VENV"),
    ],
)
def test_bad_input(place: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str) -> None:
    process = start(place, *arguments, **environment)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in error


def test_the_script_may_be_run_directly() -> None:
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
