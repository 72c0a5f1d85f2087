"""Breaks, slow drifts and plateaus: in words, and properties that hold whatever the history."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.config import Policy
from tips_dist.replay import SeedHistory, replay
from tips_dist.stability.detectors import DETECTORS, Judge, Recipe, Signals
from tips_dist.stability.rises import SHARE, SINGLE
from tips_dist.stability.verdicts import DIVERGED, DRIFTING, HEALTHY, PLATEAUED, Verdict, severity

STEPS = 5000  # evaluated every 100
FALL = [100 * 0.94**n for n in range(14)]  # to 45: it has begun to converge
NAMES = [
    "risk/total",
    *(name + part for name in SINGLE for part in ("", *SHARE)),
    "depth/spread_ratio",
    "generator/loss",
]


def judged(
    series: Sequence[Signals], policy: Policy | None = None, every: int = 100, steps: int = STEPS
) -> list[Verdict]:
    judge = Judge(steps, Recipe(), policy)
    return [judge.update(every * n, signals) for n, signals in enumerate(series, 1)]


def risks(values: Sequence[float]) -> list[Signals]:
    return [{"risk/total": value} for value in values]


def test_a_slow_rise_is_drift_told_in_words() -> None:
    series = [
        {
            "risk/total": risk,
            "agreement/views": 0.5,
            "rigidity/bone_ratio_variance": 0.078 * (risk / FALL[-1]) ** 2,
            "mirror/mixed": 0.0,
        }
        for risk in [*FALL, *(FALL[-1] * (1 + min(0.01 * n, 0.12)) for n in range(24))]
    ]
    found = judged(series)
    assert found[13].kind == HEALTHY
    last = found[-1]
    assert last.kind == DRIFTING
    assert last.onset is not None
    assert 1400 < last.onset < 2900
    assert last.reason.startswith("bones have grown less rigid since step 1,")
    assert ": 0.0" in last.reason


def test_a_break_is_a_divergence_and_a_part_that_falls_apart_is_named() -> None:
    assert judged(risks([*FALL, *[90.0] * 8]))[-1].kind == DIVERGED
    legs = [*[0.5] * 14, *[0.9] * 20]
    series: list[Signals] = [
        {
            "risk/total": 45.0 if n >= 13 else FALL[n],
            "agreement/views_legs": value,
            "rigidity/bone_ratio_variance_legs": 0.1,
            "agreement/views_torso": 0.5,
            "rigidity/bone_ratio_variance_torso": 0.1,
        }
        for n, value in enumerate(legs)
    ]
    found = next(one for one in judged(series) if one.kind == DRIFTING)
    assert found.reason.startswith("legs: views of one moment agree less since step")


@pytest.mark.parametrize("values", [[100.0] * 50, [100.0 + n for n in range(20)] + [130.0] * 30, [100.0, 90.0] * 25])
def test_a_run_that_has_not_begun_neither_drifts_nor_plateaus(values: list[float]) -> None:
    assert not {one.kind for one in judged(risks(values))} & {DRIFTING, PLATEAUED}


def test_a_rise_that_may_be_the_beginning_of_a_crossing_is_waited_for() -> None:
    rise = [*FALL, *(FALL[-1] * (1 + 0.01 * n) for n in range(12))]
    mixing: list[Signals] = [
        {"risk/total": risk, "mirror/mixed": 0.02 if n > 20 else 0.0} for n, risk in enumerate(rise)
    ]
    assert {one.kind for one in judged(mixing)} == {HEALTHY}
    assert judged(risks(rise))[-1].kind == DRIFTING


@pytest.mark.parametrize("every", [20, 50, 100, 200])
def test_evaluation_intervals_may_differ(every: int) -> None:
    """The same course is judged the same, later where it is seen seldom: never from one or two evaluations alone."""

    def course(step: int) -> float:
        return 100 * math.pow(0.94, min(step, 1300) / 100) * (1 + 0.1 * max(0, step - 1500) / 1000)

    found = judged(risks([course(every * n) for n in range(1, STEPS // every + 1)]), every=every)
    first = next(every * n for n, one in enumerate(found, 1) if one.kind in (DRIFTING, DIVERGED))
    assert 1900 <= first <= 3900


number = st.one_of(st.none(), st.just(math.nan), st.just(math.inf), st.just(-1.0), st.just(0.0), st.floats(1e-3, 1e3))
rough = st.lists(st.dictionaries(st.sampled_from(NAMES), number), max_size=30)


@given(rough)
def test_gaps_and_numbers_that_are_gone_are_borne(series: list[dict[str, float | None]]) -> None:
    for verdict in judged(series):
        assert all(math.isfinite(value) for value in verdict.values.values())
        assert verdict.kind == HEALTHY or verdict.reason


@given(rough, st.integers(0, 30))
def test_a_prefix_says_what_the_live_run_said(series: list[dict[str, float | None]], cut: int) -> None:
    live = judged(series)
    assert judged(series[:cut]) == live[:cut]
    first, then = Judge(STEPS, Recipe()), Judge(STEPS, Recipe())
    for n, signals in enumerate(series[:cut], 1):
        first.update(100 * n, signals)
    then.load(json.loads(json.dumps(first.dump())))
    told = [then.update(100 * n, signals) for n, signals in enumerate(series[cut:], cut + 1)]
    assert repr(told) == repr(live[cut:])  # NaN is not equal to itself


positive = st.lists(st.floats(20.0, 200.0), min_size=1, max_size=40)


@given(positive, st.floats(0.01, 100.0))
def test_no_unit_matters(values: list[float], scale: float) -> None:
    """Risks in other units, and steps of other length, are judged the same."""
    values = [
        value * (1 + 1e-7 * place) for place, value in enumerate(values)
    ]  # none exactly at a threshold: 30 over 20
    plain, scaled = (judged(risks(one)) for one in (values, [scale * value for value in values]))
    assert [(one.kind, one.onset) for one in scaled] == [(one.kind, one.onset) for one in plain]
    longer = judged(risks(values), every=700, steps=7 * STEPS)
    assert [one.kind for one in longer] == [one.kind for one in plain]


@given(positive, st.floats(1.0, 3.0))
def test_a_uniformly_worse_tail_is_never_judged_milder(tail: list[float], factor: float) -> None:
    """Of a run that has begun to converge."""
    before, worse = (judged(risks([*FALL, *one]))[-1] for one in (tail, [factor * value for value in tail]))
    assert severity(worse.kind) >= severity(before.kind)


@pytest.mark.parametrize("absent", ["agreement", "mirror", "rigidity", "distance", "depth"])
def test_what_the_data_cannot_give_is_not_needed(absent: str) -> None:
    """One camera has no agreement, for instance: a drift is told from the rest."""
    level = [*FALL, *[1.3 * FALL[-1]] * 20]
    rows = [
        {name: risk / 100 if name != "risk/total" else risk for name in NAMES} | {"mirror/mixed": 0.0} for risk in level
    ]
    kept = [
        {name: value for name, value in row.items() if not name.startswith((absent, "mirror/mixed_"))} for row in rows
    ]
    assert judged(kept)[-1].kind in (DRIFTING, DIVERGED)


def test_a_replay_stops_at_what_lasts_only() -> None:
    import numpy as np

    mixed = [0.0, 0.0, *[0.3] * 5, *[0.0] * 13]
    history = SeedHistory(
        trial="solo-000",
        representation="solo",
        seed=0,
        budget=2000,
        recipe=Recipe(),
        steps=tuple(range(100, 2100, 100)),
        names=("mirror/mixed",),
        values=np.array(mixed)[:, None],
        risks=np.array([100.0 - 2 * n for n in range(20)]),
    )
    verdict, stop = replay(history)
    assert stop is None
    assert verdict.kind == HEALTHY
    assert "crossed to its mirror image" in verdict.reason


def test_every_detector_has_a_name_of_its_own() -> None:
    assert len({one.name for one in DETECTORS}) == len(DETECTORS)
