from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tips_dist import bootstrap
from tips_dist.bootstrap import (
    Statistic,
    cliffs_delta,
    cluster_interval,
    difference,
    difference_of_designs,
    over_groups,
    statistic,
)

NAN, INF = float("nan"), float("inf")


def test_one_run_has_no_interval() -> None:
    assert statistic(np.array([[3.0, NAN]])) == Statistic(3.0, 3.0, 3.0, 1)


def test_no_run_has_no_statistic() -> None:
    assert statistic(np.array([[NAN, NAN]])) is None
    assert statistic(np.empty((0, 0))) is None


def test_the_interval_covers_the_mean_of_normal_runs() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        found = statistic(random.normal(5.0, 1.0, size=(1, 20)))
        assert found is not None
        covered += found.low <= 5.0 <= found.high
    assert 85 <= covered <= 100


def test_runs_of_one_trial_are_not_independent() -> None:
    """Ten trials that differ, each with seeds that agree: the interval must be that of ten values, not of eighty."""
    values = np.repeat(np.arange(10.0)[:, None], 8, axis=1)
    clustered, flat = statistic(values), statistic(values.reshape(1, -1))
    assert clustered is not None
    assert flat is not None
    assert clustered.high - clustered.low > 2 * (flat.high - flat.low)


def test_the_median_ignores_missing_runs() -> None:
    found = statistic(np.array([[1.0, NAN, 100.0], [2.0, NAN, NAN]]), median=True)
    assert found is not None
    assert (found.value, found.runs) == (2.0, 3)


def test_difference_is_zero_for_equal_groups_and_excludes_zero_for_far_ones() -> None:
    random = np.random.default_rng(1)
    group = random.normal(size=(1, 30))
    same, far = difference(group, group), difference(group + 3, group)
    assert same is not None
    assert far is not None
    assert same.low < 0 < same.high
    assert far.value == pytest.approx(3.0)
    assert far.low > 2.0
    assert difference(group, np.array([[NAN]])) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0], [1.0, 2.0], -1.0),
        ([1.0, 1.0], [1.0], 0.0),
        ([1.0, 3.0, NAN], [2.0], 0.0),
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([NAN], [1.0], None),
    ],
)
def test_cliffs_delta(first: list[float], second: list[float], expected: float | None) -> None:
    assert cliffs_delta(np.array(first), np.array(second)) == expected


def test_bootstrap_draws_sequences_not_poses() -> None:
    generator = np.random.default_rng(0)
    sequences = np.repeat(np.arange(20), 50)
    level = generator.normal(100, 20, 20)
    errors = level[sequences] + generator.normal(0, 1, 1000)
    interval = cluster_interval(errors, sequences)
    assert interval is not None
    low, high = interval
    assert low < errors.mean() < high
    # The mean of 20 sequences with deviation 20 is known to about 4.5; single poses would claim 0.6.
    assert 2 * 1.96 * level.std() / np.sqrt(20) == pytest.approx(high - low, rel=0.2)
    assert interval == cluster_interval(errors, sequences)
    assert cluster_interval(errors, np.zeros(1000, dtype=int)) is None


def test_groups_are_drawn_whole() -> None:
    """Five groups of seeds that agree: what is measured can only take the values that whole groups give."""
    values = np.repeat(np.arange(5.0), 4)
    groups = [np.flatnonzero(values == value) for value in range(5)]
    seen: set[int] = set()

    def measure(rows: np.ndarray) -> float:
        seen.update(np.bincount(values[rows].astype(int), minlength=5).tolist())
        return float(values[rows].mean())

    found = over_groups(measure, groups)
    assert (found.value, found.runs) == (2.0, 20)
    assert 0 < found.low < 2 < found.high < 4
    assert all(count % 4 == 0 for count in seen)
    assert found == over_groups(measure, groups)


def test_trials_of_a_design_are_not_drawn() -> None:
    """Trials differ by far, their seeds hardly: as a design the difference is known, as a sample it is not."""
    first = np.array([[0.0, 0.1, 0.2], [100.0, 100.1, 100.2]])
    fixed, drawn = difference_of_designs(first + 1, first), difference(first + 1, first)
    assert fixed is not None
    assert drawn is not None
    assert fixed.value == pytest.approx(drawn.value) == pytest.approx(1.0)
    assert fixed.high - fixed.low < 0.3 < 50 < drawn.high - drawn.low
    assert difference_of_designs(first, np.array([[NAN]])) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], 2.0),
        ([4.0, 1.0, 2.0, 3.0], 2.5),
        ([1.0, NAN, 3.0], 2.0),
        ([1.0, INF, 3.0], 3.0),
        ([1.0, 3.0, INF, INF], 3.0),
        ([1.0, INF, INF], None),
        ([INF, NAN], None),
        ([NAN], None),
    ],
)
def test_infinite_is_worse_than_any_other_in_a_median(values: list[float], expected: float | None) -> None:
    for table in (np.array([values]), np.array([values, values])):
        found = statistic(table, median=True)
        assert (None if found is None else found.value) == expected
        if found is not None:
            assert np.isfinite([found.low, found.high]).all()
            assert found.low <= found.value <= found.high


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_midranks_are_scipys(values: list[int]) -> None:
    series = np.array(values, np.float64)
    np.testing.assert_array_equal(bootstrap.midranks(series), rankdata(series))


def test_a_mean_over_groups_is_that_of_a_measure() -> None:
    values, group = np.array([1.0, 2, 3, np.nan, 5, 6]), np.array([0, 0, 1, 1, 2, 2])
    found = bootstrap.mean_over_groups(values, group)
    groups = [np.flatnonzero(group == code) for code in range(3)]
    same = bootstrap.over_groups(lambda rows: float(np.nanmean(values[rows])), groups)
    assert found.value == same.value == pytest.approx(3.4)
    assert (found.low, found.high) == pytest.approx((same.low, same.high), abs=0.5)
    assert np.isnan(bootstrap.mean_over_groups(np.full(3, np.nan), group[:3]).value)
