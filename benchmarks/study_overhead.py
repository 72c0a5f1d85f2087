"""What a study costs beside training: ``python -m benchmarks.study_overhead`` (make bench-study).

Seconds from ``run`` to the first training step (a process of its own, the real loop); overhead per trial, by the number
of trials finished before (a fake loop that trains nothing); share of wall time outside training for trials that last
``--trial-seconds``; the search's own time per trial.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fakes import FakeTraining, fake_conclude, fake_poses
from tips_dist.config import Study
from tips_dist.data.writer import write_poses
from tips_dist.study.records import StudyEvent
from tips_dist.study.run import start
from tips_dist.study_file import parse_study

STUDY = """
name: overhead
data: {{poses: fake.pose2d.h5}}
representations: [solo, torso_legs]
seeds: 2
training: {{steps: {steps}, evaluate_every: {every}}}
search: {{trials: {trials}, sampler: {sampler}}}
space: {{training.generator_lr: {{log_uniform: [1.0e-5, 1.0e-2]}}, losses.cycle_2d: {{uniform: [0.0, 10.0]}}}}
"""
REAL = """
name: first-step
data: {procedural: {poses: 2000}}
representations: [solo]
seeds: 4
model: {width: 64}
training: {steps: 20, evaluate_every: 1, batch_size: 64}
"""


def first_step(folder: Path) -> float:
    """Seconds from starting ``tips-dist run`` to the first line of history (one step and one evaluation)."""
    folder.mkdir()
    path = folder / "first.yaml"
    path.write_text(REAL)
    begun = time.monotonic()
    command = [sys.executable, "-m", "tips_dist.cli", "run", str(path), "--runs", str(folder / "first")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not any(p.stat().st_size for p in folder.glob("first/*/trials/*/history.jsonl")):
            if process.poll() is not None:
                raise RuntimeError("the run ended before its first step")
            time.sleep(0.02)
        seconds = time.monotonic() - begun
        process.wait()
    return seconds


class Clock:
    """Hears a study's events and notes when each trial was known to have finished."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.ends: list[float] = []

    def __call__(self, event: StudyEvent) -> None:
        now = time.monotonic()
        if event.step and self.first is None:
            self.first = now
        if event.state == "finished":
            self.ends.append(now)


def work(folder: Path, trials: int, steps: int, step_seconds: float, sampler: str = "random") -> Clock:
    """Run a study of trials that train nothing but last ``steps * step_seconds``."""
    folder.mkdir(parents=True)
    text = STUDY.format(trials=trials, steps=steps, every=max(1, steps // 5), sampler=sampler)
    write_poses(folder / "fake.pose2d.h5", fake_poses())
    study: Study = parse_study(text, "overhead.yaml")
    clock = Clock()
    start(
        study,
        study_path=folder / "study.yaml",
        text=text,
        runs=folder / "runs",
        progress=clock,
        train=FakeTraining(step_seconds=step_seconds),
        conclude=fake_conclude,
    )
    return clock


def per_trial(clock: Clock, slots: int) -> list[float]:
    """Seconds of a slot's time per trial, in quarters of the study."""
    ends = clock.ends[slots:]
    quarter = max(1, len(ends) // 4)
    return [
        (ends[min(begin + quarter, len(ends)) - 1] - ends[begin]) * slots / (quarter - 1)
        for begin in range(0, 4 * quarter, quarter)
        if len(ends) >= begin + quarter and quarter > 1
    ]


def outside(clock: Clock, slots: int, trials: int, seconds: float) -> float:
    """Share of the slots' time, from the first report on, that was not training."""
    assert clock.first is not None
    total = (clock.ends[-1] - clock.first) * slots
    trained = trials * seconds - slots * seconds / 5  # the first report comes after a fifth of a trial
    return 1.0 - trained / total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100, help="per representation, for the overhead per trial")
    parser.add_argument("--trial-seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    slots = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"cpus": slots, "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="tips-dist-bench-") as scratch:
        folder = Path(scratch)
        result["first_step_seconds"] = [round(first_step(folder / name), 2) for name in ("cold", "warm")]
        for sampler in ("random", "tpe"):
            clock = work(folder / sampler, asked.trials, 20, 0.0, sampler)
            result[f"seconds_per_trial_{sampler}"] = [round(value, 4) for value in per_trial(clock, slots)]
        trials = 2 * slots
        clock = work(folder / "long", trials // 2, 100, asked.trial_seconds / 100)
        result["share_outside_training"] = round(outside(clock, slots, trials, asked.trial_seconds), 4)
    result["load_after"] = os.getloadavg()[0]
    quarters = statistics.fmean(result["seconds_per_trial_random"])
    print(f"first step after {result['first_step_seconds'][-1]} s; {quarters:.3f} s of overhead per trial (random)")
    print(json.dumps(result, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
