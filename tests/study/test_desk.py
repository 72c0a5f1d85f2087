"""Couriers and the office with Ray between them, on one machine whose workers are told that its disk is another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeTraining
from tests.study.test_courier import eventually, trial_files
from tests.study.test_records import make_trial
from tips_dist.files import UserError
from tips_dist.runfolder import layout, read_trials
from tips_dist.study.desk import RayDesk, open_office
from tips_dist.study.office import PARCEL_BYTES, Parcel, Superseded


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tips_dist.study.desk.at_home", lambda: False)


def elsewhere(run: Path) -> RayDesk:
    """An office whose workers find another mark than this disk holds."""
    real = open_office(run)
    assert real is not None
    return RayDesk(real._clerk, run, "another disk's")


def test_a_study_whose_workers_see_no_disk_of_the_drivers(
    launch: Callable[..., Path], calm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tips_dist.study.tuning.open_office", elsewhere)
    run = launch(FakeTraining())
    assert not layout.DRIVER.at(run).exists()
    assert (run / "selection.json").read_bytes() == (calm / "selection.json").read_bytes()
    for trial in read_trials(run):
        history = layout.HISTORY.at(run, trial.id)
        assert trial.attempts == 1
        assert history.read_bytes() == layout.HISTORY.at(calm, trial.id).read_bytes()
        assert len(list((run / "trials" / trial.id / "checkpoint").iterdir())) == 2


def test_calls_objects_and_errors_pass_through_ray(ray_session: None, tmp_path: Path) -> None:
    make_trial().write(tmp_path)
    large = bytes(range(256)) * (PARCEL_BYTES // 256)
    name = "trials/solo-000/checkpoint/a"
    with elsewhere(tmp_path) as office:
        assert set(office.open("me", ["solo-000"], False)) == {"trials/solo-000/trial.json"}
        office.take("me", [Parcel(name, large, 0, len(large) + 1)])
        office.take("me", [Parcel(name, b"!", len(large), len(large) + 1)])
        assert office.read("me", name, 0) == large
        assert office.read("me", name, len(large)) == b"!"
        with pytest.raises(UserError, match="no file of a trial"):
            office.take("me", [Parcel("study.json", b"x", size=1)])
        assert not office.stopped()
        layout.STOP.at(tmp_path).touch()
        eventually(office.stopped)
        office.release("solo-000")
        with pytest.raises(Superseded, match="no longer"):
            office.take("me", [Parcel(name, b"x", size=1)])
    with pytest.raises(Superseded, match="is gone"):
        office.take("me", [Parcel(name, b"x", size=1)])
    office.release("solo-000")  # holds nothing
    assert set(trial_files(tmp_path)) == {"trial.json", "checkpoint/a"}
