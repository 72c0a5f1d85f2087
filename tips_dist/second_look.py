"""A second look at the candidates of a finished study: their weights, on many more validation poses, without truth.

While a run trains, a checkpoint is judged on a few hundred poses, so that judging stays cheap; the best of many such
judgements is in part luck. Afterwards only the candidates are left, and each is looked at once more, on up to
:data:`MOST_POSES` validation poses with all their views: the same evidence, its noise a fraction. A few seconds for a
study of minutes.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from tips_dist.config import Configuration
from tips_dist.data.store import Poses
from tips_dist.devices import threads_for
from tips_dist.files import UserError
from tips_dist.models import load_weights
from tips_dist.runfolder.choices import SecondLook
from tips_dist.selection import SecondOpinion
from tips_dist.stability import signals
from tips_dist.stability.risk import MIXED, Regime, regime_of, risk
from tips_dist.training.validation import validation_set

MOST_POSES = 4096


class Looker:
    """Looks at candidates on one data set; what is fixed about the poses is prepared once for all of them."""

    def __init__(self, poses: Poses, scale: float) -> None:
        self.poses = poses
        self.scale = scale
        self.regime: Regime | None = None
        self._sets: dict[tuple[float, float], signals.ValidationSet] = {}

    def look(self, file: Path, configuration: Configuration) -> SecondOpinion:
        """Judge one candidate; a file that cannot be used is said, not raised."""
        try:
            lifter, _ = load_weights(file)
        except UserError as error:
            return SecondOpinion(note=f"cannot be looked at again: {error}")
        with threads_for(MOST_POSES, configuration.model.width):
            validation = self._validation(configuration)
            with torch.inference_mode():
                offsets = lifter(validation.poses[None])
            found = signals.from_depths(offsets[None], validation, lifter.representation)
        values = {name: _number(float(value)) for name, value in found.items()}
        regime, told = regime_of(values), risk(values)
        self.regime = self.regime or regime
        return SecondOpinion(
            told, values.get(MIXED), None if told is not None else "the second look found no finite risk"
        )

    def record(self) -> SecondLook:
        """What was looked at."""
        some = next(iter(self._sets.values()), None)
        instants = 0 if some is None or some.instants is None else len(some.instants)
        return SecondLook(
            poses=0 if some is None else len(some.poses),
            instants=instants,
            regime=None if self.regime is None else self.regime.name,
            plus_minus=None if self.regime is None else self.regime.plus_minus,
        )

    def _validation(self, configuration: Configuration) -> signals.ValidationSet:
        training = configuration.training
        views = training.azimuth_degrees, training.elevation_degrees
        if views not in self._sets:
            many = training.model_copy(update={"validation_poses": max(MOST_POSES, training.validation_poses)})
            whole = configuration.model_copy(update={"training": many})
            self._sets[views] = validation_set(self.poses, whole, self.scale)
        return self._sets[views]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
