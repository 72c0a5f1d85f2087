"""The Slurm script, run with a fake Slurm, Ray and study: what starts where, and what is left behind.

tests/cluster/test_slurm_for_real.py runs it on a real Slurm.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.fake_study import SCRIPT, make_fakes

FAKES = {
    "bin/scontrol": """
        if [[ $1 == requeue ]]; then echo "requeued $2" >>"$LOG"; exit; fi
        if [[ $2 == node ]]; then echo "   NodeAddr=192.0.2.7 NodeHostName=$3 Version=22"; exit; fi
        printf "node1\\nnode2\\nnode3\\n" | head -n "${NODES:-3}" """,
    "bin/squeue": 'echo "${STATE:-RUNNING}"',
    "bin/hostname": 'echo "${ADDRESSES:-10.0.0.9 fd00::1}"',
    # srun runs its command here, as on the node it names
    "bin/srun": """
        node=; while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done
        echo "srun on $node: $*" >>"$LOG"
        setsid "$@" & # Slurm signals all processes of a step
        trap 'kill -TERM -- "-$!"' TERM
        wait "$!" || wait "$!" """,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_fakes(tmp_path, FAKES)
    for name in ("my study.yaml", "second.yaml"):
        (tmp_path / name).write_text("name: x\n")
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
            "TIPS_DIST_WAIT": "2",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell traps none that it was born deaf to
    )


def log(place: Path) -> list[str]:
    return (place / "log").read_text().splitlines() if (place / "log").exists() else []


def stopped(place: Path, signal: str, **environment: str) -> tuple[int, list[str], str]:
    """Start a long study, send the script a signal, and give its exit code, log and errors."""
    process = start(place, "my study.yaml", STEPS="2000", **environment)
    deadline = time.monotonic() + 60
    while not any(line.startswith("tips-dist") for line in log(place)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    subprocess.run(["kill", f"-{signal}", str(process.pid)], check=True)
    _, error = process.communicate(timeout=60)
    return process.returncode, log(place), error


def test_head_workers_and_study(place: Path) -> None:
    process = start(place, "my study.yaml", "--set", "training.steps=100")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    lines = log(place)
    assert "on the way to 192.0.2.7" in lines
    head = next(line for line in lines if line.startswith("ray start") and "--head" in line)
    assert "--block --node-ip-address=10.0.0.1 --head --port=24711 --include-dashboard=false" in head
    assert "--num-cpus=8 --num-gpus=4" in head
    assert {line.partition(": ")[0] for line in lines} >= {"srun on node1", "srun on node2,node3"}
    worker = next(line for line in lines if line.startswith("ray start") and "--address=" in line)
    assert "--node-ip-address=10.0.0.1 --address=10.0.0.1:24711" in worker
    assert "--num-cpus=8 --num-gpus=4" in worker
    study = next(line for line in lines if line.startswith("tips-dist"))
    words = "run my study.yaml --continue --runs runs --address 10.0.0.1:24711 --set training.steps=100"
    assert study == f"tips-dist {words}"
    assert lines.index("10.0.0.1:24711 2 node1 node2 node3") < lines.index(study)


def test_the_token_is_ours_alone(place: Path) -> None:
    """It is in the environment of the steps; on no command line, which everybody can read, and in no file."""
    start(place, "my study.yaml", STEPS="5").communicate(timeout=60)
    tokens = {line.removeprefix("token ") for line in log(place) if line.startswith("token ")}
    assert len(tokens) == 1
    token = tokens.pop()
    assert len(token) == 64
    assert not any(token in line for line in log(place) if not line.startswith("token "))
    assert not [
        path for path in place.rglob("*") if path.is_file() and path.name != "log" and token in path.read_text()
    ]


def test_its_exit_code_is_that_of_the_study(place: Path) -> None:
    process = start(place, "my study.yaml", CODE="2")
    process.communicate(timeout=60)
    assert process.returncode == 2


def test_one_node_has_no_other_workers_and_its_first_address(place: Path) -> None:
    process = start(place, "my study.yaml", NODES="1")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not any("--address=" in line for line in log(place) if line.startswith("ray start"))
    assert any("--node-ip-address=10.0.0.9 " in line for line in log(place))


@pytest.mark.parametrize(
    "environment", [{"NODES": "1", "ADDRESSES": " "}, {"ON_THE_WAY": "127.0.1.1"}, {"HEAD_IP": "127.0.0.1"}]
)
def test_the_head_is_never_at_loopback(place: Path, environment: dict[str, str]) -> None:
    process = start(place, "my study.yaml", **environment)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "node1: no address but" in error
    assert "set HEAD_IP" in error
    assert not any("ray start" in line for line in log(place))


def test_at_the_time_limit_it_saves_and_goes_back_into_the_queue(place: Path) -> None:
    code, lines, error = stopped(place, "TERM")
    assert code == 143
    assert lines.index("state saved") < lines.index("ray ended") < lines.index("requeued 4711")
    assert "job 4711 goes back into the queue" in error


def test_of_an_array_only_its_own_job_goes_back(place: Path) -> None:
    """The number of an array's last job is that of the whole array."""
    _, lines, _ = stopped(place, "TERM", SLURM_ARRAY_JOB_ID="4711", SLURM_ARRAY_TASK_ID="1")
    assert "requeued 4711_1" in lines


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED"])
def test_a_cancelled_job_does_not_come_back(place: Path, state: str) -> None:
    code, lines, _ = stopped(place, "TERM", STATE=state)
    assert code == 130
    assert "state saved" in lines
    assert not any("requeued" in line for line in lines)


def test_an_interrupted_job_saves_and_does_not_come_back(place: Path) -> None:
    code, lines, _ = stopped(place, "INT")
    assert code == 130
    assert lines.index("state saved") < lines.index("ray ended")
    assert not any("requeued" in line for line in lines)


def test_a_study_that_ends_as_the_time_does_is_done(place: Path) -> None:
    code, lines, _ = stopped(place, "TERM", SAVED="0")
    assert code == 0
    assert not any("requeued" in line for line in lines)


def test_a_head_that_never_answers(place: Path) -> None:
    process = start(place, "my study.yaml", JOINED="1")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ray ended" in log(place)
    assert not any(line.startswith("tips-dist") for line in log(place))


@pytest.mark.parametrize(("number", "study"), [("1", "my study.yaml"), ("2", "second.yaml")])
def test_an_array_is_a_job_of_each_study(place: Path, number: str, study: str) -> None:
    array = {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": number}
    start(place, "my study.yaml", "second.yaml", "--set", "seeds=2", **array).communicate(timeout=60)
    assert any(line.startswith(f"tips-dist run {study} ") and "--set seeds=2" in line for line in log(place))


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "usage: sbatch"),
        (("--set", "seeds=2"), {}, "usage: sbatch"),
        (("other.yaml",), {}, "other.yaml: no such study file"),
        (("my study.yaml",), {"VENV": "nowhere"}, "nowhere/bin/tips-dist: not there; set VENV"),
        (("my study.yaml", "second.yaml"), {}, "2 studies in one job; give --array=1-2"),
        (
            ("my study.yaml",),
            {"SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "2"},
            "no study number 2, 1 are named; give --array=1-1",
        ),
        (("my study.yaml",), {"SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "0"}, "no study number 0"),
    ],
)
def test_bad_input(place: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str) -> None:
    process = start(place, *arguments, **environment)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in error


def test_the_script_may_be_run_directly() -> None:
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
