from __future__ import annotations

import numpy as np
import pytest

from tips_dist.report.statistics import cliffs_delta, difference, statistic

NAN = float("nan")


def test_one_run_has_no_interval() -> None:
    assert statistic(np.array([[3.0, NAN]])) == {"value": 3.0, "low": 3.0, "high": 3.0, "runs": 1}


def test_no_run_has_no_statistic() -> None:
    assert statistic(np.array([[NAN, NAN]])) is None
    assert statistic(np.empty((0, 0))) is None


def test_the_interval_covers_the_mean_of_normal_runs() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        found = statistic(random.normal(5.0, 1.0, size=(1, 20)))
        assert found is not None
        covered += found["low"] <= 5.0 <= found["high"]
    assert 85 <= covered <= 100


def test_runs_of_one_trial_are_not_independent() -> None:
    """Ten trials that differ, each with seeds that agree: the interval must be that of ten values, not of eighty."""
    values = np.repeat(np.arange(10.0)[:, None], 8, axis=1)
    clustered, flat = statistic(values), statistic(values.reshape(1, -1))
    assert clustered is not None
    assert flat is not None
    assert clustered["high"] - clustered["low"] > 2 * (flat["high"] - flat["low"])


def test_the_median_ignores_missing_runs() -> None:
    found = statistic(np.array([[1.0, NAN, 100.0], [2.0, NAN, NAN]]), median=True)
    assert found is not None
    assert (found["value"], found["runs"]) == (2.0, 3)


def test_difference_is_zero_for_equal_groups_and_excludes_zero_for_far_ones() -> None:
    random = np.random.default_rng(1)
    group = random.normal(size=(1, 30))
    same, far = difference(group, group), difference(group + 3, group)
    assert same is not None
    assert far is not None
    assert same["low"] < 0 < same["high"]
    assert far["value"] == pytest.approx(3.0)
    assert far["low"] > 2.0
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
