from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.study.conftest import make_study
from tips_dist.files import StorageError, UserError
from tips_dist.runfolder import Trial, TrialState, read_trial, read_trials
from tips_dist.runfolder.example import trial
from tips_dist.runfolder.lock import alone_in, holder, locked
from tips_dist.study.records import patiently


def make_trial(number: int = 0) -> Trial:
    configuration = make_study().configuration("solo")
    parameters = {"training.generator_lr": 1e-3}
    return trial(f"solo-{number:03d}", seeds=[0, 1], configuration=configuration, parameters=parameters)


def test_a_record_reads_back_as_it_was(tmp_path: Path) -> None:
    one = make_trial().now(state=TrialState.FAILED, error="ValueError: no", attempts=2).write(tmp_path)
    assert read_trial(tmp_path, "solo-000") == one
    make_trial(1).write(tmp_path)
    assert [t.id for t in read_trials(tmp_path)] == ["solo-000", "solo-001"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "id": "x"}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    make_trial().write(tmp_path)
    path = tmp_path / "trials" / "solo-000" / "trial.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"trial\.json"):
        read_trial(tmp_path, "solo-000")


def test_the_second_to_lock_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tips_dist.runfolder.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    assert holder(tmp_path) is None
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match=f"process {other.pid} on "), locked(tmp_path):
            pass
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == other.pid
        other.kill()
    assert holder(tmp_path) is None
    with locked(tmp_path):  # a dead holder blocks nobody
        pass


def test_a_second_worker_waits_for_the_first_to_leave(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(StorageError, match="another worker"), alone_in(tmp_path, patience=0.1):
        pass
    with alone_in(tmp_path, patience=0.1):
        pass


class Storage:
    """Fails so many times, then works."""

    def __init__(self, failures: int, error: OSError) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "written"


def test_patience_outlasts_an_outage() -> None:
    storage = Storage(2, OSError(errno.EIO, "Input/output error"))
    assert patiently(storage, patience=5.0) == "written"


def test_patience_ends() -> None:
    with pytest.raises(StorageError, match="Stale"):
        patiently(Storage(100, OSError(errno.ESTALE, "Stale file handle")), patience=0.3)


def test_nobody_waits_for_a_full_disk() -> None:
    storage = Storage(1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match="No space"):
        patiently(storage, patience=60.0)
    assert storage.calls == 1


def test_patience_starts_anew_after_work_that_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    attempts = []

    def action() -> str:
        attempts.append(now[0])
        now[0] += 100.0  # works for longer than the patience, then storage fails
        if len(attempts) < 4:
            raise OSError(errno.EIO, "Input/output error")
        return "done"

    assert patiently(action, patience=60.0) == "done"


def test_other_errors_pass_at_once() -> None:
    def action() -> None:
        raise ValueError("no storage matter")

    with pytest.raises(ValueError, match="no storage matter"):
        patiently(action)


def test_a_lock_that_is_no_file_is_neither_waited_for_nor_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert holder(tmp_path) is None
    with pytest.raises(UserError, match="is no ordinary file"), locked(tmp_path):
        pass
    (tmp_path / "lock").unlink()
    (tmp_path / "other").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(StorageError, match="cannot be used as a lock"), locked(tmp_path):
        pass
    assert (tmp_path / "other").read_text() == "mine"
