import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tips_dist.stability.ranking import ALPHA, LOOKS, look, surely_worse

GOOD = [(0.10, "healthy"), (0.11, "healthy"), (0.105, "plateaued"), (0.108, "healthy")]
WORSE = [(0.30, "healthy"), (0.33, "healthy"), (0.31, "healthy"), (0.32, "plateaued")]


def test_a_trial_whose_seeds_are_clear_of_the_best_is_surely_worse() -> None:
    found = surely_worse("b", {"a": GOOD, "b": WORSE})
    assert found is not None
    assert found.best == "a"
    assert found.p < found.allowed == pytest.approx(ALPHA / len(LOOKS) / 2)
    assert "surely worse than a: risk 0.315 against 0.106" in found.words()


def test_the_best_is_never_stopped_nor_one_that_overlaps_it() -> None:
    assert surely_worse("a", {"a": GOOD, "b": WORSE}) is None
    assert surely_worse("a", {"a": GOOD}) is None
    assert surely_worse("b", {"a": GOOD, "b": [(risk * 1.01, verdict) for risk, verdict in GOOD]}) is None


def test_the_more_trials_there_are_the_surer_it_has_to_be() -> None:
    """The best of many is the luckiest of many."""
    near = [(risk * 1.15, verdict) for risk, verdict in GOOD]
    crowd = {f"c{index}": WORSE for index in range(60)}
    assert surely_worse("b", {"a": GOOD, "b": near}) is not None
    assert surely_worse("b", {"a": GOOD, "b": near, **crowd}) is None


@pytest.mark.parametrize(
    "seeds",
    [
        [(0.9, "healthy")],
        [(0.9, "healthy"), (None, "healthy")],
        [(0.9, "healthy"), (0.9, "diverged"), (0.8, "collapsed")],
        [],
    ],
)
def test_too_few_sound_seeds_stop_nothing(seeds: list[tuple[float | None, str]]) -> None:
    assert surely_worse("b", {"a": GOOD, "b": seeds}) is None
    assert surely_worse("b", {"a": [(0.1, "healthy")], "b": WORSE}) is None


def test_each_look_is_taken_once() -> None:
    steps = range(50, 6001, 50)
    assert [step for step in steps if look(step, 6000, 50)] == [1800, 3000, 4200]
    assert [step for step in range(7, 71, 7) if look(step, 70, 7)] == [21, 35, 49]


@given(some.integers(0, 2**32 - 1), some.integers(2, 8), some.integers(2, 12))
def test_nothing_is_stopped_by_an_undefined_test(seed: int, seeds: int, trials: int) -> None:
    """Equal risks have no spread: the test is undefined or certain, never an error."""
    same = {str(index): [(0.1, "healthy")] * seeds for index in range(trials)}
    assert surely_worse("1", same) is None
    drawn = np.random.default_rng(seed).lognormal(size=(trials, seeds))
    table = {str(index): [(float(risk), "healthy") for risk in row] for index, row in enumerate(drawn)}
    found = surely_worse("1", table)
    assert found is None or found.p < ALPHA


def test_trials_that_are_all_alike_are_seldom_stopped() -> None:
    """Of studies of ten equal trials with four seeds, fewer than one in twenty ever loses one."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        risks = random.lognormal(sigma=0.2, size=(10, 4))
        trials = {str(i): [(float(risk), "healthy") for risk in row] for i, row in enumerate(risks)}
        wrong += any(surely_worse(name, trials) for name in trials)
    assert wrong <= 5
