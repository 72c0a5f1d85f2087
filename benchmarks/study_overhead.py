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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, replace_between
from tests.fakes import FakeTraining, fake_conclude, fake_poses
from tips_dist.config import Study
from tips_dist.data.writer import write_poses
from tips_dist.files import write_json
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

SAMPLERS = ("random", "tpe")
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
    quick = real(folder / "quickstart", truth)
    worked = sum(quick[1].spent[name] for name in NAMES.values()) / 2  # of a trial
    trials = max(1, round((seconds - quick[0]) * slots / worked / 2) + 1)  # of each of the two representations
    return {
        "quickstart": quick,
        "five minutes": real(folder / "five minutes", truth, [f"search.trials={trials}", *SEARCHED]),
    }


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


def table(result: dict[str, Any]) -> str:
    """What was measured beside its aims, and where the time of the two real studies went."""
    rows = ["| | measured | aim |", "|---|---|---|"]
    spent: dict[str, TimeSpent] = result["spent"]
    for name, aims in (("quickstart", ("60 s", "65 %")), ("five minutes", ("", "75 %"))):
        rows.append(f"| {name}: seconds from its command to the summary | {result[name]:.1f} | {aims[0]} |")
        rows.append(
            f"| {name}: training steps' share of the machine's time | {spent[name].share(STEPS):.1%} | {aims[1]} |"
        )
    told = ", ".join(f"{seconds:.1f}" for seconds in result["first_step"])
    rows.append(f"| seconds from `tips-dist run` to the first line of history (real loop), twice | {told} | 15 |")
    for sampler in SAMPLERS:
        told = ", ".join(f"{seconds:.2f}" for seconds in result[sampler])
        rows.append(
            f"| seconds of a slot's time per trial, {sampler} search, by quarter of the trials | {told} | 0.3 |"
        )
    words = f"two trials of {result['trial_seconds']:.0f} s per slot, from the first report on"
    rows.append(f"| share of the slots' time outside training, {words} | {result['outside']:.1%} | 2 % |")
    rows += ["", f"| core-seconds | {' | '.join(spent)} |", "|---|" + "---|" * len(spent)]
    names = {what for one in spent.values() for what in one.spent}
    for what in sorted(names, key=lambda name: -max(one.share(name) for one in spent.values())):
        cells = (f"{one.spent.get(what, 0.0):.1f} ({one.share(what):.1%})" for one in spent.values())
        rows.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="per representation, for the overhead per trial")
    parser.add_argument("--trial-seconds", type=float, default=60.0)
    parser.add_argument("--study-seconds", type=float, default=300.0, help="of the longer of the two real studies")
    asked = parser.parse_args()
    slots = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"trial_seconds": asked.trial_seconds, "spent": {}}
    with tempfile.TemporaryDirectory(prefix="tips-dist-bench-") as scratch:
        real_ones, made = Path(scratch) / "real", Path(scratch) / "made"
        for folder in (real_ones, made):
            folder.mkdir()
        for name, (seconds, found) in accounts(real_ones, slots, asked.study_seconds).items():
            print_tables(console(), time_table(found), [])
            result[name], result["spent"][name] = seconds, found
        result["first_step"] = [first_step(made / name) for name in ("cold", "warm")]
        for sampler in SAMPLERS:
            result[sampler] = per_trial(work(made / sampler, asked.trials, 20, 0.0, sampler), slots)
        clock = work(made / "long", slots, 100, asked.trial_seconds / 100)
        result["outside"] = outside(clock, slots, 2 * slots, asked.trial_seconds)
    said = f"{machine()}\n\n{table(result)}"
    print(said)
    plain = {name: found.spent for name, found in result["spent"].items()}
    write_json(Path("bench-results/study.json"), {"machine": machine(), **result, "spent": plain})
    replace_between("study", said)


if __name__ == "__main__":
    main()
