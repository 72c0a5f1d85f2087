"""Shares of a machine's time, from made-up sessions and trials."""

from __future__ import annotations

import pytest

from tips_dist.config import Configuration
from tips_dist.runfolder import Outcome, Trial, TrialState
from tips_dist.runfolder.spent import BETWEEN, START, STEPS, TRAINING, WAITING, Session, Spent, Times, time_spent


def trial(identity: str, spent: Spent | None, *, whole: bool = True) -> Trial:
    return Trial(
        id=identity,
        representation="solo",
        number=0,
        parameters={},
        configuration=Configuration(representation="solo"),
        seeds=[0],
        state=TrialState.FINISHED if whole else TrialState.STOPPED,
        outcome=Outcome(seeds=[], training_seconds=1.0, parameters={}, spent=spent) if whole else None,
        stopped_spent=None if whole else spent,
    )


def session(phases: dict[str, float], machine: float = 2.0, each: float = 1.0) -> Session:
    return Session(began="now", host="here", unit="cores", machine=machine, each=each, phases=phases)


def test_parts_add_up_to_the_machine_s_time() -> None:
    times = Times(sessions=[session({START: 5.0, TRAINING: 40.0, "distilling": 8.0, BETWEEN: 1.0})])
    trials = [
        trial("a", Spent(steps=30.0, evaluation=4.0, records=1.0)),
        trial("b", Spent(steps=25.0, evaluation=3.0, records=1.0), whole=False),
        trial("c", None),
    ]
    found = time_spent(times, trials)
    assert found is not None
    assert (found.wall_seconds, found.available) == (54.0, 108.0)
    assert found.spent[STEPS] == 55.0
    assert found.spent[WAITING] == pytest.approx(80.0 - 64.0)
    assert (found.spent[START], found.spent["distilling"], found.spent[BETWEEN]) == (10.0, 16.0, 2.0)
    assert sum(found.spent.values()) == pytest.approx(found.available)
    assert found.share(STEPS) == pytest.approx(55 / 108)


def test_a_trial_on_several_cores_takes_them_all() -> None:
    found = time_spent(Times(sessions=[session({TRAINING: 10.0}, each=2.0)]), [trial("a", Spent(steps=8.0))])
    assert found is not None
    assert (found.spent[STEPS], found.spent[WAITING]) == (16.0, 4.0)


def test_sessions_add_up_each_with_its_own_machine() -> None:
    times = Times(sessions=[session({START: 1.0, TRAINING: 9.0}), session({START: 2.0, TRAINING: 3.0}, machine=4.0)])
    found = time_spent(times, [trial("a", Spent(steps=20.0))])
    assert found is not None
    assert (found.sessions, found.machine, found.wall_seconds, found.available) == (2, 4.0, 15.0, 40.0)
    assert (found.spent[START], found.spent[STEPS], found.spent[WAITING]) == (10.0, 20.0, 10.0)


@pytest.mark.parametrize("times", [None, Times()])
def test_nothing_is_said_where_no_account_was_kept(times: Times | None) -> None:
    assert time_spent(times, [trial("a", Spent(steps=1.0))]) is None
