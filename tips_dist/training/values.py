"""Hyperparameters of a pack: one value for all seeds, or one per seed, so that configurations can share a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.training.terms import Term, chosen

WEIGHTS = ("adversarial", "cycle_2d", "cycle_3d", "consistency_90", "bone_prior", "bend", "r1")
PER_SEED = ("training.generator_lr", "training.discriminator_lr", *(f"losses.{name}" for name in WEIGHTS))


@dataclass(frozen=True)
class Weights:
    """What the step needs to know of the losses; weights that are 0 for every seed are left out."""

    values: Mapping[str, Tensor]  # name -> (S,)
    kind: str
    real_label: float
    bend_margin: float = 0.0

    @cached_property
    def terms(self) -> dict[str, Term]:
        """The terms that have a weight, by name."""
        return chosen(self.values)


@dataclass(frozen=True)
class Values:
    """A configuration's scalars, with one value per seed where ``own`` says so (dotted key -> one per seed)."""

    configuration: Configuration
    seeds: tuple[int, ...]
    own: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for key, values in self.own.items():
            if key not in PER_SEED and key.removeprefix("losses.extra.") not in self.configuration.losses.extra:
                raise UserError(f"per seed: '{key}' cannot differ between packed seeds; {', '.join(PER_SEED)} can")
            if len(values) != len(self.seeds):
                raise UserError(f"per seed: {key} has {len(values)} values for {len(self.seeds)} seeds")

    def of(self, key: str, active: Sequence[int]) -> list[float]:
        """The values of ``key`` for the active seeds."""
        section, _, name = key.partition(".")
        extra = self.configuration.losses.extra.get(key.removeprefix("losses.extra."))
        same = float(getattr(getattr(self.configuration, section), name)) if extra is None else extra
        by_seed = dict(zip(self.seeds, self.own.get(key, [same] * len(self.seeds)), strict=True))
        return [float(by_seed[seed]) for seed in active]

    def rates(self, active: Sequence[int], step: int) -> dict[str, list[float]]:
        """Both learning rates, decayed exponentially to ``final_lr_factor`` at the last step."""
        training = self.configuration.training
        factor = training.final_lr_factor ** (step / training.steps)
        keys = {"lifter": "training.generator_lr", "discriminator": "training.discriminator_lr"}
        return {player: [rate * factor for rate in self.of(key, active)] for player, key in keys.items()}

    def weights(self, active: Sequence[int], device: torch.device) -> Weights:
        """The losses' weights for the active seeds."""
        losses = self.configuration.losses
        found = {name: self.of(f"losses.{name}", active) for name in WEIGHTS}
        found |= {name: self.of(f"losses.extra.{name}", active) for name in losses.extra}
        tensors = {name: torch.tensor(values, device=device) for name, values in found.items() if any(values)}
        return Weights(tensors, losses.adversarial_kind, losses.real_label, losses.bend_margin)
