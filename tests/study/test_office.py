"""The one writer of a run folder: what it accepts, from whom, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.study.test_records import make_trial
from tips_dist.files import StorageError, UserError
from tips_dist.runfolder import layout
from tips_dist.runfolder.lock import alone_in, locked
from tips_dist.study.office import Office, Parcel, Superseded, sees

MARK = "mark"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for number in range(2):
        make_trial(number).write(run)
    layout.DRIVER.at(run).write_text(MARK)
    return run


@pytest.fixture
def office(run: Path) -> Office:
    return Office(run, MARK)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


HOSTILE = [
    "../outside",
    "/etc/passwd",
    "trials/solo-000/../../study.json",
    "trials/solo-000/checkpoint/../../../study.json",
    "trials/solo-000/checkpoint/..",
    "trials/solo-000/checkpoint/",
    "trials/solo-000/checkpoint/.",
    "trials/./solo-000/trial.json",
    "trials//solo-000/trial.json",
    "trials/solo-000/unknown.txt",
    "trials/solo-000/.lock",
    "trials/solo-000/candidates/.a.tmp",
    "trials/solo-000/candidates/deep/er.safetensors",
    "trials/solo-000",
    "trials",
    "study.json",
    "selection.json",
    "optuna.journal",
    "lock",
    ".stop",
    ".driver",
    "",
    "trials/solo-000/checkpoint/a\0b",
]


def test_only_files_of_a_trial_are_accepted(office: Office, run: Path) -> None:
    office.open("me", ["solo-000"], False)
    before = tree(run.parent)
    for name in HOSTILE:
        for parcel in (Parcel(name, b"x", size=1), Parcel(name, b"x"), Parcel(name, None)):
            with pytest.raises(UserError):
                office.take("me", [parcel])
        with pytest.raises(UserError):
            office.read("me", name, 0)
    assert tree(run.parent) == before


def test_nothing_is_written_or_read_through_a_link(office: Office, run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"theirs")
    trial = run / "trials" / "solo-000"
    (trial / "candidates").symlink_to(outside)
    (trial / "history.jsonl").symlink_to(outside / "a")
    assert set(office.open("me", ["solo-000"], False)) == {"trials/solo-000/trial.json"}
    for name in ("trials/solo-000/candidates/a", "trials/solo-000/history.jsonl"):
        for parcel in (Parcel(name, b"ours", size=4), Parcel(name, b"ours"), Parcel(name, None)):
            with pytest.raises(UserError, match="is a link"):
                office.take("me", [parcel])
        with pytest.raises(UserError, match="is a link"):
            office.read("me", name, 0)
    assert tree(outside) == {"a": b"theirs"}


def test_another_trial_is_not_this_workers(office: Office) -> None:
    office.open("me", ["solo-000"], False)
    with pytest.raises(Superseded):
        office.take("me", [Parcel("trials/solo-001/history.jsonl", b"x", size=1)])
    with pytest.raises(Superseded):
        office.read("me", "trials/solo-001/trial.json", 0)


@pytest.mark.parametrize("ended", ["another worker", "a worker that sees the disk", "the driver", "closed"])
def test_who_takes_a_trial_on_takes_it_from_whoever_had_it(ended: str, office: Office, run: Path) -> None:
    name = "trials/solo-000/candidates/seed0-step5.safetensors"
    office.open("me", ["solo-000", "solo-001"], False)
    office.take("me", [Parcel(name, b"ab", 0, 4)])
    if ended == "closed":
        office.close("me")
    elif ended == "the driver":
        office.release("solo-000")
    else:
        office.open("you", ["solo-000"], ended == "a worker that sees the disk")
    before = tree(run)
    with pytest.raises(Superseded):
        office.take("me", [Parcel(name, b"cd", 2, 4)])
    assert tree(run) == before
    assert not list(run.rglob("*.tmp"))  # nor the half that had come
    if ended != "closed":
        office.take("me", [Parcel("trials/solo-001/error.txt", b"x", size=1)])  # the other one is still its own
    if ended == "a worker that sees the disk":
        with alone_in(run / "trials" / "solo-000", patience=0.0):
            pass


def test_a_worker_that_sees_the_disk_and_still_writes_keeps_others_out(
    office: Office, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tips_dist.study.office.alone_in", lambda folder: alone_in(folder, patience=0.0))
    with alone_in(run / "trials" / "solo-000"), pytest.raises(StorageError, match="another worker still writes"):
        office.open("me", ["solo-000"], False)
    office.open("me", ["solo-000"], False)
    with pytest.raises(StorageError), alone_in(run / "trials" / "solo-000", patience=0.0):
        pass


def test_an_office_is_over_when_its_driver_is(office: Office, run: Path) -> None:
    with locked(run):
        assert not office.over()
    assert office.over()  # so it is where a driver was killed: the kernel drops its lock
    with locked(run):
        assert not office.over()
        away = run.rename(run.with_name("away"))
        assert not office.over()
        away.rename(run)
        layout.DRIVER.at(run).write_text("another driver's")
        assert office.over()


def test_a_file_of_several_parcels_appears_whole_or_not_at_all(office: Office, run: Path) -> None:
    name = "trials/solo-000/checkpoint/step-000000005.safetensors"
    office.open("me", ["solo-000"], False)
    office.take("me", [Parcel(name, b"old", size=3)])
    for begin in (0, 4):
        office.take("me", [Parcel(name, b"abcd", begin, 10)])
        assert (run / name).read_bytes() == b"old"
    office.take("me", [Parcel(name, b"ef", 8, 10)])
    assert (run / name).read_bytes() == b"abcdabcdef"
    assert (run / name).stat().st_mode & 0o777 == (run / "trials/solo-000/trial.json").stat().st_mode & 0o777


def test_a_change_in_place_leaves_no_hole(office: Office, run: Path) -> None:
    name = "trials/solo-000/history.jsonl"
    office.open("me", ["solo-000"], False)
    office.take("me", [Parcel(name, b"ab\n", size=3), Parcel(name, b"cd\n", 3)])
    with pytest.raises(Superseded):
        office.take("me", [Parcel(name, b"gh\n", 9)])
    assert (run / name).read_bytes() == b"ab\ncd\n"


def test_a_touch_is_a_sign_of_life(office: Office, run: Path) -> None:
    name = "trials/solo-000/alive.json"
    office.open("me", ["solo-000"], False)
    office.take("me", [Parcel(name, b"{}", size=2)])
    os.utime(run / name, (1.0, 1.0))
    office.take("me", [Parcel(name, b"", 2)])
    assert ((run / name).read_bytes(), (run / name).stat().st_mtime > 1.0) == (b"{}", True)


def test_a_folder_of_the_same_name_is_not_the_drivers(run: Path, tmp_path: Path) -> None:
    assert sees(run, MARK)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    layout.DRIVER.at(copy).write_text("an earlier driver's")
    assert not sees(copy, MARK)
    layout.DRIVER.at(copy).unlink()
    assert not sees(copy, MARK)
    assert not sees(tmp_path / "nowhere", MARK)


def test_the_office_of_a_dead_driver_writes_nothing_more(office: Office, run: Path) -> None:
    office.open("me", ["solo-000"], False)
    layout.DRIVER.at(run).write_text("the next driver's")
    before = tree(run)
    with pytest.raises(Superseded, match="another driver"):
        office.take("me", [Parcel("trials/solo-000/error.txt", b"x", size=1)])
    assert tree(run) == before
    assert office.stopped()
    with alone_in(run / "trials" / "solo-000", patience=0.0):
        pass


def test_a_driver_of_one_machine_alone_displaces_it_too(office: Office, run: Path) -> None:
    office.open("me", ["solo-000"], False)
    layout.STUDY.at(run).touch()
    assert not office.stopped()
    layout.DRIVER.at(run).unlink()
    assert office.stopped()


def test_an_office_that_does_not_see_the_drivers_disk_says_so(run: Path) -> None:
    with pytest.raises(StorageError, match="own Ray node does not see"):
        Office(run, "another mark").open("me", ["solo-000"], False)
