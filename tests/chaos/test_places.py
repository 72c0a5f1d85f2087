"""Studies in places that lack something: nodes without this program, without memory, environments full of traps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.nodes import ABSENT_PROGRAM, cluster
from tests.chaos.stage import REAL, ROOT, STUDY, Driver, prepare, run_folder, states
from tests.fakes import HOG_GIGABYTES
from tips_dist.files import read_json

pytestmark = pytest.mark.chaos

SMALL = REAL.replace("[solo, torso_legs]", "[solo]").replace("steps: 200", "steps: 40")


def tips_dist(folder: Path, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "tips-dist"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def clean(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**own, "PYTHONPATH": str(ROOT), **more}


def test_trials_keep_away_from_a_node_without_this_program(tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(ABSENT_PROGRAM)
    (tmp_path / "study.yaml").write_text(SMALL)
    with cluster(2, of_first={"PYTHONPATH": str(tmp_path / "absent")}) as nodes:
        words = ("run", "study.yaml", "--address", nodes["address"])
        done = tips_dist(tmp_path, *words, environment=clean(**nodes["environment"]))
        assert done.returncode == 0, done.stderr
        (run,) = (tmp_path / "runs").glob("chaos-*")
        assert states(run) == {"finished": 2}
        lacking, whole = nodes["raylets"]
        assert {read_json(path)["node"] for path in run.glob("trials/*/alive.json")} == {whole}
        (line,) = [line for line in done.stderr.splitlines() if "tips-dist: is not installed" in line]
        assert line.startswith("node ")
        assert line.endswith(
            "submit with --package, or give all nodes the same image or runtime environment; trials go to other nodes"
        )
        assert lacking


def test_no_node_has_this_program(tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(ABSENT_PROGRAM)
    (tmp_path / "study.yaml").write_text(SMALL)
    with cluster(1, of_first={"PYTHONPATH": str(tmp_path / "absent")}) as nodes:
        words = ("run", "study.yaml", "--address", nodes["address"])
        done = tips_dist(tmp_path, *words, environment=clean(**nodes["environment"]))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "tips-dist: is not installed; submit with --package" in last
    assert "on the other nodes: resources: a trial asks for 1 CPUs" in last


def test_a_trial_that_takes_all_memory_says_so(tmp_path: Path) -> None:
    """Ray's memory monitor, told to begin between what the study needs and what one trial takes."""
    import psutil

    memory = psutil.virtual_memory()
    if memory.available < 2 * HOG_GIGABYTES * 2**30:
        pytest.skip(f"{memory.available / 2**30:.0f} GB of memory are free here, {2 * HOG_GIGABYTES} are needed")
    threshold = (memory.total - memory.available + HOG_GIGABYTES * 2**30 * 2 / 3) / memory.total
    folder = prepare(tmp_path, STUDY.replace("seconds: 5.0, max_failures: 10", "seconds: 60.0, max_failures: 3"))
    monitor = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    code, error = Driver(folder, hog="solo-001", environment=monitor).wait()
    assert code == 0, error
    run = run_folder(folder)
    assert run is not None
    assert states(run) == {"finished": 7, "failed": 1}
    told = read_json(run / "trials" / "solo-001" / "trial.json")["error"]
    assert told.startswith("its node ran out of memory (")
    assert "), so Ray ended its worker on " in told
    assert told.endswith("(4 times)")


def test_a_study_starts_whatever_the_environment_says(tmp_path: Path) -> None:
    """A long TMPDIR, an address, proxies that lead nowhere, a HOME that is none, hidden cards, a port in use."""
    (tmp_path / "study.yaml").write_text(SMALL)
    deep = tmp_path / ("t" * 90)
    deep.mkdir()
    traps = {
        "TMPDIR": str(deep),
        "RAY_ADDRESS": "192.0.2.1:6379",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "grpc_proxy": "http://127.0.0.1:9",
        "HOME": str(tmp_path / "nowhere"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    begun = time.monotonic()
    done = tips_dist(tmp_path, "run", "study.yaml", environment=clean(**traps))
    assert done.returncode == 0, done.stderr
    print(f"{time.monotonic() - begun:.0f} s\n{done.stderr}")
    lines = done.stderr.splitlines()
    assert sum("TMPDIR" in line and "Ray's session lies in" in line for line in lines) == 1
    assert sum("RAY_ADDRESS is set" in line for line in lines) == 1
    assert not (tmp_path / "nowhere").exists()

    asks = ("run", "study.yaml", "--set", "resources.gpus=1", "--runs", "others")
    refused = tips_dist(tmp_path, *asks, environment=clean(CUDA_VISIBLE_DEVICES=""))
    assert refused.returncode == 2
    assert "CUDA_VISIBLE_DEVICES hides every card" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "others").exists()
