"""What a study costs beside training: ``python -m benchmarks.study_overhead`` (make bench-study).

Where the time of the machine goes in the quickstart and in a study of some five minutes, as ``summary`` tells it;
seconds from ``run`` to the first training step (a process of its own, the real loop); overhead per trial, by the number
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fakes import FakeTraining, fake_conclude, fake_poses
from tips_dist.config import Study
from tips_dist.data.writer import write_poses
from tips_dist.report.formats import print_tables
from tips_dist.report.tables import time_table
from tips_dist.runfolder.spent import NAMES, STEPS, TimeSpent
from tips_dist.study.records import StudyEvent
from tips_dist.study.run import start
from tips_dist.study_file import parse_study
from tips_dist.terminal import console

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.yaml"
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

SEARCHED = [  # the quickstart with something to search, so that it may have many trials
    "space={training.generator_lr: {log_uniform: [1.0e-4, 1.0e-3]}}",
    "search.sampler=random",
]


def real(folder: Path, truth: Path, overrides: Sequence[str] = ()) -> tuple[float, TimeSpent]:
    """Run the quickstart from its command line; seconds of wall clock, and where they went by its own account."""
    command = [sys.executable, "-m", "tips_dist.cli", "run", str(QUICKSTART), "--json", "--runs", str(folder)]
    poses = truth.with_name(truth.name.replace("truth3d", "pose2d"))
    values = [f"data.poses={poses}", *overrides]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, "--truth", str(truth), *(word for value in values for word in ("--set", value))],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    found = TimeSpent.model_validate_json(json.dumps(json.loads(done.stdout)["time"]))
    return time.monotonic() - begun, found


def accounts(folder: Path, slots: int, seconds: float) -> dict[str, tuple[float, TimeSpent]]:
    """The quickstart, and as many trials of it as take ``seconds``."""
    make = [sys.executable, "-m", "tips_dist.cli", "data", "generate", "--cameras", "4", "-o", str(folder / "quick")]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    truth = folder / "quick.truth3d.h5"
    quick = real(folder / "short", truth)
    worked = sum(quick[1].spent[name] for name in NAMES.values()) / 2  # of a trial
    trials = max(1, round((seconds - quick[0]) * slots / worked / 2) + 1)  # of each of the two representations
    return {"quickstart": quick, "five minutes": real(folder / "long", truth, [f"search.trials={trials}", *SEARCHED])}


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
    parser.add_argument("--study-seconds", type=float, default=300.0, help="of the longer of the two real studies")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    slots = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"cpus": slots, "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="tips-dist-bench-") as scratch:
        folder = Path(scratch)
        for name, (seconds, found) in accounts(folder, slots, asked.study_seconds).items():
            print(f"{name}: {seconds:.1f} s, {found.share(STEPS):.0%} of the machine's time in training steps")
            print_tables(console(), time_table(found), [])
            result[name] = {"seconds": round(seconds, 1), "steps": round(found.share(STEPS), 4), "spent": found.spent}
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
