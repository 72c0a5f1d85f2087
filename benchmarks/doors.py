"""What the doors cost: ``python -m benchmarks.doors``.

Imports are timed in fresh processes, medians, with Python's own start measured beside them and taken off. A look of
``td.Watch`` is timed in turns with our own evaluation (signals, risk, verdict) of the same lifter on the same poses.
All times are of the processor, which others on the machine change little.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tips_dist import losses
from tips_dist.config import Configuration
from tips_dist.data.procedural import generate
from tips_dist.models import Discriminator
from tips_dist.registry import entry
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.watch import Watch

STATEMENTS = ("import tips_dist", "from tips_dist import RunFolder", "from tips_dist import Watch")
PROCESSES, LOOKS = 7, 15


def of_children() -> float:
    """Seconds of the processor that all processes started here have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def imports() -> None:
    """A table of what statements cost."""

    def seconds(statement: str) -> float:
        found = []
        for _ in range(PROCESSES + 1):
            before = of_children()
            subprocess.run([sys.executable, "-c", statement], check=True)
            found.append(of_children() - before)
        return statistics.median(found[1:])  # the first one fills caches

    bare = seconds("pass")
    print(f"| statement | ms beyond Python's start ({1000 * bare:.0f} ms) |\n|---|---|")
    for statement in STATEMENTS:
        print(f"| `{statement}` | {1000 * (seconds(statement) - bare):.0f} |", flush=True)


def looks() -> None:
    """A look of a watch against our own evaluation."""
    poses, _ = generate(4000, 0)
    solo, configuration = REPRESENTATIONS["solo"], Configuration()
    lifter = entry("lifters", "packed").value(solo, configuration.model.width, 1)
    critic = Discriminator(configuration.model.width, configuration.model.discriminator_blocks, 1)
    for network in (lifter.eval(), critic.eval()):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        watch = Watch(
            poses,
            lambda views: lifter(views[None] / 10)[0],
            Path(folder) / "run",
            steps=100_000,
            every=1,
            discriminate=lambda views: critic(views[None] / 10)[0],
            tensors=True,
        )
        judge, joints = Judge(100_000, Recipe()), losses.joint_weights(solo)
        ours, theirs = [], []
        for step in range(1, LOOKS + 1):
            began = time.process_time()
            measured = signals.measure(lifter, critic, watch.validation, 1.0, joints)
            judge.update(step, signals.readings(measured.signals)[0])
            between = time.process_time()
            watch.check(step)
            ours.append(between - began)
            theirs.append(time.process_time() - between)
    own, watched = (1000 * statistics.median(times[1:]) for times in (ours, theirs))
    print(f"\nA look of a watch: {watched:.1f} ms, our own evaluation: {own:.1f} ms, {watched / own:.2f} times it.")


if __name__ == "__main__":
    imports()
    looks()
