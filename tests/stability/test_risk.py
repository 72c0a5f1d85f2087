"""The risk: its value, its direction in every signal, its calibration, and what it says where it cannot be told."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.stability import risk as module
from tips_dist.stability.risk import calibration, logarithms, risk

TYPICAL = {
    "consistency/cycle_3d": 0.03,
    "consistency/turn_90": 0.2,
    "depth/spread_ratio": 0.9,
    "distance/nearest_neighbour": 0.8,
    "distance/sliced_wasserstein": 0.05,
    "rigidity/bone_ratio_variance": 0.08,
    "rigidity/symmetry": 0.05,
}
USED = sorted(set(calibration()) - {"intercept"})


def told(signals: dict[str, float | None]) -> float:
    found = risk(signals)
    assert found is not None
    return found


def test_the_calibration_is_what_the_bank_gave() -> None:
    """Frozen: whoever calibrates anew changes these numbers on purpose, and every study's decisions with them."""
    assert calibration() == {
        "consistency/cycle_3d": 0.026508,
        "consistency/turn_90": 0.002724,
        "depth/spread_ratio": 0.114466,
        "distance/nearest_neighbour": 0.667852,
        "distance/sliced_wasserstein": 0.206837,
        "intercept": 6.41366,
        "rigidity/bone_ratio_variance": 0.268803,
        "rigidity/symmetry": 0.003328,
    }


def test_the_value_of_a_typical_checkpoint() -> None:
    """By hand: exp(6.41366 + sum of coefficient times log signal), the depth spread by its distance from 1."""
    exponent = 6.41366 + 0.114466 * abs(math.log(0.9))
    exponent += sum(calibration()[name] * math.log(TYPICAL[name]) for name in USED if name != "depth/spread_ratio")
    assert told(TYPICAL) == pytest.approx(math.exp(exponent))
    assert told(TYPICAL) == pytest.approx(130.429894, rel=1e-6)


@pytest.mark.parametrize("name", USED)
def test_a_worse_signal_is_a_higher_risk(name: str) -> None:
    worse = TYPICAL[name] * (0.5 if name == "depth/spread_ratio" else 1.5)
    assert told(TYPICAL | {name: worse}) > told(TYPICAL)
    assert calibration()[name] > 0


@given(
    st.sampled_from([name for name in USED if name != "depth/spread_ratio"]), st.floats(1e-5, 10), st.floats(1e-5, 10)
)
def test_the_risk_grows_with_every_signal(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert told(TYPICAL | {name: low}) <= told(TYPICAL | {name: high})


@given(st.floats(1e-3, 1e3))
def test_a_depth_spread_is_wrong_in_both_directions(ratio: float) -> None:
    assert told(TYPICAL | {"depth/spread_ratio": ratio}) == pytest.approx(
        told(TYPICAL | {"depth/spread_ratio": 1 / ratio})
    )
    assert told(TYPICAL | {"depth/spread_ratio": ratio}) >= told(TYPICAL | {"depth/spread_ratio": 1.0})


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("spoil", [lambda _: None, lambda _: math.nan, lambda _: math.inf, lambda _: -math.inf])
def test_a_signal_that_is_not_finite_leaves_no_risk(name: str, spoil: Callable[[str], float | None]) -> None:
    assert risk(TYPICAL | {name: spoil(name)}) is None


@pytest.mark.parametrize("name", USED)
def test_an_absent_signal_leaves_no_risk(name: str) -> None:
    assert risk({key: value for key, value in TYPICAL.items() if key != name}) is None


def test_other_signals_do_not_count() -> None:
    assert risk({**TYPICAL, "generator/loss": 1e9, "agreement/views": None}) == risk(TYPICAL)


def test_vanishing_signals_are_clamped_and_hopeless_ones_stay_finite() -> None:
    assert told(TYPICAL | {"rigidity/symmetry": 0.0}) == told(TYPICAL | {"rigidity/symmetry": module.FLOOR})
    assert told(TYPICAL | {"rigidity/symmetry": -1.0}) == told(TYPICAL | {"rigidity/symmetry": module.FLOOR})
    assert module.FLOOR == 1e-6
    assert told(dict.fromkeys(TYPICAL, 1e300)) == pytest.approx(math.exp(50))


def test_other_coefficients_can_be_tried() -> None:
    assert risk({"a/b": math.e}, {"intercept": 1.0, "a/b": 2.0}) == pytest.approx(math.exp(3))
    assert risk({}, {"intercept": 0.5}) == pytest.approx(math.exp(0.5))


def test_logarithms_are_what_the_risk_is_linear_in() -> None:
    found = logarithms({"a/b": math.e, "depth/spread_ratio": math.exp(-2)}, ["a/b", "depth/spread_ratio"])
    assert found == pytest.approx({"a/b": 1.0, "depth/spread_ratio": 2.0})
    assert logarithms({"a/b": 1.0}, ["a/b", "c/d"]) is None
