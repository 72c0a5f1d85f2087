"""``status`` says what is being done until there is nothing more to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tips_dist.phases import listening, phase
from tips_dist.runfolder import layout
from tips_dist.runfolder.example import build
from tips_dist.runfolder.lock import locked
from tips_dist.runfolder.records import PhaseRecord
from tips_dist.study.status import PhaseNote, status


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build(tmp_path / "run", trials=1, steps=200)


def test_the_phases_after_training_are_named_until_the_end(run: Path) -> None:
    with locked(run), listening(PhaseNote(run)):
        with phase("distilling the student", 100) as told:
            told(40)
            assert status(run).doing == "distilling the student, 0%"  # told twice a second at most
            layout.PHASE.at(run).unlink()
            told(0, 100)
            assert status(run).doing == "distilling the student, 0%"
        assert status(run).doing == "ending"
    assert status(run).doing == "nothing; it is done"
    assert not layout.PHASE.at(run).exists()


def test_a_phase_within_another_gives_way_to_it(run: Path) -> None:
    with listening(PhaseNote(run)), phase("summarising"):
        assert status(run).doing == "summarising"
        with phase("measuring against truth", 10):
            assert status(run).doing == "measuring against truth, 0%"
        assert status(run).doing == "summarising"
    assert status(run).doing == "nothing; it is done"


def test_a_phase_that_a_dead_process_left_is_not_believed(run: Path) -> None:
    PhaseRecord(host="elsewhere", pid=1, words="distilling").save(layout.PHASE.at(run))
    assert status(run).doing == "nothing; it is done"


def test_a_run_without_a_student_says_how_to_teach_one(run: Path) -> None:
    layout.STUDENT.at(run).unlink()
    assert "tips-dist distill" in status(run).doing
