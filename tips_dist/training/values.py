"""Hyperparameters of the rows of a pack: what each row may have of its own, and what all must share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tips_dist.config import Configuration
from tips_dist.training.terms import Term, chosen

WEIGHTS = ("adversarial", "cycle_2d", "cycle_3d", "consistency_90", "bone_prior", "bend", "r1")
# What rows of one program may each have a value of their own for; and of those, what must be on for all or for none,
# since it is another program where it is off (and a trial's records tell what is on).
PER_ROW = (
    *("training.generator_lr", "training.discriminator_lr", "training.final_lr_factor", "training.weight_decay"),
    *("training.beta1", "training.beta2", "training.average", "training.gradient_clip", "training.instance_noise"),
    *("training.flip_probability", "training.azimuth_degrees", "training.elevation_degrees"),
    *("losses.label_swap", "losses.real_label", "losses.bend_margin", "losses.extra"),
    *(f"losses.{name}" for name in WEIGHTS),
)
ON_OR_OFF = ("training.average", "training.gradient_clip", "training.instance_noise", *(f"losses.{n}" for n in WEIGHTS))
# What no step asks for: evaluation, judging and recording are each trial's own.
NO_STEP = (
    *("stopping", "training.checkpoint_every", "training.validation_poses", "training.candidates", "training.judge"),
    *("training.record_depths", "training.signals", "model.student_blocks"),
)


def program(configuration: Configuration) -> str:
    """What rows must have in common to train as one program: equal texts, one program."""
    values = configuration.model_dump(mode="json")
    switches = {key: bool(_at(values, key)) for key in ON_OR_OFF}
    switches["extra"] = sorted(name for name, weight in configuration.losses.extra.items() if weight)
    switches["training.average"] = averages(configuration)
    for key in (*PER_ROW, *NO_STEP):
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        del inner[last]
    return json.dumps([values, switches], sort_keys=True)


def averages(configuration: Configuration) -> bool:
    """Whether the lifter's weights are averaged: where nobody looks at the average, none is kept."""
    return configuration.training.average > 0 and configuration.training.judge != "raw"


def _at(values: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return values[section][name]


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
