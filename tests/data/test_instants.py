"""Instants: poses of one moment found, ordered and chosen whole."""

import dataclasses

import numpy as np

from tips_dist.data import procedural, store
from tips_dist.data.instants import choose_instants, instants

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
    twice = dataclasses.replace(
        MADE, **{name: np.concatenate([column, column]) for name, column in MADE.columns.items()}
    )
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
