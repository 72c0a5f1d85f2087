"""What there is to train, and what may train together: trials whose configurations are one program. No torch here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.config import Configuration

if TYPE_CHECKING:
    from tips_dist.monitoring import Monitor
    from tips_dist.runfolder import Outcome
    from tips_dist.training.loop import Progress

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
    switches: dict[str, Any] = {key: bool(_at(values, key)) for key in ON_OR_OFF}
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


@dataclass(frozen=True)
class Job:
    """One trial to train; see :func:`~tips_dist.training.loop.train` for what each is."""

    configuration: Configuration
    seeds: Sequence[int]
    folder: Path
    report: Callable[[Progress], None] | None = None
    monitor: Monitor | None = None
    thaw: Sequence[int] = ()


Ended = Callable[[int, "Outcome | Exception"], None]  # is told a job's place among others, and what became of it
