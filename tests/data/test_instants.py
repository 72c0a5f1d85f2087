"""Instants: poses of one moment found, ordered and chosen whole."""

import dataclasses
from typing import Any

import numpy as np

from tests.data.importers import layouts
from tips_dist.data import procedural, store
from tips_dist.data.instants import choose_instants, instants, out_of_time

MADE, _ = procedural.generate(400, seed=3)


def test_rows_of_one_moment_belong_together() -> None:
    rows = np.arange(len(MADE))
    groups = instants(MADE, np.random.default_rng(0).permutation(rows))
    assert sum(map(len, groups)) > 300
    for group in groups:
        assert len(set(MADE.camera[group])) == len(group) == 2
        for column in (MADE.subject, MADE.sequence, MADE.frame):
            assert len(set(column[group])) == 1
    order = [(MADE.subject[g[0]], MADE.sequence[g[0]], MADE.frame[g[0]]) for g in groups]
    assert order == sorted(order)


def test_a_single_view_is_no_instant() -> None:
    assert instants(MADE, np.flatnonzero(MADE.camera == 0)) == []
    assert instants(MADE, np.zeros(0, np.int64)) == []


def test_a_camera_counts_once_in_an_instant() -> None:
    columns: dict[str, Any] = {name: np.concatenate([column, column]) for name, column in MADE.columns.items()}
    twice = dataclasses.replace(MADE, **columns)
    assert [g.tolist() for g in instants(twice, np.arange(800))] == [g.tolist() for g in instants(MADE, np.arange(400))]


def test_chosen_instants_are_whole_and_spread() -> None:
    rows = MADE.rows("train")
    everything = instants(MADE, rows)
    chosen = choose_instants(MADE, rows, 10)
    assert len(chosen) == 10
    places = [next(k for k, g in enumerate(everything) if g[0] == c[0]) for c in chosen]
    assert places[0] == 0
    assert places[-1] == len(everything) - 1
    assert np.ptp(np.diff(places)) <= 1
    assert len(choose_instants(MADE, rows, 10**6)) == len(everything)
    assert store.SPLITS[0] == "train"


def _views(first: int = 0, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three recordings after each other, seen by synchronous cameras."""
    poses = np.concatenate([layouts.seen(first + number, count)[0] for number in range(3)], axis=1)
    return [(np.arange(poses.shape[1]), view) for view in poses]


def test_synchronous_views_are_not_doubted() -> None:
    for number in range(13):
        views = _views(number)
        noise = np.random.default_rng(number).normal(0, 4, (4, *views[0][1].shape))
        assert out_of_time([(frames, view + noise[k]) for k, (frames, view) in enumerate(views)]) == [False] * 4


def test_a_view_of_something_else_is_found() -> None:
    views = _views()
    views[2] = _views(5)[2]
    assert out_of_time(views) == [False, False, True, False]
    assert out_of_time([views[0], (views[2][0], views[2][1][::-1])]) == [True, True]


def test_a_view_that_runs_backwards_is_found() -> None:
    views = _views()
    views[3] = (views[3][0], views[3][1][::-1])
    assert out_of_time(views) == [False, False, False, True]


def test_nothing_is_said_of_still_or_short_or_separate_views() -> None:
    still = np.repeat(_views()[0][1][:1], 50, axis=0)
    other = np.repeat(_views(5)[0][1][:1], 50, axis=0)
    assert out_of_time([(np.arange(50), still), (np.arange(50), other)]) == [False, False]
    views = [(frames[:8], poses[:8]) for frames, poses in _views()]
    views[1] = (views[1][0], _views(5)[1][1][:8])
    assert out_of_time(views) == [False] * 4
    assert out_of_time([(frames + 100 * k, poses) for k, (frames, poses) in enumerate(_views())]) == [False] * 4
    assert out_of_time([]) == []
