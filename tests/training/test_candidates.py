"""Candidates: low risks, spread over the run, none from inside a mirror crossing."""

from hypothesis import given
from hypothesis import strategies as st

from tips_dist.config import Training
from tips_dist.runfolder import Candidate
from tips_dist.training.candidates import APART, CROSSING, spread_out

TRAINING = Training(steps=1000, evaluate_every=10, candidates=4)


def at(step: int, risk: float, mixed: float | None = 0.0) -> Candidate:
    return Candidate(step=step, risk=risk, part_signs=[1], sign_confidence=[1.0], mixed=mixed)


def steps(found: list[Candidate], training: Training = TRAINING) -> list[int]:
    return [one.step for one in spread_out(found, training)]


def test_of_close_candidates_the_better_stays() -> None:
    assert steps([at(500, 2.0), at(510, 1.0), at(600, 3.0), at(520, 1.5)]) == [510, 600]
    assert steps([at(500, 1.0), at(500 + 10 * APART, 2.0)]) == [500, 530]


def test_a_short_run_keeps_neighbours() -> None:
    short = Training(steps=40, evaluate_every=10, candidates=8)
    assert steps([at(step, 1.0 + step) for step in (10, 20, 30, 40)], short) == [10, 20, 30, 40]


def test_none_from_inside_a_crossing_if_others_exist() -> None:
    inside, outside = at(100, 1.0, 0.4), at(300, 2.0)
    assert steps([inside, outside]) == [300]
    assert steps([inside]) == [100]
    assert steps([at(100, 1.0, None)]) == [100]


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(1, 100), st.floats(0, 0.5)), max_size=30))
def test_the_lowest_risk_outside_crossings_is_always_kept(rows: list[tuple[int, float, float]]) -> None:
    kept: list[Candidate] = []
    found = [at(10 * step, risk, mixed) for step, risk, mixed in {row[0]: row for row in rows}.values()]
    for one in found:
        kept = spread_out([*kept, one], TRAINING)
    assert len(kept) <= TRAINING.candidates
    sound = [one for one in found if (one.mixed or 0) <= CROSSING] or found
    if found:
        assert kept[0] == min(sound, key=lambda one: (one.risk, one.step))
    assert all(abs(a.step - b.step) >= 10 * APART for a in kept for b in kept if a is not b)
