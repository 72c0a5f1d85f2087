"""Run folders at an address, against a real S3 server (moto's) on loopback."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from benchmarks.reading_scale import make
from tests import slow_s3
from tests.s3 import new_bucket, serving
from tests.study.test_courier import act, resumable, story
from tips_dist.files import StorageError, UserError, write_json
from tips_dist.mirror import Mirror, mirror_of, mirror_once, mirrored, mirrored_by
from tips_dist.runfolder import example, layout, read_trials
from tips_dist.runfolder.fetching import fetch_run
from tips_dist.runfolder.records import Alive, Holder
from tips_dist.storage import Store, below, fetch_file, inside, same


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket's address; this machine's cache is a fresh folder."""
    return f"{new_bucket(server, monkeypatch, tmp_path)}/runs"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with a bit of everything."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "runs" / "study-20260101-000000"
    trial = folder / "trials" / "solo-000"
    for name in ("checkpoint", "candidates", "tensorboard"):
        (trial / name).mkdir(parents=True)
    example.study_record().save(folder / "study.json")
    (folder / "optuna.journal").write_text("{}\n")
    (folder / "lock").write_text("held")
    write_json(trial / "trial.json", {"schema": 1, "state": "running"})
    (trial / "history.jsonl").write_text('{"step": 10}\n')
    (trial / "checkpoint" / "state").write_bytes(b"state")
    (trial / "candidates" / "seed0-step10.safetensors").write_bytes(b"weights")
    (trial / "tensorboard" / "events").write_bytes(b"events")
    (trial / ".trial.json.1.tmp").write_bytes(b"half")
    for path in folder.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))  # S3 tells times to the second
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_mirror_copies_what_changed_and_drops_what_went(s3: str, run: Path) -> None:
    mirror = Mirror(run, s3)
    assert mirror.round() == 8  # neither the lock nor half-written files
    assert mirror.round() == 1  # its own note
    trial = run / "trials" / "solo-000"
    (trial / "candidates" / "seed0-step10.safetensors").rename(trial / "candidates" / "seed0-step20.safetensors")
    (trial / "history.jsonl").write_text('{"step": 10}\n{"step": 20}\n')
    mirror._next_heavy = 0.0
    assert mirror.round() == 3
    there = Store(below(s3, run.name)).list()
    assert set(there) == names(run) - {"lock", "trials/solo-000/.trial.json.1.tmp"}
    assert there["trials/solo-000/history.jsonl"].size == 26


def test_a_second_driver_copies_only_what_differs(s3: str, run: Path) -> None:
    Mirror(run, s3).round()
    (run / "trials" / "solo-000" / "history.jsonl").write_text('{"step": 10}\n{"step": 20}\n')
    (run / "trials" / "solo-000" / "checkpoint" / "state").unlink()
    assert Mirror(run, s3).round() == 2  # the history and its own note
    assert "trials/solo-000/checkpoint/state" not in Store(below(s3, run.name)).list()


def test_large_files_that_keep_changing_are_copied_rarely(s3: str, run: Path) -> None:
    mirror = Mirror(run, s3)
    mirror.round()
    (run / "trials" / "solo-000" / "checkpoint" / "state").write_bytes(b"a later state")
    (run / "trials" / "solo-000" / "history.jsonl").write_text("later\n")
    assert mirror.round() == 2  # the history and its own note
    mirror._next_heavy = 0.0
    assert mirror.round() == 2
    (run / "trials" / "solo-000" / "checkpoint" / "state").write_bytes(b"the last state")
    assert mirror.round(ended=True) == 2
    assert Store(below(s3, run.name)).list()["trials/solo-000/checkpoint/state"].size == 14


def test_order_of_a_round_is_a_state_that_resume_takes(s3: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(Store, "put", lambda self, path, name: order.append(name))
    Mirror(run, s3).round()
    trial = "trials/solo-000"
    assert order[:2] == ["study.json", "optuna.journal"]  # the run's mark, then what resume begins with
    assert order.index(f"{trial}/history.jsonl") < order.index(f"{trial}/checkpoint/state")
    assert order.index(f"{trial}/checkpoint/state") < order.index(f"{trial}/trial.json")
    assert order[-1] == "mirror.json"


@pytest.mark.parametrize("heavy", [1, 3])
@pytest.mark.parametrize("pace", [1, 2, 3, 5])
def test_cut_off_between_any_two_requests_a_mirror_is_a_state_that_resume_takes(
    pace: int, heavy: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two requests the loop goes on writing, ``pace`` requests for one write; of ``heavy`` rounds one is."""
    copy, requests = tmp_path / "backup" / run.name, 0
    shutil.rmtree(run / "trials")
    act(run, "write", "trial.json", b'{"state": "running"}')
    mirror = Mirror(run, f"file://{tmp_path}/backup")
    mirror.round()
    writing = story(run)
    put, delete = Store.put, Store.delete

    def meanwhile(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal requests
            resumable(copy)
            requests += 1
            if requests % pace == 0:
                next(writing, None)
            real(*arguments)

        return call

    monkeypatch.setattr(Store, "put", meanwhile(put))
    monkeypatch.setattr(Store, "delete", meanwhile(delete))
    had = 0
    for number in range(90):
        if number % heavy == 0:
            mirror._next_heavy = 0.0
        mirror.round()
        resumable(copy)
        checkpoints = len(list(copy.glob("trials/*/checkpoint/*")))
        assert checkpoints >= min(had, 1)  # none is taken away before there is another one
        had = max(had, checkpoints)
    for _ in writing:
        pass
    mirror.round(ended=True)
    resumable(copy)
    assert names(copy) == names(run) - {"lock"}


def test_a_trial_that_has_ended_is_there_with_all_of_its_files(s3: str, run: Path) -> None:
    """Also in a round that leaves out what is large: who reads that it has finished finds its depths as they are."""
    mirror, trial = Mirror(run, s3), run / "trials" / "solo-000"
    (trial / "depths.npy").write_bytes(b"old")
    mirror.round()
    (trial / "depths.npy").write_bytes(b"the last ones")
    assert mirror.round() == 1
    write_json(trial / "trial.json", {"schema": 1, "state": "finished"})
    assert mirror.round() == 3
    assert Store(below(s3, run.name)).read("trials/solo-000/depths.npy") == b"the last ones"


def test_fetch_brings_only_what_a_command_needs(s3: str, run: Path) -> None:
    Mirror(run, s3).round()
    url = below(s3, run.name)
    copy = fetch_run(url, "status")
    assert names(copy) == {"study.json", "trials/solo-000/trial.json", "mirror.json", "lock"}
    assert fetch_run(url, "monitor") == copy
    assert "trials/solo-000/tensorboard/events" in names(copy)
    assert "trials/solo-000/checkpoint/state" not in names(copy)


def test_fetch_again_reads_what_changed_only(s3: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(run, s3)
    mirror.round()
    url = below(s3, run.name)
    fetch_run(url, "evaluate")
    candidate = run / "trials" / "solo-000" / "candidates" / "seed0-step10.safetensors"
    candidate.rename(candidate.with_name("seed0-step20.safetensors"))
    mirror._next_heavy = 0.0
    mirror.round()
    read: list[str] = []
    get = Store.get
    monkeypatch.setattr(Store, "get", lambda self, name, path: read.append(name) or get(self, name, path))  # type: ignore[func-returns-value]
    folder = fetch_run(url, "evaluate")
    # The note is read again only if its second or size changed, which two quick rounds may not do.
    assert set(read) - {"mirror.json"} == {"trials/solo-000/candidates/seed0-step20.safetensors"}
    assert not (folder / candidate.relative_to(run)).exists()


def test_fetch_of_everything_is_the_folder(s3: str, run: Path, tmp_path: Path) -> None:
    Mirror(run, s3).round(ended=True)
    copy = fetch_run(below(s3, run.name), "everything", tmp_path / "home")
    assert names(copy) == names(run) - {"trials/solo-000/.trial.json.1.tmp"}
    assert all((copy / name).read_bytes() == (run / name).read_bytes() for name in names(copy) - {"lock"})


def test_data_at_an_address_is_read_once(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "poses.h5").write_bytes(b"poses")
    Store(s3).put(tmp_path / "poses.h5", "poses.h5")
    path = fetch_file(f"{s3}/poses.h5")
    assert path.read_bytes() == b"poses"
    monkeypatch.setattr(Store, "get", lambda *arguments: pytest.fail("read again"))
    assert fetch_file(f"{s3}/poses.h5") == path
    with pytest.raises(UserError, match="no such file"):
        fetch_file(f"{s3}/other.h5")


def test_wrong_addresses_are_refused(s3: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        fetch_run(f"{s3}/nothing")
    with pytest.raises(UserError, match="refuses"):
        Store("s3://no-such-bucket-at-all/x", patience=0.0).put(Path(__file__), "x")
    with pytest.raises(UserError, match="credentials in an address are refused"):
        Store("s3://name:secret@bucket/x")
    with pytest.raises(UserError, match="nothing://x: not an address"):
        Store("nothing://x")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\x"])
def test_names_never_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves its folder"):
        inside(tmp_path, name)


class Flaky:
    """Storage that is away for some calls."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self, call: Callable[..., None]) -> Callable[..., None]:
        def flaky(*arguments: object) -> None:
            if self.left:
                self.left -= 1
                raise OSError("AWS Error NETWORK_CONNECTION: connection refused")
            call(*arguments)

        return flaky


def test_storage_that_is_away_for_a_while_is_waited_for(s3: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tips_dist.patience.time.sleep", pauses.append)
    mirror = Mirror(run, s3)
    flaky = Flaky(3)
    files = mirror.store._files
    opened = files.open_output_stream

    class Away:
        def __getattr__(self, name: str) -> object:
            return getattr(files, name)

        def open_output_stream(self, path: str) -> object:
            if flaky.left:
                flaky.left -= 1
                raise OSError("AWS Error NETWORK_CONNECTION: connection refused")
            return opened(path)

    mirror.store._files = Away()
    assert mirror.round() == 8
    assert pauses == [0.25, 0.5, 1.0]


def test_the_study_goes_on_while_storage_is_away(s3: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds fail for a while; the work is not disturbed, and the last round makes up for it."""
    away, failed = threading.Event(), threading.Event()
    put = Store.put

    def sometimes(self: Store, file: Path | IO[bytes], name: str) -> None:
        if away.is_set():
            failed.set()
            raise StorageError("s3://…: storage does not answer")
        put(self, file, name)

    monkeypatch.setattr(Store, "put", sometimes)
    with mirrored(run, s3, interval=0.02):
        away.set()
        (run / "trials" / "solo-000" / "history.jsonl").write_text("more\n")
        assert failed.wait(10)
        away.clear()
    copy = fetch_run(below(s3, run.name), "summary")
    assert (copy / "trials" / "solo-000" / "history.jsonl").read_text() == "more\n"
    assert mirror_of(run) == s3


def test_the_server_itself_goes_away_and_comes_back(s3: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    first = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    first.start()
    host, port = first.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    mirror = Mirror(run, s3, patience=30.0)  # the bucket is there: moto keeps one state in this process
    assert mirror.round() == 8
    first.stop()
    (run / "trials" / "solo-000" / "history.jsonl").write_text("later\n")
    second = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    timer = threading.Timer(1.0, second.start)
    timer.start()
    try:
        assert mirror.round() == 2
    finally:
        timer.join()
        second.stop()


def test_what_was_written_after_the_end_is_copied_too(s3: str, run: Path) -> None:
    with mirrored(run, s3):
        pass
    write_json(run / "summary.json", {})
    assert mirror_once(run) == below(s3, run.name)
    assert "summary.json" in Store(below(s3, run.name)).list()
    with mirrored(run, None):  # a later driver goes on mirroring to where the first one did
        write_json(run / "selection.json", {})
    assert "selection.json" in Store(below(s3, run.name)).list()


def test_a_copy_says_who_works_on_the_run(s3: str, run: Path) -> None:
    assert mirrored_by(run) is None
    Mirror(run, s3)._note(ended=False)
    assert mirrored_by(run) is None  # on this host the lock tells
    note = {"url": s3, "host": "far-away", "pid": 7, "time": 4e9, "interval_seconds": 30.0, "ended": False}
    write_json(run / "mirror.json", note)
    assert mirrored_by(run) == Holder(host="far-away", pid=7)
    write_json(run / "mirror.json", {**note, "time": 1e9})
    assert mirrored_by(run) is None
    write_json(run / "mirror.json", {**note, "ended": True})
    assert mirrored_by(run) is None


def test_a_mirror_on_another_disk(run: Path, tmp_path: Path) -> None:
    assert Mirror(run, f"file://{tmp_path}/backup").round() == 8
    assert names(tmp_path / "backup" / run.name) == names(run) - {"lock", "trials/solo-000/.trial.json.1.tmp"}


def test_any_address_that_fsspec_opens(run: Path) -> None:
    Mirror(run, "memory://place/runs").round()
    assert "trials/solo-000/trial.json" in Store(f"memory://place/runs/{run.name}").list()


class Meeting:
    """A file system whose reads wait until sixteen of them are under way."""

    def __init__(self, files: Any) -> None:
        self._files, self._meeting = files, threading.Barrier(16)

    def __getattr__(self, name: str) -> object:
        return getattr(self._files, name)

    def open_input_stream(self, path: str) -> object:
        self._meeting.wait(60)
        return self._files.open_input_stream(path)


def test_many_files_are_read_at_a_time_and_none_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    for number in range(48):
        (tmp_path / "there" / str(number)).write_text(str(number))
    store = Store(f"file://{tmp_path}/there")
    store._files = Meeting(store._files)
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("synced what can be had again"))
    there = store.list()
    assert set(store.bring(there, tmp_path / "here")) == {str(number) for number in range(48)}
    assert all((tmp_path / "here" / str(number)).read_text() == str(number) for number in range(48))
    assert all(same(tmp_path / "here" / name, entry) for name, entry in there.items())


def test_what_went_meanwhile_is_not_here_and_a_failure_ends_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    for number in range(200):
        (tmp_path / "there" / f"{number}").write_text("new")
    (tmp_path / "here" / "7").write_text("old")
    store = Store(f"file://{tmp_path}/there")
    there = store.list()
    (tmp_path / "there" / "7").unlink()
    assert "7" in set(store.bring(there, tmp_path / "here"))
    assert not (tmp_path / "here" / "7").exists()
    asked: list[str] = []

    def refuse(self: Store, name: str, path: Path) -> None:
        asked.append(name)
        raise StorageError("storage does not answer")

    monkeypatch.setattr(Store, "get", refuse)
    monkeypatch.setattr("tips_dist.storage.PARALLEL", 2)
    with pytest.raises(StorageError, match="does not answer"):
        list(store.bring(there, tmp_path / "here"))
    assert len(asked) < 200


def test_a_large_run_is_read_from_a_slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What benchmarks/reading_scale.py times: more files than one answer lists, and signs of life of those that run."""
    run = make(tmp_path / "bucket" / "run", trials=130, seeds=1, evaluations=2)
    path = layout.TRIAL.at(run, "solo-007")
    write_json(path, {**json.loads(path.read_text()), "state": "running", "outcome": None})
    write_json(layout.ALIVE.at(run, "solo-007"), Alive(host="far-away", pid=7, step=50).plain())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with slow_s3.serving(tmp_path / "bucket", 0.0) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert len(Store("s3://bucket/run").list()) == sum(path.is_file() for path in run.rglob("*")) > slow_s3.PAGE
        copy = fetch_run("s3://bucket/run", "status")
    assert read_trials(copy) == read_trials(run)
    assert [path.parent.name for path in copy.rglob("alive.json")] == ["solo-007"]
    assert not list(copy.rglob("history.jsonl"))
