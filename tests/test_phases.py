from __future__ import annotations

from tips_dist.phases import Phase, listening, phase


def test_listeners_hear_of_every_phase_and_its_end() -> None:
    heard: list[Phase] = []
    with listening(heard.append), phase("evaluating", 4) as told:
        told(1)
        told.note("nothing to do")
    assert [(one.done, one.ended) for one in heard] == [(0, False), (1, False), (1, True)]
    assert [one.words() for one in heard] == ["evaluating, 0%", "evaluating, 25%", "evaluating: nothing to do"]
    with phase("unheard"):
        pass
    assert len(heard) == 3


def test_a_phase_that_fails_ends() -> None:
    heard: list[Phase] = []
    try:
        with listening(heard.append), phase("selecting"):
            raise ValueError
    except ValueError:
        pass
    assert heard[-1].ended
