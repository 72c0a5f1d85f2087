"""The runs of the bank: sources of motion, recipes that do well, slow down, cross over or break, long and short."""

from __future__ import annotations

from dataclasses import dataclass

from tips_dist.config import Configuration
from tips_dist.study_file import parse_study

BASE = """
name: bank
representations: [solo, torso_legs, torso_legs_shared, five_parts, five_parts_shared, left_right]
model: {width: 64, discriminator_blocks: 2}
training: {batch_size: 64, checkpoint_every: 20, validation_poses: 384, candidates: 3, judge: both,
           generator_lr: 1.0e-3, discriminator_lr: 1.0e-3}
stopping: {divergence: "off", plateau: "off"}
"""
LENGTHS = {"long": (6000, 100), "middle": (3000, 100), "short": (800, 20)}  # steps, evaluate_every

RECIPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "bend": ("losses.bend=1.0",),
    "slow": ("training.generator_lr=2e-4", "training.discriminator_lr=2e-4"),
    "fast": ("training.generator_lr=4e-3", "training.discriminator_lr=4e-3"),
    "very_fast": ("training.generator_lr=2e-2", "training.discriminator_lr=2e-2"),
    "strong_discriminator": ("training.discriminator_lr=1e-2",),
    "weak_discriminator": ("training.discriminator_lr=4e-5",),
    "hot_discriminator": ("training.discriminator_lr=5e-2",),
    "heavy_adversary": ("losses.adversarial=20.0",),
    "no_cycles": ("losses.cycle_2d=0.0", "losses.consistency_90=0.0"),
    "unleashed": ("training.generator_lr=5e-3", "losses.cycle_2d=0.0", "losses.consistency_90=0.0"),
    "authors": ("losses.label_swap=0.1", "training.rotation=batch", "model.batch_norm=true", "model.dropout=0.1"),
    "instance_noise": ("training.instance_noise=0.1",),
    "spectral_norm": ("model.spectral_norm=true",),
    "r1": ("losses.r1=1.0",),
}
KNOBS: dict[str, tuple[str, ...]] = {  # one value of the default recipe changed; ``knobs.py`` compares
    "average_0.99": ("training.average=0.99",),
    "average_0.995": ("training.average=0.995",),
    "average_0.9995": ("training.average=0.9995",),
    "bend_0.3": ("losses.bend=0.3",),
    "bend_3": ("losses.bend=3.0",),
}
SWEPT = ("solo", "torso_legs")  # under every recipe; the others under the default one
OTHERS = ("torso_legs_shared", "five_parts", "five_parts_shared", "left_right")
SEEDS = {"procedural": 0, "people": 100, "others": 200}  # the first seed of each source


@dataclass(frozen=True)
class Run:
    """One packed run of the bank."""

    source: str
    representation: str
    recipe: str
    length: str
    width: int
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's stem."""
        return f"{self.representation}-{self.recipe}-{self.length}-{self.width}"

    @property
    def configuration(self) -> Configuration:
        """All that decides its numbers."""
        steps, every = LENGTHS[self.length]
        chosen = [f"training.steps={steps}", f"training.evaluate_every={every}", f"model.width={self.width}"]
        return parse_study(BASE, "bank", [*chosen, *(RECIPES | KNOBS)[self.recipe]]).configuration(self.representation)


def runs() -> list[Run]:
    """All runs, in the order in which they say most."""
    made = [("short", 64, 4, name, "default") for name in SWEPT]
    made += [("long", 64, 8, name, "default") for name in SWEPT]
    made += [("long", 64, 4, "solo", "bend")]
    made += [("short", 64, 4, name, recipe) for recipe in RECIPES if recipe != "default" for name in SWEPT]
    made += [("short", 64, 4, name, "default") for name in OTHERS]
    made += [("long", 64, 4, "torso_legs", "fast")]
    tried = [("middle", 64, 4, name, knob) for knob in KNOBS for name in SWEPT]
    tried += [("middle", 64, 4, "torso_legs", "bend")]
    return [*_packs(made, tuple(SEEDS)), *_packs(tried, ("others",)), *_packs([WIDE], tuple(SEEDS))]


WIDE = ("long", 128, 4, "solo", "default")


def _packs(made: list[tuple[str, int, int, str, str]], sources: tuple[str, ...]) -> list[Run]:
    return [
        Run(source, name, recipe, length, width, tuple(range(SEEDS[source], SEEDS[source] + count)))
        for length, width, count, name, recipe in made
        for source in sources
    ]
