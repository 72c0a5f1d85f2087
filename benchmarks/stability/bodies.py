"""Long unstopped runs on real bodies: averaged and raw weights, with and without the anatomical prior.

    python -m benchmarks.stability.bodies train            # hours; interrupted, call it again
    python -m benchmarks.stability.bodies train --part 0/2 # every second run, to share the work between two processes

The motion is ``cmu_subjects_17.h5`` (14 people, nobody in two splits) seen by four virtual cameras. Each run trains
with the product's own loop and records the depths of both the averaged and the raw lifters at every evaluation step, so
that every signal of depths and every true error can be computed afterwards, by ``benchmarks.stability.evidence``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from tips_dist.config import Configuration
from tips_dist.data.store import Poses, read_poses
from tips_dist.study_file import parse_study
from tips_dist.training.loop import train

WORK = Path("runs/bodies")
BASE = """
name: bodies
representations: [solo, torso_legs]
model: {width: 128}
training: {steps: 16000, batch_size: 128, evaluate_every: 200, checkpoint_every: 4, validation_poses: 1024,
           generator_lr: 1.0e-3, discriminator_lr: 1.0e-3, judge: both, candidates: 20}
stopping: {divergence: "off", plateau: "off"}
"""
SEEDS = tuple(range(16))


@dataclass(frozen=True)
class Run:
    """One packed run: a representation with or without the anatomical prior."""

    representation: str
    bend: float
    seeds: tuple[int, ...]
    batch: int = 128

    @property
    def name(self) -> str:
        """Its folder."""
        prior = "bend" if self.bend else "plain"
        return f"{self.representation}-{prior}-{self.batch}"

    def configuration(self) -> Configuration:
        """Everything else that decides its numbers."""
        changes = [f"losses.bend={self.bend}", f"training.batch_size={self.batch}"]
        return parse_study(BASE, "bodies", changes).configuration(self.representation)


def runs() -> list[Run]:
    """All runs: sixteen seeds with the prior at a batch of 64, and eight seeds with and without it at 128."""
    both = ("solo", "torso_legs")
    long = [Run(name, 1.0, SEEDS, batch=64) for name in both]
    return [*long, *(Run(name, bend, SEEDS[:8]) for bend in (1.0, 0.0) for name in both)]


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=["train"])
    parser.add_argument("--poses", type=Path, default=Path("data/cmu.pose2d.h5"))
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to share the work")
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    poses = read_poses(arguments.poses)
    part, parts = (int(number) for number in arguments.part.split("/"))
    for run in runs()[part::parts]:
        finish(run, poses, arguments.work / run.name)


def finish(run: Run, poses: Poses, folder: Path) -> None:
    """Train one run to its end, going on from its last checkpoint; a finished one is not touched."""
    if (folder / "done").exists():
        return
    began = time.time()
    outcome = train(run.configuration(), run.seeds, poses, folder, threads=1)
    (folder / "done").write_text(str(outcome.judged_on))
    print(f"{run.name}: {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
