"""The runs of the bank: all representations under the default recipe, and recipes that do well or break."""

from __future__ import annotations

from dataclasses import dataclass

from tips_dist.config import Configuration, parse_study
from tips_dist.skeleton import REPRESENTATIONS

BASE = """
name: bank
representations: [solo]
model: {width: 64, discriminator_blocks: 2}
training: {steps: 2000, batch_size: 128, evaluate_every: 40, validation_poses: 512,
           generator_lr: 5.0e-4, discriminator_lr: 5.0e-4}
stopping: {divergence: off, plateau: off}
"""

RECIPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "slow": ("training.generator_lr=1e-4", "training.discriminator_lr=1e-4"),
    "fast": ("training.generator_lr=3e-3", "training.discriminator_lr=3e-3"),
    "strong_discriminator": ("training.discriminator_lr=5e-3",),
    "weak_discriminator": ("training.discriminator_lr=2e-5",),
    "heavy_adversary": ("losses.adversarial=20.0",),
    "no_cycles": ("losses.cycle_2d=0.0", "losses.consistency_90=0.0"),
    "very_fast": ("training.generator_lr=2e-2", "training.discriminator_lr=2e-2"),
    "hot_discriminator": ("training.discriminator_lr=5e-2",),
    "unleashed": ("training.generator_lr=5e-3", "losses.cycle_2d=0.0", "losses.consistency_90=0.0"),
    "authors": ("losses.label_swap=0.1", "training.rotation=batch", "model.batch_norm=true", "model.dropout=0.1"),
}
SWEPT = ("solo", "torso_legs")  # under every recipe; the others under the default one
SEEDS = {"procedural": (0, 1, 2, 3), "cmu": (100, 101, 102, 103)}


@dataclass(frozen=True)
class Run:
    """One packed run of the bank."""

    representation: str
    recipe: str
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's stem."""
        return f"{self.representation}-{self.recipe}"


def runs(motion: str) -> list[Run]:
    """All runs of one set, the most telling first."""
    seeds = SEEDS[motion]
    swept = [Run(representation, recipe, seeds) for recipe in RECIPES for representation in SWEPT]
    others = [Run(name, "default", seeds) for name in REPRESENTATIONS if name not in SWEPT]
    return swept[:2] + others + swept[2:]


def configuration(run: Run) -> Configuration:
    """The full configuration of a run."""
    return parse_study(BASE, "bank", list(RECIPES[run.recipe])).configuration(run.representation)
