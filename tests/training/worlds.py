"""A small world to train in: a handful of synthetic poses and tiny networks; and the golden runs."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tips_dist.config import Configuration
from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses
from tips_dist.runfolder import Outcome
from tips_dist.study_file import parse_study
from tips_dist.training.players import Row
from tips_dist.training.state import State


@cache
def world() -> Poses:
    poses, _ = generate(1500, 0)
    return poses


def tiny(representation: str = "solo", *overrides: str) -> Configuration:
    text = """
name: tiny
representations: [solo]
model: {width: 16, discriminator_blocks: 1}
training:
  {steps: 40, batch_size: 16, evaluate_every: 10, checkpoint_every: 2, validation_poses: 64, generator_lr: 2.0e-4,
  discriminator_lr: 2.0e-4}
stopping: {divergence: off, plateau: off, policy: {crossing: 1.0}}
"""  # networks this young hold poses mirrored, which is no finding
    return parse_study(text, "test", list(overrides)).configuration(representation)


def came_to(outcome: Outcome) -> Outcome:
    """What a run came to, without what it took: the clock is another one when nothing is left to do."""
    return outcome.model_copy(update={"spent": None})


def of_their_own(state: State, configurations: Sequence[Configuration]) -> None:
    """Let each seed's row have a configuration of its own, as the rows of several trials have."""
    tensors, _ = state.dump()
    state.build([Row(row.seed, own) for row, own in zip(state.rows, configurations, strict=True)])
    state.set_tensors(tensors)


# Golden runs: name of the file in tests/golden -> what ``tiny`` makes their configuration from.
GOLDEN: dict[str, tuple[str, ...]] = {
    "solo": ("solo", "training.average=0"),
    "torso_legs": ("torso_legs", "training.average=0"),
    "averaged": ("torso_legs", "training.average=0.9", "losses.bend=1", "losses.bend_margin=0.05"),
    "stabilised": (
        "solo",
        "training.average=0.9",
        "training.random=streams",
        "training.instance_noise=0.2",
        "model.spectral_norm=true",
        "losses.r1=2",
        "training.gradient_clip=0.5",
    ),
    "counted": ("left_right", "model.dropout=0.2", "training.instance_noise=0.2", "model.width=64"),
}


def golden(name: str, *overrides: str) -> tuple[Configuration, list[dict[str, Any]]]:
    """A golden run's configuration and its history rows, as ``python -m tests.golden.regenerate`` wrote them."""
    rows = json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text())
    return tiny(*GOLDEN[name], *overrides), rows
