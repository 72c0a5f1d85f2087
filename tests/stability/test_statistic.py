from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tips_dist.stability.statistic import trial_risk

SOUND = st.tuples(st.floats(0.01, 10), st.sampled_from(["healthy", "plateaued"]))
UNSOUND = st.tuples(st.one_of(st.none(), st.floats(0.01, 10)), st.sampled_from(["diverged", "collapsed", "non_finite"]))


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([], None),
        ([(5.0, "healthy")], 5.0),
        ([(1.0, "healthy"), (2.0, "healthy")], 1.5),  # not the luckiest seed's
        ([(1.0, "healthy"), (2.0, "plateaued"), (9.0, "healthy")], 2.0),
        ([(1.0, "healthy"), (0.1, "collapsed"), (2.0, "healthy")], 2.0),  # a flat network wins nothing
        ([(1.0, "healthy"), (0.1, "diverged")], 1.0),
        ([(1.0, "healthy"), (None, "healthy"), (None, "non_finite")], None),  # most have none
        ([(math.nan, "healthy")], None),
    ],
)
def test_trial_risk(seeds: list[tuple[float | None, str]], expected: float | None) -> None:
    assert trial_risk(seeds) == expected


@given(st.lists(SOUND, min_size=1), st.lists(UNSOUND))
def test_an_unsound_seed_never_lowers_the_risk(
    sound: list[tuple[float, str]], unsound: list[tuple[float, str]]
) -> None:
    alone, together = trial_risk(sound), trial_risk([*sound, *unsound])
    assert alone is not None
    assert together is None or together >= alone or math.isclose(together, alone)
    assert (together is None) == (2 * len(sound) < len(sound) + len(unsound))
