"""A job's run folder is read through the cluster's dashboard: against a fake of it that runs what is sent for real.

A real head stands in tests/chaos/test_cluster.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import Invoke
from tests.study.conftest import study_text
from tips_dist.config import Study
from tips_dist.files import StorageError, UserError, write_json
from tips_dist.runfolder import RunFolder, layout
from tips_dist.runfolder.example import build
from tips_dist.study import job_folder, sending
from tips_dist.study.job_folder import fetch_job
from tips_dist.study.jobs import MARK
from tips_dist.study.packing import WORKS_IN

ADDRESS = "http://127.0.0.1:8265"
JOB = "synthetic-0123456789ab"


class Head:
    """A cluster of one node: jobs are processes, their output lies in files, and is handed out as Ray does it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.sent = folder, {}, []  # type: ignore[var-annotated]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.cut = 0  # so many followed outputs break in their middle
        folder.mkdir()

    def put(self, identity: str, said: str, status: str = "RUNNING", node: str | None = "a" * 56) -> None:
        (self.folder / identity).write_text(said)
        self.known[identity] = {"status": status, "metadata": {MARK: "synthetic"}, "node": node}

    def submit_job(self, **request: Any) -> str:
        identity = request["submission_id"]
        place = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copytree(request["runtime_env"]["working_dir"], place, dirs_exist_ok=True)
        self.sent.append(request | {"order": json.loads((place / "order.json").read_text())})
        self.put(identity, "Runtime env is setting up.\n")
        with (self.folder / identity).open("ab") as output:
            self.processes[identity] = subprocess.Popen(request["entrypoint"], shell=True, cwd=place, stdout=output)
        return str(identity)

    def get_job_info(self, identity: str) -> Any:
        if identity not in self.known:
            raise RuntimeError("Request failed with status code 404: Job does not exist")
        found, process = self.known[identity], self.processes.get(identity)
        ended = process is not None and process.poll() is not None
        status = SimpleNamespace(value="STOPPED" if ended else found["status"])
        return SimpleNamespace(
            submission_id=identity,
            status=_Status(status.value),
            metadata=found["metadata"],
            driver_node_id=found["node"],
            message="",
            start_time=1_700_000_000_000,
            end_time=None,
            driver_exit_code=None,
        )

    def stop_job(self, identity: str) -> bool:
        self.processes[identity].terminate()
        return True

    def delete_job(self, identity: str) -> bool:
        self.processes[identity].wait(10)
        assert (self.folder / identity).read_bytes() == b""  # nothing of the run stays on the node
        del self.known[identity]
        return True

    def get(self, address: str, params: dict[str, Any], **_: Any) -> Any:
        """What ``requests.get`` answers: the file so far, or as it grows."""
        follow = address.endswith("/stream")
        assert params["node_id"] == "a" * 56
        assert ("interval" in params) == follow  # Ray takes it nowhere else
        path = self.folder / params["filename"].removeprefix("job-driver-").removesuffix(".log")
        cut = bool(follow and self.cut)
        self.cut -= cut

        def chunks(_: Any) -> Iterator[bytes]:
            taken = 0
            with path.open("rb") as stream:
                while True:
                    found = stream.read(1000)
                    taken += len(found)
                    if (not found and not follow) or (cut and taken > 20_000):
                        return
                    if found:
                        yield found
                    else:
                        time.sleep(0.01)

        return _Answer(chunks)


class _Status(str):
    @property
    def value(self) -> str:
        return str(self)


class _Answer:
    status_code = 200

    def __init__(self, chunks: Any) -> None:
        self.iter_content = chunks

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = build(tmp_path / "node" / "synthetic-20260101-000000", trials=2, seeds=2, steps=1000)
    (folder / "lock").write_text("")
    (folder / ".stop").write_text("")
    (folder / "secrets.env").write_text("PRIVATE")
    (folder / "trials" / "solo-000" / "id_rsa").write_text("PRIVATE")
    (folder / "report.html").symlink_to(folder / "secrets.env")
    return folder


@pytest.fixture
def head(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    found = Head(tmp_path / "logs")
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: found)
    monkeypatch.setattr("requests.get", found.get)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found.put(JOB, f"Running entrypoint\n{WORKS_IN}{run}\nmore\n")
    yield found
    for process in found.processes.values():
        process.kill()
        process.wait()


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != "lock"
    }


def of_the_layout(run: Path) -> dict[str, bytes]:
    return {name: found for name, found in content(run).items() if layout.in_layout(name) and layout.copied(name)}


def test_fetch_of_everything_is_the_run_folder_and_leaves_nothing_behind(head: Head, run: Path, tmp_path: Path) -> None:
    copy = fetch_job(ADDRESS, JOB, folder=tmp_path / "home")
    assert content(copy) == of_the_layout(run)
    assert not any(b"PRIVATE" in found for found in content(copy).values())
    assert set(head.known) == {JOB}
    (request,) = head.sent
    assert request["entrypoint_label_selector"] == {"ray.io/node-id": "a" * 56}
    assert MARK not in request["metadata"]  # it is in no list of studies


def test_a_command_gets_what_it_needs_and_again_only_what_changed(head: Head, run: Path) -> None:
    copy = fetch_job(ADDRESS, JOB, "status")
    assert RunFolder(copy).trials == RunFolder(run).trials
    assert not list(copy.rglob("history.jsonl"))
    trial = run / "trials" / "solo-001" / "trial.json"
    write_json(trial, json.loads(trial.read_text()) | {"attempts": 7})
    before = {path: path.stat().st_ino for path in copy.rglob("*.json")}
    assert fetch_job(ADDRESS, JOB, "status") == copy
    changed = {path for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {copy / "trials" / "solo-001" / "trial.json"}
    assert RunFolder(copy).trial("solo-001").attempts == 7
    assert fetch_job(ADDRESS, JOB, "summary") == copy
    assert len(list(copy.rglob("history.jsonl"))) == 4


def test_one_job_sends_so_much_and_further_jobs_the_rest(
    head: Head, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_folder, "MOST_BYTES", 40_000)
    total = sum(map(len, of_the_layout(run).values()))
    copy = fetch_job(ADDRESS, JOB, folder=tmp_path / "home")
    assert content(copy) == of_the_layout(run)
    assert 2 <= len(head.sent) <= total // 40_000 + 2


def test_a_fetch_that_breaks_off_is_completed_by_the_next(head: Head, run: Path, tmp_path: Path) -> None:
    head.cut = 1
    with pytest.raises(StorageError, match="the connection broke; do it again to go on"):
        fetch_job(ADDRESS, JOB, folder=tmp_path / "home")
    with pytest.raises(UserError, match="only a part of this run was fetched"):
        RunFolder(tmp_path / "home")
    before = content(tmp_path / "home")
    assert len(before) > 2
    assert set(head.known) == {JOB}
    assert content(fetch_job(ADDRESS, JOB, folder=tmp_path / "home")) == of_the_layout(run)
    have = head.sent[1]["order"]["have"]
    assert set(have) == set(before) - {layout.FETCHING.name}  # they do not travel again


@pytest.mark.parametrize("mirrored", [False, True])
def test_who_works_on_the_run_is_known(mirrored: bool, head: Head, run: Path, invoke: Invoke) -> None:
    """Also of a run with a mirror, whose own note speaks of a driver by a host's name, which may be ours."""
    url = "s3://bucket/runs"
    if mirrored:
        note = {"url": url, "host": socket.gethostname(), "pid": 12, "time": 4e9, "interval_seconds": 30.0}
        write_json(layout.MIRROR.at(run), {"schema": 1, "ended": False, **note})
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps({"host": "node-7", "pid": 12}))
        lock.flush()
        code, out, err = invoke("status", JOB, "--address", ADDRESS, "--json")
        assert code == 0, err
        assert json.loads(out)["working"] == {"host": f"node-7 (job {JOB})", "pid": 12, "since": None}
        (copied,) = Path(os.environ["XDG_CACHE_HOME"]).rglob(layout.MIRROR.name)
        assert json.loads(copied.read_text())["url"] == (url if mirrored else "")
    code, out, err = invoke("status", JOB, "--address", ADDRESS, "--json")
    assert json.loads(out)["working"] is None


def test_the_commands(head: Head, run: Path, invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke("summary", JOB, "--address", ADDRESS, "--json")
    assert code == 0, err
    assert json.loads(out)["study"]["name"] == "synthetic"
    assert "Reading a copy of the run of" in err
    code, out, err = invoke("fetch", JOB, "--address", ADDRESS, "-o", "home")
    assert code == 0, err
    assert (tmp_path / "home" / "study.json").read_bytes() == (run / "study.json").read_bytes()
    code, out, err = invoke("summary", "home", "--address", ADDRESS)  # a folder that is here is a folder
    assert code == 0, err
    assert len(head.sent) == 2
    code, out, err = invoke("summary", "nobody", "--address", ADDRESS)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "nobody: no such job" in err
    code, out, err = invoke("fetch", JOB, "-o", "other")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--address http://HEAD:8265" in err


def test_a_job_without_a_run_folder_says_so(head: Head) -> None:
    head.put("early", "Runtime env is setting up.\n", "PENDING")
    head.put("waiting", "", "PENDING", node=None)
    with pytest.raises(UserError, match=r"early: has not said where its run folder lies \(it is PENDING"):
        fetch_job(ADDRESS, "early")
    head.put("wrong", f"{WORKS_IN}/nowhere\n")
    with pytest.raises(UserError, match="wrong: not a run folder"):
        fetch_job(ADDRESS, "wrong")
    head.put("waiting", f"{WORKS_IN}/nowhere\n", "PENDING", node=None)
    with pytest.raises(UserError, match="waiting: has not started yet"):
        fetch_job(ADDRESS, "waiting")
    assert set(head.known) == {JOB, "early", "waiting", "wrong"}


def test_only_files_of_a_run_folder_are_taken(
    head: Head, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that was taken over sends whatever it likes."""
    evil = (
        Path(sending.__file__)
        .read_text()
        .replace("for name in to_send(", "put(tar, '../evil', b'x')\n        for name in to_send(")
    )
    assert "evil" in evil
    (tmp_path / "evil.py").write_text(evil)
    monkeypatch.setattr(sending, "__file__", str(tmp_path / "evil.py"))
    with pytest.raises(UserError, match=r"sends '../evil', which is no file of a run folder"):
        fetch_job(ADDRESS, JOB, folder=tmp_path / "place" / "home")
    assert not (tmp_path / "place" / "evil").exists()


def test_what_cannot_be_read_there_ends_the_fetch(
    head: Head, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = "if name.endswith('history.jsonl'): return 0\n    try:\n        descriptor"
    broken = Path(sending.__file__).read_text().replace("try:\n        descriptor", add)
    (tmp_path / "broken.py").write_text(broken)
    monkeypatch.setattr(sending, "__file__", str(tmp_path / "broken.py"))
    with pytest.raises(StorageError, match=r"sends no more of what it has, trials/.*history\.jsonl for one"):
        fetch_job(ADDRESS, JOB, folder=tmp_path / "home")
    assert len(head.sent) == 3


def test_a_sender_that_cannot_run_is_told(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import sys\nprint('no Python for you')\nsys.exit(3)\n")
    monkeypatch.setattr(sending, "__file__", str(tmp_path / "broken.py"))
    monkeypatch.setattr(Head, "delete_job", lambda self, identity: self.known.pop(identity))
    with pytest.raises(UserError, match=r"could not send the run folder \(.*no Python for you"):
        fetch_job(ADDRESS, JOB, folder=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_times_survive_the_way(head: Head, run: Path, tmp_path: Path) -> None:
    os.utime(run / "study.yaml", (1.7e9, 1_700_000_000.25))
    copy = fetch_job(ADDRESS, JOB, folder=tmp_path / "home")
    for name in of_the_layout(run):
        assert abs((copy / name).stat().st_mtime - (run / name).stat().st_mtime) < sending.SAME_SECONDS


def test_the_driver_of_a_job_says_where_it_works(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(study: Study, *, made: Any, **_: Any) -> Path:
        made(tmp_path / "run")
        raise UserError("enough")

    monkeypatch.setattr("tips_dist.study.run.start", start)
    (tmp_path / "study.yaml").write_text(study_text(data={}))
    assert f"{WORKS_IN}{tmp_path / 'run'}\n" in invoke("run", "study.yaml", "--job")[1]
    begun = tmp_path / "runs" / "test-20260101-000000"
    monkeypatch.setattr("tips_dist.study.run.unfinished", lambda *_: begun)
    assert f"{WORKS_IN}{begun}\n" in invoke("run", "study.yaml", "--job")[1]
