"""Crossings: when one is told, where it begins and ends, and what the judge makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from tips_dist.config import Policy
from tips_dist.stability.crossings import MOST, Crossing, in_words, remember
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.stability.verdicts import CROSSING, DRIFTING, HEALTHY, Interval, Verdict

STEPS = 2000  # evaluated every 100: warm-up covers steps 100 to 300
SETTLED = [0.0, 0.0]


def told(shares: Sequence[float | None], name: str = "mirror/mixed") -> list[tuple[int, int]]:
    """Steps at which a crossing holds, with its beginning."""
    detector = Crossing(Policy(), Recipe(), STEPS)
    found = [(100 * n, detector.update(100 * n, {name: share})) for n, share in enumerate(shares, 1)]
    return [(step, verdict.onset or 0) for step, verdict in found if verdict is not None]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.0] * 20, []),
        ([*SETTLED, 0.04, 0.04, 0.0], []),  # never above the threshold
        (
            [*SETTLED, 0.03, 0.06, 0.3, 0.03, 0.0, 0.0],
            [(400, 300), (500, 300), (600, 300)],
        ),  # begins where it left zero
        ([*SETTLED, 0.3, 0.3, 0.3, 0.3, 0.0, 0.0], [(s, 300) for s in range(300, 700, 100)]),
        ([*SETTLED, *[0.3] * 7, 0.0, 0.0], [(s, 300) for s in range(300, 1100, 100)]),  # lasts a third longer than seen
        ([*SETTLED, 0.06, None, math.nan, 0.06, 0.0], [(s, 300) for s in range(300, 700, 100)]),  # gaps change nothing
        ([*SETTLED, 0.3, 0.0, 0.0, 0.2, 0.0], [(300, 300), (600, 600)]),  # two
        ([0.3] * 7, [(600, 0), (700, 0)]),  # never settled: told once the warm-up is over
        ([None] * 20, []),
    ],
)
def test_when_a_crossing_is_told(shares: list[float | None], expected: list[tuple[int, int]]) -> None:
    assert told(shares) == expected


def test_independent_parts_cross_alone() -> None:
    assert told([*SETTLED, 0.2], "mirror/mixed_legs") == [(300, 300)]
    detector = Crossing(Policy(), Recipe(), STEPS)
    for step in (100, 200):
        detector.update(step, {"mirror/mixed": 0.0, "mirror/mixed_legs": 0.0})
    found = detector.update(300, {"mirror/mixed": 0.1, "mirror/mixed_torso": 0.0, "mirror/mixed_legs": 0.25})
    assert found is not None
    assert found.reason == "crosses to its mirror image since step 300: 25% of poses mirrored, the legs most"
    assert found.values == {"mirror/mixed": 0.25}


def judged(shares: Sequence[float], risks: Sequence[float] | None = None) -> Judge:
    judge = Judge(STEPS, Recipe(), Policy(plateau_share=9.0))
    for n, share in enumerate(shares, 1):
        judge.update(100 * n, {"mirror/mixed": share, "risk/total": risks[n - 1] if risks else 100.0 - n})
    return judge


def test_the_judge_tells_it_while_it_lasts_and_remembers_it() -> None:
    inside = judged([*SETTLED, 0.2, 0.4])
    assert inside.verdict.kind == CROSSING
    assert inside.crossings == [Interval(300, None, 0.4)]
    after = judged([*SETTLED, 0.2, 0.4, 0.0, 0.0])
    assert after.verdict == Verdict(
        reason="crossed to its mirror image at steps 300 to 500, 40% of poses mirrored at most"
    )
    assert after.crossings == [Interval(300, 500, 0.4)]
    assert [after.may_choose(step) for step in (100, 200, 300, 400, 500)] == [True, True, False, False, True]


def test_nothing_is_chosen_before_a_network_settled_unless_it_never_did() -> None:
    judge = judged([0.3, 0.3, 0.3, 0.3, 0.0, 0.0])
    assert (judge.settled, judge.verdict.kind, judge.crossings) == (600, HEALTHY, [])
    assert [judge.may_choose(step) for step in (400, 500, 600)] == [False, False, True]
    never = judged([0.3] * 20)
    assert (never.settled, never.verdict.kind, never.may_choose(700)) == (None, CROSSING, True)


def test_a_rising_risk_inside_a_crossing_is_no_drift_and_what_was_before_is_no_measure_after_it() -> None:
    high = [100.0, 60.0, *[60.0] * 4, *[85.0] * 6, *[90.0 - n for n in range(8)]]
    crossing = [*[0.0] * 6, *[0.3] * 6, *[0.0] * 8]
    assert judged(crossing, high).lasting.kind == HEALTHY
    assert judged([0.0] * 20, high).lasting.kind != HEALTHY


def test_a_worse_verdict_stays() -> None:
    judge = Judge(STEPS, Recipe(), Policy(plateau_share=9.0))
    judge.lasting = Verdict(DRIFTING, "since", 100)
    for step, share in ((200, 0.0), (300, 0.0), (400, 0.3)):
        judge.update(step, {"mirror/mixed": share})
    assert judge.verdict.kind == DRIFTING
    assert judge.crossings == [Interval(400, None, 0.3)]


def test_crossings_survive_a_checkpoint() -> None:
    for cut in range(1, 9):
        shares = [*SETTLED, 0.2, 0.4, 0.0, 0.0, 0.3, 0.0, 0.0]
        whole, half = judged(shares), judged(shares[:cut])
        other = Judge(STEPS, Recipe(), Policy(plateau_share=9.0))
        other.load(json.loads(json.dumps(half.dump())))
        for n, share in enumerate(shares[cut:], cut + 1):
            other.update(100 * n, {"mirror/mixed": share, "risk/total": 100.0 - n})
        assert (other.crossings, other.verdict, other.settled) == (whole.crossings, whole.verdict, whole.settled)


def test_a_state_from_before_crossings_loads() -> None:
    judge = Judge(STEPS, Recipe())
    state = json.loads(json.dumps(judge.dump()))
    for name in ("passing", "crossings"):
        del state[name]
    for name in ("Crossing", "Drifting"):
        del state["detectors"][name]
    judge.load(state)
    assert judge.update(100, {"risk/total": 50.0}).kind == HEALTHY


def test_many_crossings_take_no_more_memory() -> None:
    crossings: list[Interval] = []
    for n in range(3 * MOST):
        crossings = remember(crossings, Verdict(CROSSING, "", 100 * n, {"mirror/mixed": 0.1}), 100 * n)
        crossings = remember(crossings, None, 100 * n + 50)
    assert len(crossings) == MOST
    assert crossings[-1].end == 100 * (3 * MOST - 1) + 50
    assert in_words([]) == ""
