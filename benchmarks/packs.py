"""What trials gain that take their steps as one program: ``python -m benchmarks.packs`` (make bench-packs).

The same trials, each with rates of its own, are trained one after another (``train``) and together
(``train_together``), in turns in this process, with all that the loop does: steps, evaluation, verdicts, candidates,
records, checkpoints. Of each as many trials as ``resources.pack: auto`` puts into a pack on one core. Figures are
ratios of *processor* seconds on one thread, so that a busy machine changes them little; the median over the turns, and
the range. Ray is not in it: a pack is placed once where its trials would be one by one (see study_overhead.py).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.machine import machine, replace_between
from tips_dist.config import Configuration, Resources
from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses
from tips_dist.files import write_json
from tips_dist.runfolder import Outcome
from tips_dist.study.packs import rows_that_pay
from tips_dist.study_file import parse_study
from tips_dist.training.job import Job
from tips_dist.training.loop import train
from tips_dist.training.together import train_together

STUDY = """
name: packs
representations: [solo]
model: {{width: {width}}}
training: {{steps: {steps}, batch_size: {batch}, evaluate_every: 50, generator_lr: {rate}}}
"""
SHAPES = tuple(itertools.product((64, 128, 256), (64, 256), (1, 4)))  # width, batch, seeds of a trial
Way = Callable[[Sequence[Configuration], int, Poses, Path], None]
REACH = {(64, 256, 1): "1.5x"}


def configurations(width: int, batch: int, trials: int, steps: int) -> list[Configuration]:
    rates = [1e-4 * (1 + 0.1 * number) for number in range(trials)]
    texts = [STUDY.format(width=width, batch=batch, steps=steps, rate=rate) for rate in rates]
    return [parse_study(text, "packs").configuration("solo") for text in texts]


def alone(told: Sequence[Configuration], seeds: int, poses: Poses, folder: Path) -> None:
    for number, configuration in enumerate(told):
        train(configuration, range(seeds), poses, folder / str(number), threads=1)


def together(told: Sequence[Configuration], seeds: int, poses: Poses, folder: Path) -> None:
    def ended(place: int, what: Outcome | Exception) -> None:
        if isinstance(what, Exception):
            raise what

    jobs = [Job(configuration, range(seeds), folder / str(number)) for number, configuration in enumerate(told)]
    train_together(jobs, poses, ended, threads=1)


def processor_seconds(way: Way, told: Sequence[Configuration], seeds: int, poses: Poses) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        way(told, seeds, poses, Path(folder))
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two shapes, one turn; touches no README")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    poses, _ = generate(2000, 0)
    torch.set_num_threads(1)
    head = "| width | batch | seeds | trials in a pack | seed-steps/s alone | together | gain | range | reach |"
    lines, found = [head, "|---" * 9 + "|"], []
    for width, batch, seeds in ((64, 256, 1), (64, 64, 4)) if asked.quick else SHAPES:
        trials = max(1, rows_that_pay(configurations(width, batch, 1, 50)[0], Resources(gpus=0.0)) // seeds)
        some = configurations(width, batch, trials, asked.steps)
        if trials == 1:
            lines.append(f"| {width} | {batch} | {seeds} | 1 | | | 1 (not packed) | | |")
            continue
        turns = [
            [processor_seconds(way, some, seeds, poses) for way in (alone, together)]
            for _ in range(1 if asked.quick else asked.turns)
        ]
        gains = sorted(one / other for one, other in turns)
        rates = [trials * seeds * asked.steps / statistics.median(turn[way] for turn in turns) for way in (0, 1)]
        gain = statistics.median(gains)
        found.append({"width": width, "batch": batch, "seeds": seeds, "trials": trials, "rates": rates, "gains": gains})
        lines.append(
            f"| {width} | {batch} | {seeds} | {trials} | {rates[0]:.0f} | {rates[1]:.0f} | {gain:.2f}x | "
            f"{gains[0]:.2f} to {gains[-1]:.2f} | {REACH.get((width, batch, seeds), '')} |"
        )
        print(lines[-1], flush=True)
    told = machine()
    print(told)
    write_json(Path("bench-results/packs.json"), {"machine": told, "rows": found})
    if not asked.quick:
        replace_between("packs", "\n".join([told, "", *lines]))


if __name__ == "__main__":
    main()
