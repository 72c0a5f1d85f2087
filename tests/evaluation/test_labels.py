"""What truly became of a seed: the definitions, on errors and signs whose answers are plain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.evaluation import labels
from tips_dist.evaluation.labels import CONVERGED, DIVERGED, DRIFTING, LEARNING, UNSETTLED

NAN = float("nan")
STEPS = [10 * (index + 1) for index in range(10)]


@pytest.mark.parametrize(
    ("errors", "fate", "onset"),
    [
        ([100.0, 90, 80, 70, 60, 60, 60, 60, 60, 60], CONVERGED, None),
        ([100.0, 60, 60, 60, 60, 60, 60, 60, 62, 62], CONVERGED, None),  # 3 % above
        ([100.0, 60, 60, 60, 60, 60, 60, 60, 68, 68], DRIFTING, 90),  # 13 %
        ([100.0, 60, 60, 60, 60, 60, 60, 70, 70, 70], DIVERGED, 80),
        ([100.0, 60, 80, 60, 60, 60, 60, 60, 70, 70], DIVERGED, 90),  # the first excursion came back
        ([300.0, 280, 260, 240, 220, 200, 190, 180, 170, 160], LEARNING, None),  # bad, but on its way
        ([300.0, 250, 200, 190, 190, 190, 190, 190, 190, 190], DIVERGED, 10),  # never learnt
        ([200.0, 180, 160, 140, 120, 100, 95, 90, 85, 80], LEARNING, None),
        ([100.0, 60, 60, 60, 60, 60, 60, 60, NAN, NAN], DIVERGED, 90),
        ([NAN] * 10, DIVERGED, 10),
        ([100.0], CONVERGED, None),
    ],
)
def test_what_became_of_a_seed(errors: list[float], fate: str, onset: int | None) -> None:
    assert labels.fate(np.array(errors)) == fate
    if onset is not None:
        assert labels.onset(np.array(errors), STEPS[: len(errors)]) == onset


@pytest.mark.parametrize(
    ("mirrored", "found"),
    [
        ([0.0] * 6, []),
        ([0.5, 0.4, 0.3, 0.08, 0.02, 0.02], []),  # it settles, as every network does at first
        ([0.05, 0.2, 0.05, 0.05, 0.05, 0.05], []),  # one evaluation is none
        ([0.05, 0.2, 0.4, 0.12, 0.05, 0.05], [(1, 4)]),  # it ends at 10 %, not at 15
        ([0.05, 0.12, 0.14, 0.12, 0.05, 0.05], []),
        ([0.05, 0.2, 0.2, 0.05, 0.3, 0.4], [(1, 3), (4, 6)]),  # the last one is open
        ([0.4, 0.4, 0.4, 0.4, 0.4, 0.4], []),  # never settled on one side
    ],
)
def test_where_crossings_begin_and_end(mirrored: list[float], found: list[tuple[int, int]]) -> None:
    assert labels.crossings(np.array(mirrored)) == found
    assert labels.has_crossed(np.array(mirrored)) is bool(found)


def test_a_rise_inside_a_crossing_is_no_divergence() -> None:
    errors = np.array([100.0, 80, 60, 60, 60, 60, 60, 62, 80, 88])
    assert labels.fate(errors) == DIVERGED
    inside = np.array([0.0] * 8 + [0.3, 0.4])
    assert labels.fate(errors, inside) == UNSETTLED
    passed = np.array([100.0, 80, 60, 60, 130, 140, 130, 60, 60, 60])
    assert labels.fate(passed, np.array([0.0] * 4 + [0.3] * 3 + [0.0] * 3)) == CONVERGED
    assert labels.fate(passed, None) == CONVERGED
    ruined = np.array([100.0, 80, 60, 60, 60, 60, 60, 62, 300, 600])
    assert labels.fate(ruined, inside) == DIVERGED  # no crossing does that


def test_a_flat_start_is_not_what_a_network_that_never_settled_is_measured_by() -> None:
    errors = np.array([120.0, 135, 150, 150, 150, 150, 150, 150, 150, 150])
    assert labels.fate(errors) == DIVERGED
    assert labels.fate(errors, np.full(10, 0.45)) == UNSETTLED
    settled_late = np.array([0.45] * 8 + [0.05, 0.02])
    assert labels.fate(np.array([120.0] + [140] * 7 + [100, 95]), settled_late) == LEARNING
    assert not labels.has_crossed(None)


def test_drift_is_the_end_over_the_minimum_and_one_at_most() -> None:
    assert labels.drift_of(np.array([100.0, 50, 50, 50, 50, 50, 50, 50, 60, 60])) == pytest.approx(0.2)
    assert labels.drift_of(np.array([50.0] * 8 + [500, 500])) == 1
    assert labels.drift_of(np.array([50.0] * 8 + [NAN, NAN])) == 1


@given(
    st.lists(st.floats(30, 400) | st.just(NAN), min_size=1, max_size=40),
    st.lists(st.floats(0, 0.5), min_size=40, max_size=40),
)
def test_every_series_has_one_fate_and_an_onset_among_its_steps(errors: list[float], mirrored: list[float]) -> None:
    series, signs = np.array(errors), np.array(mirrored[: len(errors)])
    assert labels.fate(series, signs) in labels.FATES
    steps = [10 * (index + 1) for index in range(len(errors))]
    assert labels.onset(series, steps, signs) in steps
    for begin, end in labels.crossings(signs):
        assert 0 <= begin < end <= len(signs)
