from __future__ import annotations

import io
import time
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from tips_dist.phases import Phase
from tips_dist.report.live import LiveView, duration, sparkline


@dataclass(frozen=True)
class Told:
    trial: str
    state: str
    step: int = 0
    risk: float | None = None
    verdicts: dict[str, int] = field(default_factory=dict)
    representation: str = "torso_legs_shared"
    steps: int = 12000
    steps_per_second: float | None = 152.3


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_tell_changes_and_stay_quiet_between(capsys: pytest.CaptureFixture[str]) -> None:
    clock, screen = Clock(), Console(file=io.StringIO(), width=80)
    with LiveView(screen, trials=2, clock=clock) as view:
        for step in range(0, 6000, 50):
            clock.now += 0.1
            view(Told("solo-000", "running", step, 0.5, {"healthy": 4}))
        view(Told("solo-000", "running", 6000, 0.5, {"healthy": 3, "diverged": 1}))
        clock.now += 31
        view(Told("solo-000", "running", 6050, 0.5, {"healthy": 3, "diverged": 1}))
        view(Told("solo-000", "finished", 12000, 0.4, {"healthy": 3, "diverged": 1}))
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("solo-000 running, step 0/12000, 4 healthy, risk 0.5 | 0/2 trials")
    assert "1 diverged" in lines[1]
    assert lines[3].startswith("solo-000 finished")
    assert "1/2 trials, 50%" in lines[3]


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_and_no_cell_is_cut(width: int) -> None:
    screen = Console(file=io.StringIO(), width=width, height=24)
    view = LiveView(screen, trials=3)
    for step in range(50, 12001, 50):
        verdicts = {"healthy": 5, "diverged": 2, "non_finite": 1}
        view(Told("torso_legs_shared-000", "running", step, 1 / step, verdicts))
    screen.file = io.StringIO()
    screen.print(view.render())
    text = screen.file.getvalue()
    assert "…" not in text
    assert "12000/12000" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert ("2 diverged" in text.splitlines()[2]) == (width == 200)


def test_a_terminal_is_redrawn_only_when_something_happened() -> None:
    clock, screen = Clock(), Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    assert isinstance(screen.file, io.StringIO)
    sizes = []
    with LiveView(screen, trials=1, clock=clock) as view:
        for step, seconds in ((50, 0.0), (100, 0.1), (150, 0.4)):
            clock.now = seconds
            view(Told("solo-000", "running", step, 0.5, {"healthy": 4}))
            sizes.append(len(screen.file.getvalue()))
        view(Told("solo-000", "finished", 12000, 0.4, {"healthy": 4}))
    assert sizes[0] > 0
    assert sizes[1] == sizes[0]
    assert sizes[2] > sizes[1]
    assert "12000/12000" in screen.file.getvalue()  # the last state is shown however soon it came


def test_a_tall_study_shows_running_trials_and_counts_the_rest() -> None:
    screen = Console(file=io.StringIO(), width=80, height=12)
    view = LiveView(screen, trials=40)
    for number in range(40):
        view(Told(f"solo-{number:03d}", "running" if number == 3 else "finished", 12000))
    screen.file = io.StringIO()
    screen.print(view.render())
    text = screen.file.getvalue()
    assert len(text.splitlines()) <= 12
    assert "solo-003" in text.splitlines()[2]
    assert "and 34 more trials" in text


def test_time_left_counts_from_what_was_already_done() -> None:
    clock = Clock()
    view = LiveView(Console(file=io.StringIO()), trials=1, clock=clock)
    view(Told("solo-000", "running", 6000))  # resumed half-way
    assert "unknown" in view.totals()
    clock.now = 60
    view(Told("solo-000", "running", 9000))
    assert "1 min of training left" in view.totals()


def test_time_left_is_right_for_who_joins_late_or_resumes() -> None:
    """What ended before, and what a checkpoint held, says nothing about the pace."""
    clock = Clock()
    view = LiveView(Console(file=io.StringIO()), trials=4, clock=clock)
    view(Told("solo-000", "finished", 12000))
    view(Told("solo-001", "finished", 12000))
    view(Told("solo-002", "queued"))
    clock.now = 60  # Ray starts
    view(Told("solo-002", "running", 6000))  # from its checkpoint
    assert "unknown" in view.totals()
    clock.now = 120
    view(Told("solo-002", "running", 9000))  # a quarter of a trial in two minutes; one and a quarter are left
    assert "10 min of training left" in view.totals()


def test_phases_are_never_silent_for_long() -> None:
    clock, screen = Clock(), Console(file=io.StringIO(), width=80)
    view = LiveView(screen, trials=1, clock=clock)
    for second in range(12):
        clock.now = second
        view.phase(Phase("distilling the student", 10 * second, 200))
    view.phase(Phase("distilling the student", 110, 200, ended=True, note="nothing to do"))
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().splitlines() == [
        "distilling the student, 25% (5 s)",
        "distilling the student, 50% (10 s)",
        "distilling the student: nothing to do (done, 11 s)",
    ]


def test_a_phase_has_a_bar_in_a_terminal_and_the_last_event_is_drawn() -> None:
    screen = Console(file=io.StringIO(), width=60, height=24, force_terminal=True)
    assert isinstance(screen.file, io.StringIO)
    with LiveView(screen, trials=1) as view:
        view(Told("solo-000", "running", 50, 0.5))
        view(Told("solo-000", "running", 11111, 0.5))  # too soon to be drawn at once
        deadline = time.monotonic() + 10
        while "11111" not in screen.file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "11111" in screen.file.getvalue()
        view.phase(Phase("distilling the student", 1, 2))
    assert "━" in screen.file.getvalue()


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 5, ""),
        ([1.0], 5, "▁"),
        ([0.0, 7.0], 5, "▁█"),
        ([3.0, 3.0], 5, "▁▁"),
        ([0.0, 1, 2, 3, 4, 5, 6, 7], 4, "▁▃▆█"),
    ],
)
def test_sparkline(values: list[float], width: int, bars: str) -> None:
    assert sparkline(values, width) == bars


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.2, "12 s"), (90, "2 min"), (7500, "2 h 05 min"), (200_000, "2 d 07 h")]
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
