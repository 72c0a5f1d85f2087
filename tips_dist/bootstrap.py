"""Intervals and effect sizes: percentile bootstrap, so that nothing is assumed about how values are distributed.

What is drawn decides what the interval means, so it is always the independent unit: trials and then their seeds
(:func:`statistic`, :func:`difference`), seeds within the trials of a design (:func:`difference_of_designs`), whole
clusters such as sequences (:func:`cluster_interval`) or runs (:func:`over_groups`). All streams are seeded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
MOST_DRAWN = 2**22  # numbers of a bootstrap held at a time: 10,000 trials of 8 seeds would take gigabytes
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Statistic:
    """A value with its 95 % bootstrap interval and the number of runs behind it."""

    value: float
    low: float
    high: float
    runs: int

    def scaled(self, factor: float) -> Statistic:
        """The same in another unit; ``factor`` is positive."""
        return replace(self, value=factor * self.value, low=factor * self.low, high=factor * self.high)


def statistic(values: NDArray[np.float64], *, median: bool = False) -> Statistic | None:
    """Mean (or :func:`middle`) of ``values`` (trials, seeds), NaN where there is none, with its interval.

    Two-stage bootstrap with a fixed seed: trials are drawn, then seeds within each trial, so that runs of one
    configuration do not count as independent of each other. None where no run has a value, or where the middle one is
    infinite; resamples of that kind are left out. The interval is the value itself where only one run has one.
    """
    values = values[_known(values, median).any(axis=1)]
    count = int(_known(values, median).sum())
    if count == 0:
        return None
    if len(values) == 1:
        return _rows(values, median)[0]
    reduce = middle if median else np.nanmean
    value = float(reduce(values.ravel()))
    if not np.isfinite(value):
        return None
    low = high = value
    if count > 1:
        low, high = _quantiles(_resampled(values, reduce))
    return Statistic(value, low, high, count)


def middle(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The median, where NaN is no value and infinity one that is worse than all others.

    Of two middle values of which one is infinite the other is taken, so that half of the values being finite suffices.
    """
    if not np.isnan(values).any():
        places = ((values.shape[axis] - 1) // 2, values.shape[axis] // 2)
        ordered = np.partition(values, places, axis=axis)  # a tenth of the time of sorting
        low, high = (np.take(ordered, place, axis=axis) for place in places)
    else:
        ordered = np.moveaxis(np.sort(values, axis=axis), axis, -1)  # NaN last
        count = (~np.isnan(ordered)).sum(axis=-1)
        places = (np.maximum((count - 1) // 2, 0), np.where(count % 2 == 1, (count - 1) // 2, count // 2))
        low, high = (np.take_along_axis(ordered, place[..., None], axis=-1)[..., 0] for place in places)
    return np.asarray(np.where(np.isposinf(high), low, (low + high) / 2))


def _known(values: NDArray[np.float64], median: bool) -> NDArray[np.bool_]:
    return ~np.isnan(values) if median else np.isfinite(values)


def statistics(groups: Sequence[NDArray[np.float64]], *, median: bool = False) -> list[Statistic | None]:
    """:func:`statistic` of many groups (trials, seeds); groups of one trial are resampled together, which is quick."""
    single = [index for index, group in enumerate(groups) if len(group) == 1]
    seeds = max((groups[index].shape[1] for index in single), default=0)
    table = np.full((len(single), seeds), np.nan)
    for row, index in enumerate(single):
        table[row, : groups[index].shape[1]] = groups[index][0]
    known = dict(zip(single, _rows(table, median), strict=True))
    return [known[index] if index in known else statistic(group, median=median) for index, group in enumerate(groups)]


def _rows(table: NDArray[np.float64], median: bool) -> list[Statistic | None]:
    """The statistic of each row (one trial's seeds, packed to the left, NaN where missing)."""
    found: list[Statistic | None] = [None] * len(table)
    known = _known(table, median)
    counts = known.sum(axis=1)
    for count in np.unique(counts[counts > 0]).tolist():
        rows = np.flatnonzero(counts == count)
        values = table[rows]
        values = values[known[rows]].reshape(len(rows), count)
        value = middle(values) if median else values.mean(axis=1)
        rows, values, value = rows[np.isfinite(value)], values[np.isfinite(value)], value[np.isfinite(value)]
        low = high = value
        if count > 1:
            drawn = _indices(1, count)[1][:, 0]  # (RESAMPLES, count)
            if median:
                samples = np.concatenate([middle(part[:, drawn]) for part in np.array_split(values, 8)])
                samples[np.isinf(samples)] = np.nan  # such resamples are left out
            else:
                weights = (drawn[..., None] == np.arange(count)).sum(axis=1) / count
                samples = values @ weights.T
            quantile = np.nanquantile if np.isnan(samples).any() else np.quantile  # the latter is much quicker
            low, high = quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
        for row, *numbers in zip(rows.tolist(), value.tolist(), low.tolist(), high.tolist(), strict=True):
            found[row] = Statistic(numbers[0], numbers[1], numbers[2], count)
    return found


def difference(first: NDArray[np.float64], second: NDArray[np.float64], *, median: bool = False) -> Statistic | None:
    """Mean (or :func:`middle`) of ``first`` minus that of ``second``, independent groups of runs, with its interval.

    None where one of them has no finite one.
    """
    reduce = middle if median else np.nanmean
    samples, values = [], []
    for offset, group in enumerate((first, second)):
        group = group[_known(group, median).any(axis=1)]
        value = float(reduce(group.ravel())) if len(group) else np.nan
        if not np.isfinite(value):
            return None
        values.append(value)
        drawn = _resampled(group, reduce, seed=offset)
        samples.append(np.where(np.isinf(drawn), np.nan, drawn))
    low, high = _quantiles(samples[0] - samples[1])
    runs = int(_known(first, median).sum() + _known(second, median).sum())
    return Statistic(values[0] - values[1], low, high, runs)


def difference_of_designs(first: NDArray[np.float64], second: NDArray[np.float64]) -> Statistic | None:
    """As :func:`difference`, but trials are those of a design, not drawn: only seeds within each trial are."""
    groups = (first, second)
    if not all(np.isfinite(group).any() for group in groups):
        return None
    random, samples = np.random.default_rng(0), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any value is left out of the quantiles
        for group in groups:
            drawn = random.integers(group.shape[1], size=(RESAMPLES, *group.shape))
            samples.append(np.nanmean(np.take_along_axis(group[None], drawn, axis=2), axis=(1, 2)))
    low, high = _quantiles(samples[0] - samples[1])
    value = float(np.nanmean(first) - np.nanmean(second))
    return Statistic(value, low, high, sum(int(np.isfinite(group).sum()) for group in groups))


def cluster_interval(
    values: NDArray[np.float64], clusters: NDArray[np.integer[Any]], *, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of the mean of ``values`` (N,) when whole clusters, coded (N,), are drawn anew.

    Values of a cluster (poses of a sequence) are alike, so drawing single ones would make the interval far too narrow.
    None with fewer than two clusters.
    """
    kinds, codes = np.unique(clusters, return_inverse=True)
    if len(kinds) < 2:
        return None
    counts = np.bincount(codes).astype(np.float64)
    sums = np.bincount(codes, weights=values)
    draws = np.random.default_rng(seed).multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), RESAMPLES)
    low, high = np.quantile((draws @ sums) / (draws @ counts), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)  # NaN if one value is: it must not drop out of the mean unseen


def over_groups(measure: Callable[[NDArray[np.intp]], float], groups: Sequence[NDArray[np.intp]]) -> Statistic:
    """Any ``measure`` of rows, with its interval when whole groups of rows are drawn anew."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = random.integers(len(groups), size=len(groups))
        drawn.append(measure(np.concatenate([groups[index] for index in chosen])))
    everything = np.sort(np.concatenate(groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a measure that no resample has is NaN, and so are its ends
        low, high = _quantiles(np.array(drawn))
    return Statistic(measure(everything), low, high, len(everything))


def mean_over_groups(values: NDArray[np.float64], group: NDArray[np.intp]) -> Statistic:
    """Mean of ``values`` (N,), with its interval when whole groups, coded (N,), are drawn anew; NaN is no value.

    As :func:`over_groups` with a mean, all draws at once.
    """
    known = np.isfinite(values)
    if not known.any():
        return Statistic(float("nan"), float("nan"), float("nan"), 0)
    weights = group_weights(group[known])
    low, high = _quantiles((weights @ values[known]) / weights.sum(1))
    return Statistic(float(values[known].mean()), low, high, int(known.sum()))


def group_weights(group: NDArray[np.intp]) -> NDArray[np.float64]:
    """How often each value (N,) counts in each resample (RESAMPLES, N) when whole groups are drawn anew."""
    kinds, codes = np.unique(group, return_inverse=True)
    counts = np.random.default_rng(0).multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), RESAMPLES)
    return np.asarray(counts[:, codes], np.float64)


def midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks (N,) from 1, ties by their mean; as ``scipy.stats.rankdata``, which costs more than a resample of it."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def cliffs_delta(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """P(first > second) - P(first < second) over all pairs of runs: -1 to 1, 0 where neither is larger."""
    first, second = first[~np.isnan(first)], np.sort(second[~np.isnan(second)])
    if not len(first) or not len(second):
        return None
    below = np.searchsorted(second, first, side="left")
    above = len(second) - np.searchsorted(second, first, side="right")
    return float((below - above).sum() / (len(first) * len(second)))


def _resampled(
    values: NDArray[np.float64], reduce: Callable[..., NDArray[np.float64]], seed: int = 0
) -> NDArray[np.float64]:
    """One number per resample; NaN where a resample drew only runs without a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # such a resample is left out of the quantiles
        return np.concatenate(
            [
                reduce(values[drawn].reshape(len(drawn[0]), -1), axis=1)
                for drawn in _drawn(len(values), values.shape[1], seed)
            ]
        )


def _quantiles(samples: NDArray[np.float64]) -> tuple[float, float]:
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.nanquantile(np.where(np.isinf(samples), np.nan, samples), ends)
    return float(low), float(high)


_Draws = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows (R, trials, 1) and columns (R, trials, seeds) of R resamples


def _drawn(trials: int, seeds: int, seed: int = 0) -> Iterator[_Draws]:
    """The resamples of a table: all at once, or a part at a time where they are large; the same numbers either way."""
    if RESAMPLES * trials * seeds <= MOST_DRAWN:
        yield _indices(trials, seeds, seed)
        return
    random, step = np.random.default_rng([seed, trials, seeds]), max(1, MOST_DRAWN // (trials * seeds))
    rows = random.integers(trials, size=(RESAMPLES, trials, 1))
    for begin in range(0, RESAMPLES, step):
        part = rows[begin : begin + step]
        yield part, random.integers(seeds, size=(len(part), trials, seeds))


@lru_cache(maxsize=16)
def _indices(trials: int, seeds: int, seed: int = 0) -> _Draws:
    random = np.random.default_rng([seed, trials, seeds])
    rows = random.integers(trials, size=(RESAMPLES, trials, 1))
    return rows, random.integers(seeds, size=(RESAMPLES, trials, seeds))
