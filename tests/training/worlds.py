"""A small world to train in: a handful of synthetic poses and tiny networks."""

from functools import cache

from tips_dist.config import Configuration, parse_study
from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses


@cache
def world() -> Poses:
    poses, _ = generate(1500, 0)
    return poses


def tiny(representation: str = "solo", *overrides: str) -> Configuration:
    text = """
name: tiny
representations: [solo]
model: {width: 16, discriminator_blocks: 1}
training: {steps: 40, batch_size: 16, evaluate_every: 10, checkpoint_every: 2, validation_poses: 64}
stopping: {divergence: off, plateau: off}
"""
    return parse_study(text, "test", list(overrides)).configuration(representation)
