"""The fast part of ``make attack``: the collected cases, some drawn ones, some kills, one damage of every kind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.attack import arena, cases, damage, kills


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arena.preload()
    return arena.build(tmp_path_factory.mktemp("attack") / "pristine")


@pytest.mark.slow
def test_hostile_cases_are_refused_in_one_line_leave_nothing_and_take_little(pristine: Path, tmp_path: Path) -> None:
    count = arena.Count()
    for case in list(cases.all_cases(40, seed=2026))[::5]:  # every kind stays; make attack does them all
        arena.run(case, pristine, tmp_path / "arena", count)
    assert count.cases >= 15
    assert count.codes["refused"] > 8
    assert not count.wrong, count.defects


def test_the_arena_sees_defects(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(*_: object, **__: object) -> None:
        Path("others/id_rsa").write_text("mine")
        Path("finished/.left.tmp").touch()
        raise RuntimeError("\x1b[2J")

    monkeypatch.setattr("tips_dist.commands.reading.show_status", bad)
    count = arena.Count()
    arena.run(arena.Case("bad", ("status", "finished")), pristine, tmp_path / "arena", count)
    assert count.defects["traceback"]
    assert "id_rsa" in count.defects["outside"][0]
    assert ".left.tmp" in count.defects["leftover"][0]


@pytest.mark.parametrize("command", ["time.sleep(60)", "[0 for _ in iter(int, 1)]"])
def test_the_arena_ends_what_hangs(
    command: str, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "PATIENCE", 0.6)
    monkeypatch.setattr(arena, "POLL", 0.1)
    monkeypatch.setattr("tips_dist.commands.reading.show_status", lambda *_, **__: eval(command, {"time": time}))
    count = arena.Count()
    arena.run(arena.Case("hangs", ("status", "finished")), pristine, tmp_path / "arena", count)
    assert count.codes == {"killed": 1}
    assert count.defects["slow"]


@pytest.mark.slow
def test_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    outcome = kills.attack(tmp_path, 2)
    assert outcome.kills == 2
    assert not outcome.lost
    assert not outcome.left


@pytest.mark.slow
def test_a_study_goes_on_whatever_was_damaged(tmp_path: Path) -> None:
    stage = damage.Stage(tmp_path / "stage")
    files = ["optuna.journal", f"{damage.UNDER_WAY}/trial.json", f"{damage.UNDER_WAY}/history.jsonl"]
    said = [stage.attack("early", file, "garbage in the middle") for file in files]
    said.append(stage.attack("late", "student/student.safetensors", "truncated"))
    assert said == [None] * 4
