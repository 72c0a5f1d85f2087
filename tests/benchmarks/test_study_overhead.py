"""What a study costs: every measurement has a folder of its own, and the table tells it beside its aims."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import study_overhead as bench
from tips_dist.runfolder.spent import NAMES, STEPS, TimeSpent


def spent(steps: float, more: dict[str, float]) -> TimeSpent:
    told = {**dict.fromkeys(NAMES.values(), 1.0), STEPS: steps, **more}
    return TimeSpent(sessions=1, unit="cores", machine=2, wall_seconds=50, available=100, spent=told)


def test_a_whole_benchmark_of_studies_that_only_make_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def real(folder: Path, truth: Path, overrides: Sequence[str] = ()) -> tuple[float, TimeSpent]:
        folder.mkdir()
        return (200.0, spent(70.0, {"drawing": 2.0})) if overrides else (80.0, spent(55.0, {}))

    def first_step(folder: Path) -> float:
        folder.mkdir()
        return 9.0

    def work(folder: Path, trials: int, steps: int, step_seconds: float, sampler: str = "random") -> bench.Clock:
        folder.mkdir(parents=True)
        clock = bench.Clock()
        clock.first, clock.ends = 0.0, [0.1 * number for number in range(2 * trials + 2)]
        return clock

    written: dict[str, str] = {}
    for name, fake in {"real": real, "first_step": first_step, "work": work}.items():
        monkeypatch.setattr(bench, name, fake)
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: None)
    monkeypatch.setattr(bench, "replace_between", written.__setitem__)
    monkeypatch.setattr(sys, "argv", ["study_overhead", "--trials", "40"])
    monkeypatch.chdir(tmp_path)
    bench.main()
    told = written["study"]
    assert "| quickstart: training steps' share of the machine's time | 55.0% | 65 % |" in told
    assert "| five minutes: seconds from its command to the summary | 200.0 |  |" in told
    assert "| drawing | 0.0 (0.0%) | 2.0 (2.0%) |" in told
    assert (tmp_path / "bench-results" / "study.json").exists()
