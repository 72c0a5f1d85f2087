"""The risk: its regimes, its value, its direction in every piece of evidence, its interval, and where it has none."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.stability import risk as module
from tips_dist.stability.risk import BONES, MIXED, SHARES, VIEWS, estimate, regime_of, regimes, risk

BODY = {
    BONES: 0.05,
    "rigidity/symmetry": 0.05,
    "distance/sliced_wasserstein": 0.05,
    "distance/nearest_neighbour": 0.25,
    "agreement/time": 0.1,
    MIXED: 0.02,
}
TYPICAL = {"one_camera": BODY, "views": {**BODY, VIEWS: 0.4}}
USED = [(regime.name, name) for regime in regimes() for name in regime.weights]
NEEDED = [(regime, name) for regime, name in USED if name not in SHARES] + [("views", VIEWS)]
VIEWED, ALONE = regimes()


def told(signals: dict[str, float | None] | dict[str, float]) -> float:
    found = risk(dict(signals))
    assert found is not None
    return found


def test_the_regime_is_that_of_the_evidence_there_is() -> None:
    for name, signals in TYPICAL.items():
        regime = regime_of(signals)
        assert regime is not None
        assert regime.name == name
    assert regime_of({VIEWS: None, **BODY}) is VIEWED  # defined for the data, not finite now
    assert regime_of({"generator/loss": 1.0}) is None
    assert risk({"generator/loss": 1.0}) is None
    assert estimate({"generator/loss": 1.0}) is None


@pytest.mark.parametrize("regime", regimes(), ids=lambda regime: str(regime.name))
def test_the_value_by_hand(regime: module.Regime) -> None:
    signals = TYPICAL[regime.name]
    pieces = {name: signals[name] if name in SHARES else math.log(signals[name]) for name in regime.weights}
    expected = math.exp(regime.intercept + sum(regime.weights[name] * piece for name, piece in pieces.items()))
    assert told(signals) == pytest.approx(expected)


def test_the_calibration_is_frozen_and_of_the_order_of_millimetres() -> None:
    """Whoever calibrates anew changes every study's risks: on purpose, and within what thresholds can stand."""
    assert [regime.name for regime in regimes()] == ["views", "one_camera"]
    for regime in regimes():
        assert all(weight > 0 for weight in regime.weights.values())
        assert MIXED in regime.weights  # or a crossing is chosen
        assert 0.3 < sum(weight for name, weight in regime.weights.items() if name not in SHARES) < 2
        assert 40 < told(TYPICAL[regime.name]) < 200
    assert VIEWS not in ALONE.weights


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
    assert told(inside) > 1.05 * told(before)


@pytest.mark.parametrize("regime", regimes(), ids=lambda regime: str(regime.name))
def test_the_interval_lies_about_the_risk_and_grows_with_it(regime: module.Regime) -> None:
    signals = TYPICAL[regime.name]
    found = estimate(signals)
    assert found is not None
    assert found.value == told(signals)
    assert found.low < found.value < found.high == pytest.approx(found.value * (1 + regime.plus_minus))
    assert found.low * found.high == pytest.approx(found.value**2)  # even in the logarithm
    assert regime.half_width == pytest.approx(math.hypot(regime.within, regime.between))
    assert 0.05 < regime.plus_minus < 1
    assert regime.around(2 * found.value).high == pytest.approx(2 * found.high)


@pytest.mark.parametrize(("regime", "name"), USED)
@pytest.mark.parametrize("spoil", [lambda _: None, lambda _: math.nan, lambda _: math.inf, lambda _: -math.inf])
def test_evidence_that_is_not_finite_leaves_no_risk(
    regime: str, name: str, spoil: Callable[[str], float | None]
) -> None:
    spoilt = {**TYPICAL[regime], name: spoil(name)}
    assert risk(spoilt) is None
    assert estimate(spoilt) is None


@pytest.mark.parametrize(("regime", "name"), NEEDED)
def test_where_evidence_is_absent_the_regime_does_not_apply(regime: str, name: str) -> None:
    left = {key: value for key, value in TYPICAL[regime].items() if key != name}
    found = regime_of(left)
    assert found is None or found.name != regime
    if name == VIEWS:
        assert risk(left) == risk(BODY)


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
