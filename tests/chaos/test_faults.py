"""Faults on a real local Ray: nothing finished is lost or repeated, and decisions are those of an undisturbed study.

The faults that a single worker suffers (killed, hung, its newest checkpoint torn, its trial always dying) stand in
tests/study/test_run.py.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import stage
from tests.chaos.nodes import cluster
from tests.chaos.stage import Driver, alive, decisions, evaluations, finished, kill_quietly, prepare
from tips_dist.files import read_json
from tips_dist.study.run import status

chaos = pytest.mark.chaos


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return stage.undisturbed(tmp_path_factory.mktemp("calm"))


@pytest.fixture(autouse=True)
def nobody_left_behind() -> Iterator[None]:
    yield
    while stage.STARTED:
        stage.STARTED.pop().kill()


def check(run: Path, calm: dict[str, Any]) -> None:
    assert decisions(run) == calm
    assert stage.journal_states(run).keys() == {"COMPLETE"} | (stage.journal_states(run).keys() & {"FAIL"})
    assert stage.journal_states(run)["COMPLETE"] == 8


def records(run: Path) -> dict[Path, int]:
    """Finished trials and when their record was written: it must never be written again."""
    done = [p for p in run.glob("trials/*/trial.json") if read_json(p)["state"] == "finished"]
    return {path: path.stat().st_mtime_ns for path in done}


@pytest.mark.chaos
def test_driver_killed_and_resumed(tmp_path: Path, calm: dict[str, Any]) -> None:
    driver = Driver(prepare(tmp_path))
    run = driver.until(lambda run: finished(run) >= 2 and bool(alive(run)))
    workers = [Path(f"/proc/{beat['pid']}") for beat in alive(run)]
    driver.kill()
    deadline = time.monotonic() + 10
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its driver"
        time.sleep(0.1)
    done = records(run)
    seen = status(run)
    assert seen.working is None
    assert not seen.done
    first = Driver(tmp_path)
    first.until(lambda run: status(run).working is not None)
    code, error = Driver(tmp_path).wait()
    assert code == 2
    assert f"process {first.process.pid} on " in error
    assert first.wait()[0] == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    check(run, calm)


@chaos
@pytest.mark.parametrize("moment", ["before the first trial", "early", "late", "in the conclusion"])
def test_driver_killed_at_any_moment(moment: str, tmp_path: Path, calm: dict[str, Any]) -> None:
    driver = Driver(prepare(tmp_path))
    reached = {
        "before the first trial": lambda run: True,
        "early": lambda run: evaluations(run) >= 1,
        "late": lambda run: finished(run) >= 7,
        "in the conclusion": lambda run: finished(run) >= 8,
    }
    driver.until(reached[moment])
    driver.kill()
    code, error = Driver(tmp_path).wait()
    assert code == 0, error
    run = stage.run_folder(tmp_path)
    assert run is not None
    check(run, calm)


@chaos
def test_workers_killed_again_and_again(tmp_path: Path, calm: dict[str, Any]) -> None:
    driver = Driver(prepare(tmp_path))
    for count in (2, 30, 60, 90):
        run = driver.until(lambda run, count=count: evaluations(run) >= count and bool(alive(run)))  # type: ignore[misc]
        kill_quietly(alive(run)[0]["pid"])
        time.sleep(1.0)
    assert driver.wait()[0] == 0
    check(run, calm)


@chaos
def test_a_node_dies(tmp_path: Path, calm: dict[str, Any]) -> None:
    prepare(tmp_path)
    with cluster(2) as nodes:
        driver = Driver(tmp_path, nodes["address"], step_seconds=0.1, environment=nodes["environment"])
        run = driver.until(lambda run: bool(alive(run)) and evaluations(run) > 8)
        assert kill_quietly(nodes["raylets"][alive(run)[0]["node"]])
        code, error = driver.wait()
        assert code == 0, error
    check(run, calm)


@chaos
def test_a_worker_hangs_on_another_node(tmp_path: Path, calm: dict[str, Any]) -> None:
    prepare(tmp_path)
    with cluster(2) as nodes:
        driver = Driver(tmp_path, nodes["address"], step_seconds=0.1, environment=nodes["environment"])
        run = driver.until(lambda run: bool(alive(run)) and evaluations(run) > 8)
        kill_quietly(alive(run)[0]["pid"], signal.SIGSTOP)
        code, error = driver.wait()
        assert code == 0, error
    check(run, calm)


@chaos
def test_the_head_dies(tmp_path: Path, calm: dict[str, Any]) -> None:
    prepare(tmp_path)
    quick = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    with cluster(2) as nodes:
        driver = Driver(tmp_path, nodes["address"], environment={**nodes["environment"], **quick})
        run = driver.until(lambda run: bool(alive(run)) and finished(run) >= 2)
        assert kill_quietly(nodes["gcs"])
        assert driver.wait()[0] != 0  # Ray ends a driver that has lost its head
    done = records(run)
    code, error = Driver(tmp_path).wait()
    assert code == 0, error
    assert {path: path.stat().st_mtime_ns for path in done} == done
    check(run, calm)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting a small file system is not permitted here ({made.stderr.strip()})")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@chaos
def test_a_full_disk(small_disk: Path, calm: dict[str, Any]) -> None:
    driver = Driver(prepare(small_disk))
    run = driver.until(lambda run: finished(run) >= 2 and evaluations(run) > 60)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(512))
        except OSError:
            pass
    code, error = driver.wait()
    assert code == 1, error
    assert "full" in error or "No space" in error
    assert len(error.strip().splitlines()) == 1, error
    done = records(run)
    ballast.unlink()
    code, error = Driver(small_disk).wait()
    assert code == 0, error
    assert {path: path.stat().st_mtime_ns for path in done} == done
    check(run, calm)


@chaos
def test_storage_is_away_for_ten_seconds(tmp_path: Path, calm: dict[str, Any]) -> None:
    driver = Driver(prepare(tmp_path))
    run = driver.until(lambda run: finished(run) >= 2 and bool(alive(run)))
    away = tmp_path / "away"
    run.rename(away)
    run.touch()  # a file in its place: every access fails, and nobody can make the folder anew
    time.sleep(10)
    run.unlink()
    away.rename(run)
    code, error = driver.wait()
    assert code == 0, error
    check(run, calm)


@chaos
def test_ctrl_c_in_a_terminal(tmp_path: Path, calm: dict[str, Any]) -> None:
    driver = Driver(prepare(tmp_path))
    run = driver.until(lambda run: finished(run) >= 2 and bool(alive(run)))
    begun = time.monotonic()
    driver.process.send_signal(signal.SIGINT)
    code, error = driver.wait()
    assert time.monotonic() - begun < 10
    assert code == 130
    assert error.strip() == f"tips-dist resume {run}"  # and no chatter of Ray's
    assert "running" not in stage.states(run)
    code, error = Driver(tmp_path).wait()
    assert code == 0, error
    check(run, calm)


@chaos
def test_the_real_loop_killed_and_resumed_selects_the_same(tmp_path: Path) -> None:
    code, error = Driver(prepare(tmp_path / "calm", stage.REAL), real=True).wait()
    assert code == 0, error
    driver = Driver(prepare(tmp_path / "killed", stage.REAL), real=True)
    driver.until(lambda run: evaluations(run) >= 20)
    driver.kill()
    second = Driver(tmp_path / "killed", real=True)
    run = second.until(lambda run: bool(alive(run)) and evaluations(run) >= 60)
    kill_quietly(alive(run)[0]["pid"])
    code, error = second.wait()
    assert code == 0, error
    calm_run = stage.run_folder(tmp_path / "calm")
    assert calm_run is not None
    assert decisions(run) == decisions(calm_run)
    students = [folder / "student" / "student.safetensors" for folder in (run, calm_run)]
    assert students[0].read_bytes() == students[1].read_bytes()
