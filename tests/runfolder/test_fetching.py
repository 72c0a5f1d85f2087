"""Fetching and mirroring harm nothing of others: from and to a disk, so that links are in play."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tips_dist.files import StorageError, UserError, write_json
from tips_dist.mirror import NOWHERE, Mirror, mirror_of, mirrored
from tips_dist.runfolder import RunFolder, example, layout
from tips_dist.runfolder.fetching import fetch_run
from tips_dist.runfolder.lock import locked
from tips_dist.storage import Store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made(folder: Path, mark: str) -> Path:
    trial = folder / "trials" / "solo-000"
    (trial / "candidates").mkdir(parents=True)
    record = example.study_record()
    record.model_copy(update={"mark": mark}).save(folder / "study.json")
    (folder / "optuna.journal").write_text(mark)
    (trial / "history.jsonl").write_text(mark)
    (trial / "candidates" / "seed0-step10.safetensors").write_text(mark)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file, links themselves included, but for the lock's own."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (path.is_file() or path.is_symlink()) and path.name != "lock"
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made(tmp_path / "runs" / "one-20260101-000000", "a" * 32)


@pytest.fixture
def url(run: Path, tmp_path: Path) -> str:
    """The run, mirrored to another disk."""
    Mirror(run, f"file://{tmp_path}/backup").round(ended=True)
    return f"file://{tmp_path}/backup/{run.name}"


# --- fetch -------------------------------------------------------------------------------------------------------


def test_fetch_fills_a_new_or_empty_folder_and_brings_its_copy_up_to_date(run: Path, url: str, tmp_path: Path) -> None:
    for place in (tmp_path / "new", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        fetch_run(url, folder=place)
        assert content(place) == content(run)
    candidate = run / "trials" / "solo-000" / "candidates" / "seed0-step10.safetensors"
    candidate.rename(candidate.with_name("seed0-step20.safetensors"))
    Mirror(run, url.rpartition("/")[0]).round(ended=True)
    fetch_run(url, folder=tmp_path / "new")
    assert content(tmp_path / "new") == content(run)


@pytest.mark.parametrize(
    "what", ["a folder of somebody", "another run", "a file", "a link", "a half-fetched other run"]
)
def test_fetch_never_touches_what_is_not_this_run(what: str, url: str, tmp_path: Path) -> None:
    place, beside = tmp_path / "place", tmp_path / "beside"
    beside.mkdir()
    (beside / "trials").mkdir()
    (beside / "trials" / "thesis.txt").write_text("mine")
    match what:
        case "a folder":
            shutil.copytree(beside, place)
        case "another run":
            made(place, "b" * 32)
        case "a file":
            place.write_text("mine")
        case "a link":
            place.symlink_to(beside)
        case _:
            place.mkdir()
            (place / ".fetching").write_text("b" * 32)
    before = content(tmp_path)
    with pytest.raises(UserError, match="place") as caught:
        fetch_run(url, folder=place)
    assert content(tmp_path) == before
    if what in ("another run", "a half-fetched other run"):
        assert url in str(caught.value)


def test_fetch_keeps_out_of_a_run_that_is_worked_on(url: str, tmp_path: Path) -> None:
    place = fetch_run(url, folder=tmp_path / "place")
    (place / "optuna.journal").write_text("newer")
    with locked(place), pytest.raises(UserError, match="works on this run"):
        fetch_run(url, folder=place)
    assert (place / "optuna.journal").read_text() == "newer"


@pytest.mark.parametrize("name", ["optuna.journal", "trials", "trials/solo-000/history.jsonl"])
def test_fetch_writes_through_no_link(name: str, run: Path, url: str, tmp_path: Path) -> None:
    place = fetch_run(url, folder=tmp_path / "place")
    other = tmp_path / "other"
    (place / name).rename(other)
    (place / name).symlink_to(other)
    for path in (run / "optuna.journal", run / "trials" / "solo-000" / "history.jsonl"):
        path.write_text("changed, longer")
    Mirror(run, url.rpartition("/")[0]).round(ended=True)
    before = content(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        fetch_run(url, folder=place)
    assert content(tmp_path) == before


def test_fetch_reads_through_no_link(url: str, tmp_path: Path) -> None:
    """A run folder on a shared disk may hold links to what only we can read."""
    backup = Path(url.removeprefix("file://"))
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "trial.json").write_text("PRIVATE")
    (backup / "trials" / "solo-001").symlink_to(secret)
    (backup / "summary.json").symlink_to(secret / "trial.json")
    copy = fetch_run(url, folder=tmp_path / "copy")
    assert not any(b"PRIVATE" in found for found in content(copy).values())
    assert not (copy / "summary.json").exists()


def test_fetch_brings_only_files_of_the_layout(url: str, tmp_path: Path) -> None:
    backup = Path(url.removeprefix("file://"))
    for name in (".bashrc", "trials/.ssh/authorized_keys", "trials/solo-000/.lock", "lock", ".stop", ".fetching"):
        (backup / name).parent.mkdir(exist_ok=True)
        (backup / name).write_text("x")
    copy = fetch_run(url, folder=tmp_path / "copy")
    assert set(content(copy)) == set(content(backup)) - {
        ".bashrc", "trials/.ssh/authorized_keys", "trials/solo-000/.lock", ".stop", ".fetching"
    }  # fmt: skip


def test_a_fetch_that_was_cut_off_is_completed_and_never_taken_for_the_whole(
    run: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get: Callable[[Store, str, Path], None] = Store.get
    files = len(content(run))
    for allowed in range(files):
        place, left = tmp_path / f"place{allowed}", [allowed]

        def some(self: Store, name: str, path: Path, left: list[int] = left) -> None:
            if left[0] == 0:
                raise StorageError("cut off")
            left[0] -= 1
            get(self, name, path)

        monkeypatch.setattr(Store, "get", some)
        with pytest.raises(StorageError):
            fetch_run(url, folder=place)
        monkeypatch.setattr(Store, "get", get)
        with pytest.raises(UserError, match="only a part of this run was fetched"):
            RunFolder(place)
        with pytest.raises(UserError, match="only a part of this run was fetched"), locked(place):
            pass
        fetch_run(url, folder=place)
        assert content(place) == content(run)
        RunFolder(place)


# --- mirror ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["files of somebody", "another run", "a link", "a link within"])
def test_a_mirror_never_touches_what_is_not_this_run(what: str, run: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    place, beside = backup / run.name, tmp_path / "beside"
    made(beside, "a" * 32)
    backup.mkdir()
    match what:
        case "files of somebody":
            (place / "trials").mkdir(parents=True)
            (place / "trials" / "thesis.txt").write_text("mine")
        case "another run":
            made(place, "b" * 32)
        case "a link":
            place.symlink_to(beside)
        case _:
            shutil.copytree(beside, place)
            shutil.rmtree(place / "trials")
            (place / "trials").symlink_to(beside / "trials")
            (run / "trials" / "solo-000" / "history.jsonl").write_text("changed")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"backup"):
        Mirror(run, f"file://{backup}").round(ended=True)
    now = content(tmp_path)
    for name, was in before.items():
        if name.startswith(("beside", "backup")) and not (what == "a link within" and name.startswith("backup")):
            assert now[name] == was


def test_a_mirror_deletes_only_files_of_the_layout(run: Path, url: str) -> None:
    backup = Path(url.removeprefix("file://"))
    (backup / "notes.txt").write_text("mine")
    (run / "trials" / "solo-000" / "history.jsonl").unlink()
    Mirror(run, url.rpartition("/")[0]).round(ended=True)
    assert (backup / "notes.txt").read_text() == "mine"
    assert not (backup / "trials" / "solo-000" / "history.jsonl").exists()


def test_the_address_comes_from_the_user_or_this_machine_never_from_the_folder(run: Path, tmp_path: Path) -> None:
    victim = made(tmp_path / "victim" / run.name, "a" * 32)  # even with the right mark
    note = {"url": f"file://{tmp_path}/victim", "host": "x", "pid": 1, "time": 1.0, "interval_seconds": 30.0}
    write_json(run / "mirror.json", {**note, "ended": True})
    (run / "trials" / "solo-000" / "history.jsonl").unlink()
    before = content(victim)
    with (
        pytest.raises(UserError, match=r"was mirrored to .*victim, but not by this machine; .*--storage"),
        mirrored(run, None),
    ):
        pytest.fail("the body started")
    assert content(victim) == before
    with mirrored(run, NOWHERE):
        pass
    assert content(victim) == before
    assert mirror_of(run) is None
    with mirrored(run, f"file://{tmp_path}/mine"):
        pass
    assert mirror_of(run) == f"file://{tmp_path}/mine"  # remembered
    write_json(run / "mirror.json", note)
    assert mirror_of(run) == f"file://{tmp_path}/mine"
    assert content(victim) == before


def test_a_driver_elsewhere_that_is_alive_keeps_its_mirror(
    run: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(url.removeprefix("file://")) / "mirror.json"
    clock = [5e9]

    def note() -> dict[str, object]:
        return {"url": "x", "host": "elsewhere", "pid": 7, "time": clock[0], "interval_seconds": 4.0, "ended": False}

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if alive:
            write_json(path, note())

    monkeypatch.setattr("tips_dist.mirror.time.sleep", sleep)
    monkeypatch.setattr("tips_dist.mirror.time.monotonic", lambda: clock[0])
    write_json(path, note())
    alive = True
    before = content(run)
    with pytest.raises(UserError, match="process 7 on elsewhere works on this run"):
        Mirror(run, url.rpartition("/")[0]).round()
    assert content(run) == before
    alive = False
    Mirror(run, url.rpartition("/")[0]).round()
    assert layout.MIRROR.at(run).exists()


def test_an_old_run_without_a_mark_has_an_identity(tmp_path: Path) -> None:
    one = example.study_record()
    assert one.mark == ""
    assert one.identity == example.study_record().identity
    assert one.identity != one.model_copy(update={"created": "2020"}).identity
