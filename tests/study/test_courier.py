"""What a worker without the driver's disk writes reaches the run folder, whole, in order, and comes back from there."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import FakeTraining, fake_poses
from tests.study.test_office import MARK, tree
from tests.study.test_records import make_trial
from tips_dist.files import StorageError, write_bytes
from tips_dist.runfolder import Trial, layout, read_trial
from tips_dist.runfolder.depths import write_depths
from tips_dist.runfolder.lock import alone_in
from tips_dist.study import courier as module
from tips_dist.study.courier import Courier, at_hand
from tips_dist.study.office import Office, Parcel, sees
from tips_dist.study.trainable import run_trial
from tips_dist.training.execution import WorkerLost

TRIAL = "trials/solo-000"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parcels of a few bytes, so that few bytes make many; nothing in the background unless a test asks for it."""
    for name in ("tips_dist.study.courier", "tips_dist.study.office"):
        monkeypatch.setattr(f"{name}.PARCEL_BYTES", 64)
    monkeypatch.setattr(module, "COMPARED_BYTES", 16)
    monkeypatch.setattr(module, "TICK_SECONDS", 1.0e6)
    monkeypatch.setattr("tips_dist.files.os.fsync", lambda descriptor: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(module, "sees", lambda run, mark: False)


def make_run(folder: Path) -> Path:
    make_trial().write(folder)
    layout.DRIVER.at(folder).write_text(MARK)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


class Watched(Office):
    """Lets a test act before every message, and counts bytes."""

    def __init__(self, run: Path, before: Callable[[Sequence[Parcel]], None] = lambda parcels: None) -> None:
        super().__init__(run, MARK)
        self.before, self.bytes = before, 0

    def take(self, session: str, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            self.before([parcel])
            self.bytes += len(parcel.content or b"")
            super().take(session, [parcel])


def trial_files(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder / TRIAL).items() if name != ".lock"}


# --- any sequence of writes ends in equal folders ---------------------------------------------------------------------

NAMES = ["checkpoint/a", "checkpoint/b", "candidates/a", "frozen/a", "trial.json", "error.txt", "history.jsonl"]
GROWING = ["history.jsonl", "tensorboard/events", "tensorboard/seed0/events"]
CONTENT = st.binary(max_size=200)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), CONTENT),
    st.tuples(st.just("append"), st.sampled_from(GROWING), CONTENT),
    st.tuples(st.just("row"), st.sampled_from(["depths.npy", "depths_raw.npy"]), st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("remove"), st.sampled_from([*NAMES, *GROWING, "depths.npy"]), st.just(b"")),
    st.tuples(st.just("touch"), st.sampled_from([*NAMES, "alive.json"]), st.just(b"")),
    st.tuples(st.sampled_from(["round", "post", "restart"]), st.just(""), st.just(b"")),
)


def act(folder: Path, action: str, name: str, content: bytes) -> None:
    path = folder / TRIAL / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if action == "write":
        write_bytes(path, content)
    elif action == "append":
        with path.open("ab") as stream:
            stream.write(content)
    elif action == "row":
        write_depths(path, (4, 2, 3, 17), content[0] % 4, np.full((2, 3, 17), content[0], np.float32))
    elif action == "remove":
        path.unlink(missing_ok=True)
    else:
        path.touch()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=25))
def test_any_sequence_of_changes_ends_in_equal_folders(actions: list[tuple[str, str, bytes]], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    run, scratch = make_run(tmp_path / "run"), tmp_path / "scratch0"
    office, count = Office(run, MARK), 0
    courier = Courier(office, "0", scratch, ["solo-000"])
    courier.__enter__()
    for action, name, content in [*actions, ("round", "", b"")]:
        if action in ("round", "post"):
            getattr(courier, action)()
        elif action == "restart":
            courier.__exit__(None)
            count += 1
            scratch = tmp_path / f"scratch{count}"
            courier = Courier(office, str(count), scratch, ["solo-000"])
            courier.__enter__()
        else:
            act(scratch, action, name, content)
    assert trial_files(run) == trial_files(scratch)
    courier.__exit__(None)


# --- killed between any two messages ----------------------------------------------------------------------------------


def story(folder: Path) -> Iterator[None]:
    """A trial as the loop writes it, one write after another: history, depths, candidates, checkpoint, what it drops.

    A checkpoint names its step and its candidates; two are kept, and so are the candidates of both.
    """
    trial = folder / TRIAL
    named: list[list[str]] = []
    (trial / "candidates").mkdir(parents=True)
    for step in range(1, 9):
        act(folder, "row", "depths.npy", bytes([step % 4]))
        yield
        act(folder, "append", "history.jsonl", json.dumps({"step": step}).encode() + b"\n")
        yield
        if step % 2:
            continue
        now = [f"seed0-step{step}.safetensors", *(named[-1][:2] if named else [])]
        act(folder, "write", f"candidates/{now[0]}", bytes([step]) * 150)
        yield
        act(folder, "write", f"checkpoint/step-{step:09d}.safetensors", json.dumps([step, now]).encode() + b" " * 90)
        yield
        named.append(now)
        for path in sorted((trial / "checkpoint").iterdir())[:-2]:
            path.unlink()
            yield
        for path in (trial / "candidates").iterdir():
            if path.name not in {name for names in named[-2:] for name in names}:
                path.unlink()
                yield
    act(folder, "write", "trial.json", b'{"state": "finished"}')


def resumable(run: Path) -> None:
    """Whether a worker could go on from what lies in the run folder, and find all that its checkpoints name."""
    trial = run / TRIAL
    checkpoints = sorted((trial / "checkpoint").glob("*.safetensors"))
    rows = (trial / "history.jsonl").read_bytes().splitlines() if checkpoints else []
    for path in checkpoints:
        step, names = json.loads(path.read_bytes())
        assert json.loads(rows[step - 1])["step"] == step
        assert all((trial / "candidates" / name).stat().st_size == 150 for name in names)
        assert (trial / "depths.npy").exists()
    if json.loads((trial / "trial.json").read_bytes())["state"] == "finished":
        assert [json.loads(path.read_bytes())[0] for path in checkpoints] == [6, 8]


@pytest.mark.parametrize("pace", [1, 2, 3, 5])
@pytest.mark.parametrize("first", [0, 8, 16])
def test_killed_between_any_two_messages_a_trial_can_go_on(run: Path, tmp_path: Path, pace: int, first: int) -> None:
    """Between two messages the loop goes on writing, ``pace`` messages for one write; then the worker may be killed."""
    scratch = tmp_path / "scratch"
    writing: Iterator[None] = iter(())
    messages = 0

    def meanwhile(parcels: Sequence[Parcel]) -> None:
        nonlocal messages
        resumable(run)
        messages += 1
        if messages % pace == 0:
            next(writing, None)

    office = Watched(run, meanwhile)
    courier = Courier(office, "me", scratch, ["solo-000"])
    courier.__enter__()
    writing = story(scratch)
    for _ in range(first):
        next(writing, None)
    for _ in range(30):
        courier.round()
        resumable(run)
    for _ in writing:
        pass
    courier.round()
    resumable(run)
    assert trial_files(run) == trial_files(scratch)
    assert json.loads((run / TRIAL / "trial.json").read_bytes())["state"] == "finished"
    courier.__exit__(None)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_only_what_has_changed_travels(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPARED_BYTES", 128)
    monkeypatch.setattr(module, "PARCEL_BYTES", 4096)
    office = Watched(run)
    courier = Courier(office, "me", scratch := tmp_path / "scratch", ["solo-000"])
    courier.__enter__()

    def sent(action: str, name: str, content: bytes) -> int:
        act(scratch, action, name, content)
        before = office.bytes
        courier.round()
        return office.bytes - before

    assert sent("append", "history.jsonl", b"x" * 1000) == 1000
    assert sent("append", "history.jsonl", b"y" * 10) == 10
    assert sent("append", "tensorboard/seed0/events", b"y" * 50) == 50
    assert sent("append", "tensorboard/seed0/events", b"y" * 5) == 5
    whole = sent("row", "depths.npy", b"\1")
    assert whole > 4 * 204
    assert 204 <= sent("row", "depths.npy", b"\2") <= 204 + 2 * 128  # a row, to whole pieces
    assert sent("write", "candidates/a", b"z" * 300) == 300
    assert sent("touch", "alive.json", b"") == 0
    assert sent("remove", "candidates/a", b"") == 0
    assert sent("touch", "trial.json", b"") == 0
    assert trial_files(run) == trial_files(scratch)
    courier.__exit__(None)


def test_what_decides_is_there_before_it_is_told(run: Path) -> None:
    told = []
    with at_hand(run, ["solo-000"], Office(run, MARK), lambda report: told.append(tree(run))) as (folder, tell):
        assert folder != run
        act(folder, "append", "history.jsonl", b"{}\n")
        act(folder, "write", "alive.json", b"{}")
        act(folder, "write", "candidates/a", b"later")
        tell({"step": 5})
        tell({"ended": True})
    assert (told[0][f"{TRIAL}/history.jsonl"], told[0][f"{TRIAL}/alive.json"]) == (b"{}\n", b"{}")
    assert f"{TRIAL}/candidates/a" not in told[0]
    assert told[1][f"{TRIAL}/candidates/a"] == b"later"  # nothing is missing where a trial of several has ended
    assert (run / TRIAL / "candidates" / "a").read_bytes() == b"later"


def test_in_the_background_everything_arrives_and_the_stop_flag_comes_back(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    with at_hand(run, ["solo-000"], Office(run, MARK), lambda report: None) as (folder, _):
        for name in ("checkpoint/a", "candidates/a", "alive.json"):
            act(folder, "write", name, b"x" * 100)
        layout.STOP.at(run).touch()
        eventually(lambda: trial_files(run) == trial_files(folder) and layout.STOP.at(folder).exists())
        os.utime(run / TRIAL / "alive.json", (1.0, 1.0))
        os.utime(folder / TRIAL / "alive.json")
        eventually(lambda: (run / TRIAL / "alive.json").stat().st_mtime > 1.0)
    assert not folder.exists()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.01)


# --- a whole trial ----------------------------------------------------------------------------------------------------


def go(run: Path, desk: Office | None, train: Any, tell: Any = lambda report: None) -> Trial:
    with at_hand(run, ["solo-000"], desk, tell) as (folder, told):
        run_trial(folder, "solo-000", fake_poses(), train, told)
    return read_trial(run, "solo-000")


def decided(run: Path) -> dict[str, Any]:
    files = {name: content for name, content in trial_files(run).items() if name not in ("trial.json", "alive.json")}
    trial = read_trial(run, "solo-000")
    return {**files, "outcome": trial.outcome, "state": trial.state}


def test_a_trial_without_the_drivers_disk_leaves_the_same_files(run: Path, tmp_path: Path) -> None:
    train = FakeTraining(diverge={"solo-000": {1: 20}})
    other = make_run(tmp_path / "other")
    go(other, None, train)
    assert go(run, Office(run, MARK), train).state == "finished"
    assert decided(run) == decided(other)


def test_killed_at_any_report_it_goes_on_elsewhere_to_the_same_end(run: Path, tmp_path: Path) -> None:
    train = FakeTraining()
    other = make_run(tmp_path / "other")
    go(other, None, train)
    office = Office(run, MARK)
    steps: list[int] = []

    def killed(report: dict[str, Any]) -> None:
        steps.append(report["step"])
        if len(steps) % 2 == 0:
            raise SystemExit

    for _ in range(20):
        try:
            trial = go(run, office, train, killed)
            break
        except SystemExit:
            assert read_trial(run, "solo-000").state == "running"
    assert (trial.state, trial.attempts > 3) == ("finished", True)
    assert decided(run) == decided(other)


def test_interrupted_it_is_pending_and_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    office = Office(run, MARK)
    flag = layout.STOP.at(run)

    def stop(report: dict[str, Any]) -> None:
        if report["step"] == 15:
            flag.touch()
            time.sleep(0.6)  # the flag is looked for twice a second

    assert go(run, office, FakeTraining(), stop).state == "pending"
    flag.unlink()
    steps: list[int] = []
    assert go(run, office, FakeTraining(), lambda report: steps.append(report["step"])).state == "finished"
    assert steps == [20, 25, 30, 35, 40]
    other = make_run(tmp_path / "other")
    go(other, None, FakeTraining())
    assert (run / TRIAL / "history.jsonl").read_bytes() == (other / TRIAL / "history.jsonl").read_bytes()


def test_a_worker_that_was_given_up_changes_nothing_more_and_ends(run: Path) -> None:
    office = Office(run, MARK)
    before: dict[str, bytes] = {}

    def taken(report: dict[str, Any]) -> None:
        if report["step"] == 15:
            office.open("another", ["solo-000"], False)
            before.update(tree(run))

    with pytest.raises(WorkerLost, match="no longer this worker's"):
        go(run, office, FakeTraining(), taken)
    assert tree(run) == before
    assert not list(run.parent.glob(f"{module.SCRATCH}*"))


def test_a_full_disk_at_the_driver_ends_the_trial_at_once(run: Path) -> None:
    class Full(Office):
        def take(self, session: str, parcels: Sequence[Parcel]) -> None:
            raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"):
        go(run, Full(run, MARK), FakeTraining())


def test_where_the_disk_is_the_drivers_own_nothing_travels(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sees", sees)
    office = Watched(run)
    with at_hand(run, ["solo-000"], office, print) as (folder, tell):
        assert (folder, tell) == (run, print)
    assert office.bytes == 0


def test_scratch_folders_of_killed_workers_are_removed_and_no_others(run: Path, tmp_path: Path) -> None:
    dead, young, held, link = (tmp_path / f"{module.SCRATCH}{name}" for name in ("dead", "young", "held", "link"))
    for folder in (dead, young, held):
        folder.mkdir()
        (folder / "file").touch()
    link.symlink_to(run)
    for folder in (dead, held):
        os.utime(folder, (1.0, 1.0))
    with alone_in(held):
        os.utime(held, (1.0, 1.0))
        with module._scratch(run) as folder:
            assert folder.parent == tmp_path
    left = {path.name.removeprefix(module.SCRATCH) for path in tmp_path.glob(f"{module.SCRATCH}*")}
    assert left == {"held", "link", "young"}
