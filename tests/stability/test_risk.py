"""The risk: its regimes, its value, its direction in every piece of evidence, and what it says where it cannot."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.stability import risk as module
from tips_dist.stability.risk import BONES, MIXED, REGIMES, VIEWS, calibration, regime_of, risk

BODY = {BONES: 0.05, "rigidity/symmetry": 0.05, "distance/sliced_wasserstein": 0.05, MIXED: 0.02}
TYPICAL = {"one_camera": BODY, "views": {**BODY, VIEWS: 0.7}}
USED = [(r.name, name) for r in REGIMES for name in (*r.logarithms, *r.shares)]
NEEDED = [(r.name, name) for r in REGIMES for name in r.logarithms]


def told(signals: dict[str, float | None] | dict[str, float]) -> float:
    found = risk(dict(signals))
    assert found is not None
    return found


def test_the_regime_is_that_of_the_evidence_there_is() -> None:
    for name, signals in TYPICAL.items():
        regime = regime_of(signals)
        assert regime is not None
        assert regime.name == name
    assert regime_of({VIEWS: None, **BODY}) is REGIMES[0]  # defined for the data, not finite now
    assert regime_of({"generator/loss": 1.0}) is None
    assert risk({"generator/loss": 1.0}) is None


def test_values_by_hand() -> None:
    line = calibration()["views"]
    score = math.log(0.7) + 0.5 * math.log(0.05) + 0.02
    assert told(TYPICAL["views"]) == pytest.approx(math.exp(line.intercept + line.slope * score))
    line = calibration()["one_camera"]
    score = (1 + 0.4 + 0.5) * math.log(0.05) + 3 * 0.02
    assert told(TYPICAL["one_camera"]) == pytest.approx(math.exp(line.intercept + line.slope * score))


def test_the_calibration_is_frozen_and_of_the_order_of_millimetres() -> None:
    """Whoever calibrates anew changes every study's risks: on purpose, and within what thresholds can stand."""
    assert set(calibration()) == {regime.name for regime in REGIMES}
    assert all(0.3 < line.slope < 1.2 for line in calibration().values())
    assert 60 < told(TYPICAL["views"]) < 100
    assert 60 < told(TYPICAL["one_camera"]) < 120


@pytest.mark.parametrize(("regime", "name"), USED)
def test_worse_evidence_is_a_higher_risk(regime: str, name: str) -> None:
    assert told({**TYPICAL[regime], name: 1.5 * TYPICAL[regime][name]}) > told(TYPICAL[regime])


@given(st.sampled_from(USED), st.floats(0, 10), st.floats(0, 10))
def test_the_risk_never_falls_as_evidence_grows(used: tuple[str, str], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert told({**TYPICAL[used[0]], used[1]: low}) <= told({**TYPICAL[used[0]], used[1]: high})


@pytest.mark.parametrize("regime", TYPICAL)
def test_nothing_is_chosen_inside_a_mirror_crossing(regime: str) -> None:
    """As on real bodies: 2 to 44 % mirrored, views 0.22 to 0.32, while bones grow stiffer (100 to 142 mm)."""
    before = {**TYPICAL[regime], MIXED: 0.02, BONES: 0.05}
    inside = {**before, MIXED: 0.44, BONES: 0.03}
    if regime == "views":
        before[VIEWS], inside[VIEWS] = 0.22, 0.32
    assert told(inside) > 1.15 * told(before)


@pytest.mark.parametrize(("regime", "name"), USED)
@pytest.mark.parametrize("spoil", [lambda _: None, lambda _: math.nan, lambda _: math.inf, lambda _: -math.inf])
def test_evidence_that_is_not_finite_leaves_no_risk(
    regime: str, name: str, spoil: Callable[[str], float | None]
) -> None:
    assert risk({**TYPICAL[regime], name: spoil(name)}) is None


@pytest.mark.parametrize(("regime", "name"), NEEDED)
def test_where_evidence_is_absent_the_regime_without_it_applies(regime: str, name: str) -> None:
    left = {key: value for key, value in TYPICAL[regime].items() if key != name}
    assert risk(left) == (risk(BODY) if name == VIEWS else None if regime == "one_camera" else risk(left))
    assert regime_of(left) is not REGIMES[[r.name for r in REGIMES].index(regime)]


def test_rows_of_before_mixing_was_measured_count_as_unmixed() -> None:
    for signals in TYPICAL.values():
        left = {key: value for key, value in signals.items() if key != MIXED}
        assert told(left) == told({**left, MIXED: 0.0})


def test_other_signals_do_not_count() -> None:
    for signals in TYPICAL.values():
        assert risk({**signals, "generator/loss": 1e9, "depth/knees": None}) == risk(signals)


def test_vanishing_evidence_is_clamped_and_hopeless_evidence_stays_finite() -> None:
    for name, signals in TYPICAL.items():
        least = told({**signals, BONES: module.FLOOR})
        assert told({**signals, BONES: 0.0}) == told({**signals, BONES: -1.0}) == least
        assert math.isfinite(told(dict.fromkeys(TYPICAL[name], 1e300)))
        assert told({**signals, MIXED: -0.1}) == told({**signals, MIXED: 0.0})
