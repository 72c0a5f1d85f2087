"""One process works in a run folder at a time, and says who it is."""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from pathlib import Path

import pytest

from tips_dist.files import StorageError, UserError
from tips_dist.runfolder import layout
from tips_dist.runfolder.lock import alone_in, holder, locked, timestamp


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "trials" / "a").mkdir(parents=True)
    return folder


def test_the_holder_is_told_while_it_holds(run: Path) -> None:
    assert holder(run) is None  # nobody ever was here
    with locked(run):
        found = holder(run)
        assert found is not None
        assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
        assert found.since is not None
        age = datetime.now().astimezone() - datetime.fromisoformat(found.since)
        assert 0 <= age.total_seconds() < 600
    assert holder(run) is None
    assert layout.LOCK.at(run).read_text() == ""


def test_a_second_one_is_refused_with_the_name_of_the_first(run: Path) -> None:
    with locked(run), pytest.raises(UserError) as caught, locked(run, patience=0):
        pass
    said = f"{run}: process {os.getpid()} on {socket.gethostname()} (since "
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith(") works on this run; wait for it or stop it")
    with locked(run, patience=0):  # free again
        pass


def test_a_holder_that_has_not_said_who_it_is(run: Path) -> None:
    with locked(run):
        layout.LOCK.at(run).write_text("{half of")
        found = holder(run)
        assert found is not None
        assert (found.host, found.pid, found.since) == ("unknown", 0, None)
        with pytest.raises(UserError, match=f"{run}: another process works on this run"), locked(run, patience=0):
            pass


def test_what_a_dead_one_left_goes_and_what_is_whole_stays(run: Path) -> None:
    unfinished = run / "trials" / "a" / ".trial.json.7.tmp"
    unfinished.write_text("half")
    (run / "study.json").write_text("{}")
    with locked(run):
        assert not unfinished.exists()
        assert (run / "study.json").exists()


def test_a_part_of_a_run_is_for_a_fetch_alone(run: Path) -> None:
    layout.FETCHING.at(run).write_text("mark")
    with pytest.raises(UserError, match=f"{run}: only a part of this run was fetched; fetch it again"), locked(run):
        pass
    with locked(run, fetching=True):
        assert json.loads(layout.LOCK.at(run).read_text())["pid"] == os.getpid()


def test_a_trials_folder_has_one_worker(run: Path) -> None:
    folder = run / "trials" / "a"
    with alone_in(folder):
        assert (folder / ".lock").exists()
        with pytest.raises(StorageError, match=f"{folder}: another worker still writes here"), alone_in(folder, 0):
            pass
    with alone_in(folder, 0):
        pass


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_a_lock_is_an_ordinary_file(run: Path, what: str) -> None:
    path = layout.LOCK.at(run)
    match what:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(run / "elsewhere")
        case _:
            os.mkfifo(path)
    with pytest.raises(UserError, match=r"cannot be used as a lock|is no ordinary file.*remove it"), locked(run):
        pass
    assert not (run / "elsewhere").exists()
    assert holder(run) is None


def test_times_know_their_zone() -> None:
    stamp = datetime.fromisoformat(timestamp())
    assert stamp.tzinfo is not None
    assert stamp.microsecond == 0
