"""Hyperparameters of the rows of a pack: each row has its own, as far as module ``job`` lets them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tips_dist.config import Configuration
from tips_dist.training.job import WEIGHTS
from tips_dist.training.terms import Term, chosen


class Moments(NamedTuple):
    """What Adam does to a row in one step."""

    rate: float
    beta1: float
    beta2: float
    decay: float  # of weights


@dataclass(frozen=True)
class Weights:
    """What the step needs to know of the losses; weights that are 0 for every row are left out."""

    values: Mapping[str, Tensor]  # name -> (S,)
    kind: str
    real_label: Tensor  # (S,)
    bend_margin: Tensor  # (S,)

    @cached_property
    def terms(self) -> dict[str, Term]:
        """The terms that have a weight, by name."""
        return chosen(self.values)


@dataclass(frozen=True)
class Values:
    """The scalars of the rows of a pack, one each, from each row's configuration."""

    rows: tuple[Configuration, ...]

    def of(self, key: str) -> list[float]:
        """One value per row, by its dotted key."""
        section, _, name = key.partition(".")
        return [float(getattr(getattr(row, section), name)) for row in self.rows]

    def on(self, device: torch.device, key: str) -> Tensor:
        """The same, (S,), on a device."""
        return torch.tensor(self.of(key), device=device)

    def moments(self, step: int) -> dict[str, list[Moments]]:
        """Both players' step: learning rates, decayed exponentially to ``final_lr_factor`` at the last one."""
        found: dict[str, list[Moments]] = {"lifter": [], "discriminator": []}
        for row in self.rows:
            own = row.training
            factor = own.final_lr_factor ** (step / own.steps)
            for player, rate in (("lifter", own.generator_lr), ("discriminator", own.discriminator_lr)):
                found[player].append(Moments(rate * factor, own.beta1, own.beta2, own.weight_decay))
        return found

    def weights(self, device: torch.device) -> Weights:
        """The losses' weights."""
        found = {name: self.of(f"losses.{name}") for name in WEIGHTS}
        for name in dict.fromkeys(name for row in self.rows for name in row.losses.extra):
            found[name] = [row.losses.extra.get(name, 0.0) for row in self.rows]
        tensors = {name: torch.tensor(values, device=device) for name, values in found.items() if any(values)}
        label, margin = self.on(device, "losses.real_label"), self.on(device, "losses.bend_margin")
        return Weights(tensors, self.rows[0].losses.adversarial_kind, label, margin)
