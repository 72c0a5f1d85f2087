"""The one way from a study or a run to its 2D data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import fake_poses
from tips_dist.config import Data
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses
from tips_dist.files import UserError
from tips_dist.runfolder import RunFolder, example
from tips_dist.runfolder.poses import expect, run_poses, study_poses
from tips_dist.storage import Store
from tips_dist.study.folder import create

NAME = "fake.pose2d.h5"
DIGEST = fake_poses().digest


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pose file; the same file lies at ``memory://place``, and this machine's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    write_poses(folder / NAME, fake_poses())
    Store("memory://place").put(folder / NAME, NAME)
    return folder


def begun(poses: str | None, base: Path) -> Path:
    """The folder of a run of these poses, as a study whose file lies in ``base`` makes it."""
    data = {"procedural": {"poses": 200, "seed": 3}} if poses is None else {"poses": poses}
    study = example.study(data=data)
    return create(study, study_poses(study.data, base), base / "s.yaml", "", [], base.parent / "runs")


def opened(run: Path, path: Path | str | None = None) -> str:
    return run_poses(run, RunFolder(run).study, path).digest


# --- of a study ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, f"../data/{NAME}", f"memory://place/{NAME}"])
def test_a_study_names_a_file_beside_itself_or_an_address(name: str, place: Path) -> None:
    assert study_poses(Data(poses=name), place).digest == DIGEST


def test_a_path_that_is_absolute_stays(place: Path, tmp_path: Path) -> None:
    assert study_poses(Data(poses=str(place / NAME)), tmp_path / "elsewhere").digest == DIGEST


def test_a_study_without_a_file_generates_its_poses(place: Path) -> None:
    data = Data.model_validate({"procedural": {"poses": 200, "seed": 3}})
    assert study_poses(data, place).digest == procedural.generate(200, 3)[0].digest


@pytest.mark.parametrize("poses", [NAME, f"memory://place/{NAME}"])
def test_data_of_another_content_are_refused(poses: str, place: Path) -> None:
    assert study_poses(Data(poses=poses, digest=DIGEST[:12]), place).digest == DIGEST
    with pytest.raises(UserError, match=r"data\.digest\); bring the file that was meant"):
        study_poses(Data(poses=poses, digest="0" * 12), place)


def test_generated_data_of_another_content_are_refused(place: Path) -> None:
    data = {"procedural": {"poses": 200, "seed": 3}}
    right = study_poses(Data.model_validate(data), place).digest
    assert study_poses(Data.model_validate({**data, "digest": right[:12]}), place).digest == right
    with pytest.raises(UserError, match="bring the file that was meant"):
        study_poses(Data.model_validate({"procedural": {"poses": 201}, "digest": right[:12]}), place)


@pytest.mark.parametrize("poses", ["none.pose2d.h5", "memory://place/none.pose2d.h5"])
def test_a_file_that_is_not_there_is_named(poses: str, place: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pose2d\.h5: no such"):
        study_poses(Data(poses=poses), place)


# --- of a run --------------------------------------------------------------------------------------------------------


def test_a_run_knows_where_its_file_lies(place: Path) -> None:
    run = begun(NAME, place)
    assert RunFolder(run).study.data.path == str(place / NAME)
    assert opened(run) == DIGEST


def test_a_run_of_poses_at_an_address_reads_them_there(place: Path) -> None:
    run = begun(f"memory://place/{NAME}", place)
    assert RunFolder(run).study.data.path == f"memory://place/{NAME}"
    shutil.rmtree(place)
    assert opened(run) == DIGEST


def test_a_run_of_generated_poses_generates_them_again(place: Path) -> None:
    run = begun(None, place)
    assert RunFolder(run).study.data.path is None
    assert opened(run) == procedural.generate(200, 3)[0].digest


def test_a_file_that_was_moved_is_asked_for_and_found(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(NAME, place)
    (place / NAME).rename(tmp_path / "moved.pose2d.h5")
    with pytest.raises(UserError, match=r"data/fake\.pose2d\.h5: the run's pose file is gone; .* --poses"):
        opened(run)
    assert opened(run, tmp_path / "moved.pose2d.h5") == DIGEST
    assert opened(run, f"memory://place/{NAME}") == DIGEST
    monkeypatch.chdir(tmp_path)  # a path that the user gives is relative to where the user is, not to the run
    assert opened(run, Path("moved.pose2d.h5")) == DIGEST


def other_file(run: Path, place: Path) -> Path | None:
    write_poses(place / NAME, fake_poses(128))
    return None


def other_address(run: Path, place: Path) -> str:
    write_poses(place / "other.pose2d.h5", fake_poses(128))
    Store("memory://place").put(place / "other.pose2d.h5", "other.pose2d.h5")
    return "memory://place/other.pose2d.h5"


@pytest.mark.parametrize("bring", [other_file, other_address])
def test_others_than_the_run_was_trained_on_are_refused(
    bring: Callable[[Path, Path], Path | str | None], place: Path
) -> None:
    run = begun(NAME, place)
    path = bring(run, place)
    with pytest.raises(UserError, match=r"not the poses that .* was trained on") as caught:
        opened(run, path)
    assert (str(path) if path else NAME) in str(caught.value)


def test_what_is_open_already_is_checked_too(place: Path) -> None:
    run = begun(NAME, place)
    record, poses = RunFolder(run).study, fake_poses()
    assert expect(poses, record, run, "given") is poses
    with pytest.raises(UserError, match=r"^given: these are not the poses"):
        expect(fake_poses(128), record, run, "given")
