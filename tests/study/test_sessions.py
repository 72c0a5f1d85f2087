"""The driver's account of its time, by a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.conftest import launch_in, use_inline
from tips_dist.phases import phase
from tips_dist.runfolder import layout
from tips_dist.runfolder.spent import BETWEEN, START, TRAINING, Times
from tips_dist.study.cluster import Machine
from tips_dist.study.sessions import Timekeeper, timed

TWO_CORES = Machine("cores", 2.0, 1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def phases(run: Path) -> dict[str, float]:
    return Times.load(layout.TIMES.at(run)).sessions[-1].phases


def test_what_a_driver_does_one_after_the_other(tmp_path: Path, clock: Clock) -> None:
    with timed(before=1.5, clock=clock) as keeper:
        with phase("starting Ray"):  # a part of starting
            clock.now += 3.0
        keeper.keep(tmp_path, TWO_CORES)
        keeper.do(TRAINING)
        assert phases(tmp_path) == {START: 4.5}
        clock.now += 40.0
        keeper.do(BETWEEN)
        clock.now += 0.25
        with phase("selecting") as told:
            with phase("looking"):  # a part of selecting
                clock.now += 2.0
            told(1, 2)
            clock.now += 1.0
        with timed() as again, phase("evaluating"):
            assert again is keeper
            clock.now += 5.0
        assert not Times.load(layout.TIMES.at(tmp_path)).sessions[-1].ended
    found = Times.load(layout.TIMES.at(tmp_path)).sessions
    assert len(found) == 1
    assert found[0].ended
    assert found[0].phases == {START: 4.5, TRAINING: 40.0, BETWEEN: 0.25, "selecting": 3.0, "evaluating": 5.0}


def test_a_killed_driver_leaves_what_it_had_written_and_the_next_one_adds_its_own(tmp_path: Path, clock: Clock) -> None:
    killed = Timekeeper(clock=clock)
    killed.keep(tmp_path, TWO_CORES)
    killed.do(TRAINING)
    for seconds in (4.0, 8.0, 1.0):
        clock.now += seconds
        killed.beat()
    assert phases(tmp_path) == {START: 0.0, TRAINING: 12.0}  # all but the last second
    other = Timekeeper(clock=clock)
    other.keep(tmp_path, TWO_CORES)
    clock.now += 2.0
    other.end()
    found = Times.load(layout.TIMES.at(tmp_path)).sessions
    assert [(one.ended, one.wall_seconds) for one in found] == [(False, 12.0), (True, 2.0)]


def test_a_damaged_account_stops_nobody(tmp_path: Path, clock: Clock) -> None:
    layout.TIMES.at(tmp_path).write_text("{")
    keeper = Timekeeper(clock=clock)
    keeper.keep(tmp_path, TWO_CORES)
    clock.now += 1.0
    keeper.end()
    assert phases(tmp_path) == {START: 1.0}


def test_a_study_keeps_its_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_inline(monkeypatch)
    run = launch_in(tmp_path)
    assert {START, TRAINING} <= phases(run).keys()
