"""What the signals cost of training: ``python -m benchmarks.signals`` (``OMP_NUM_THREADS=1``, on a quiet machine).

The share of an evaluation step in the time from one to the next (``evaluate_every`` 50), 8 packed seeds, batch 256, 512
validation poses of the procedural generator, labelled as 128 instants of four cameras and as stretches (the cost does
not depend on what the poses are). CPU time of steps and evaluations, taken in turns; medians are given. ``--profile``
adds the costliest operations of an evaluation.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import numpy as np
import torch

from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.study_file import parse_study
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.state import State
from tips_dist.training.validation import validation_set

STUDY = """
name: signals
representations: [{name}]
model: {{width: {width}}}
training: {{steps: 1000, batch_size: 256, evaluate_every: 50, validation_poses: 512}}
"""


def cost(name: str, width: int, turns: int, profile: bool) -> None:
    """Print one line: milliseconds of a step and of an evaluation, and the share of the latter in percent."""
    configuration = parse_study(STUDY.format(name=name, width=width), "benchmark", []).configuration(name)
    poses = labelled()
    scale = normalisation_scale(poses)
    state = State(configuration, tuple(range(8)), torch.device("cpu"))
    engine = Engine(state, sampler_for(state, normalised(poses, poses.rows("train"), scale)))
    validation = validation_set(poses, configuration, scale)
    steps: list[float] = []
    evaluations: list[float] = []
    batches = [batch for batch, _ in zip(engine.batches(), range(5), strict=False)]
    for _ in range(turns):
        for batch in batches:
            began = time.process_time()
            engine.step(batch)
            steps.append(time.process_time() - began)
        began = time.process_time()
        engine.measure(validation)
        evaluations.append(time.process_time() - began)
    step, evaluation = statistics.median(steps), statistics.median(evaluations)
    share = 100 * evaluation / (50 * step + evaluation)
    took = f"step {1e3 * step:6.1f} ms  evaluation {1e3 * evaluation:6.1f} ms  {share:4.1f} %"
    print(f"{name:12s} width {width:4d}  {took}", flush=True)
    if profile:
        engine.step(batches[0])
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            engine.measure(validation)
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=16))


def labelled() -> Poses:
    """Procedural poses with four views at every instant, and stretches of 16 frames."""
    poses, _ = generate(12_000, 0)
    place = np.arange(len(poses), dtype=np.int32)
    stretch = np.where((poses.split == 1) & (place // 64 % 4 == 0), place // 64, -1).astype(np.int32)
    return dataclasses.replace(
        poses,
        frame=place // 4,
        camera=place % 4,
        sequence=poses.split.astype(np.int32),
        subject=np.zeros_like(poses.subject),
        camera_names=("a", "b", "c", "d"),
        stretch=stretch,
    )


def main() -> None:
    """Measure the shapes that the project's reach names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for width in (64, 256):
        for name in ("solo", "torso_legs", "five_parts"):
            cost(name, width, options.turns if width < 256 else max(3, options.turns // 3), options.profile)


if __name__ == "__main__":
    main()
