"""The one table of verdicts: what each kind does to a seed."""

import pytest

from tips_dist.config import Stopping
from tips_dist.stability import verdicts
from tips_dist.stability.verdicts import (
    COLLAPSED,
    CROSSING,
    DIVERGED,
    DRIFTING,
    HEALTHY,
    KINDS,
    NON_FINITE,
    PLATEAUED,
    Interval,
    crossing_at,
)


@pytest.mark.parametrize(
    ("kind", "by_default", "no_plateau", "no_divergence", "off"),
    [
        (HEALTHY, False, False, False, False),
        (PLATEAUED, True, False, True, False),
        (CROSSING, False, False, False, False),
        (DRIFTING, True, False, True, False),
        (DIVERGED, True, True, False, False),
        (COLLAPSED, True, True, False, False),
        (NON_FINITE, True, True, True, True),
        ("of a newer version", False, False, False, False),
    ],
)
def test_what_ends_a_seed(kind: str, by_default: bool, no_plateau: bool, no_divergence: bool, off: bool) -> None:
    policies = (
        Stopping(),
        Stopping(plateau="off"),
        Stopping(divergence="off"),
        Stopping(plateau="off", divergence="off"),
    )
    found = [verdicts.ends_seed(kind, stopping) for stopping in policies]
    assert found == [by_default, no_plateau, no_divergence, off]


def test_sound_seeds_are_those_whose_best_counts() -> None:
    assert [name for name in KINDS if verdicts.is_sound(name)] == [HEALTHY, PLATEAUED, CROSSING, DRIFTING]
    assert not verdicts.is_sound("of a newer version")


def test_severity_grows_along_the_table() -> None:
    assert [verdicts.severity(name) for name in KINDS] == list(range(len(KINDS)))
    assert verdicts.severity("of a newer version") < 0


@pytest.mark.parametrize(
    ("kind", "onset", "step", "expected"),
    [
        (DIVERGED, 100, 150, True),
        (COLLAPSED, 100, 101, True),
        (DIVERGED, 100, 100, False),
        (DIVERGED, 100, 50, False),
        (DIVERGED, None, 50, False),
        (DRIFTING, 100, 150, True),
        (DRIFTING, 100, 100, False),
        (PLATEAUED, 100, 150, False),
        (NON_FINITE, 100, 150, False),
    ],
)
def test_checkpoints_after_the_onset_are_tainted(kind: str, onset: int | None, step: int, expected: bool) -> None:
    assert verdicts.taints(kind, onset, step) is expected


def test_only_a_crossing_passes_and_short_names_differ() -> None:
    assert [name for name, kind in KINDS.items() if kind.passes] == [CROSSING]
    assert len({kind.short for kind in KINDS.values()}) == len({kind.role for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(("step", "inside"), [(50, None), (100, 0), (199, 0), (200, None), (400, 1), (10**6, 1)])
def test_a_crossing_holds_from_its_begin_to_before_its_end(step: int, inside: int | None) -> None:
    crossings = [Interval(100, 200, 0.3), Interval(400, None, 0.1)]
    assert crossing_at(crossings, step) == (None if inside is None else crossings[inside])
