"""Risk: how bad a checkpoint is, estimated without ground truth; lower is better.

``log risk = intercept + slope x score``, and the score is a sum of evidence (:data:`REGIMES`):

========== ==================================================== =======================================================
regime     score                                                where
========== ==================================================== =======================================================
views      log agreement/views + 0.5 log bones + mixed          instants seen by two or more cameras
one_camera log bones + 0.4 log symmetry + 0.5 log sliced        everywhere else
           Wasserstein + 3 mixed
========== ==================================================== =======================================================

(bones: ``rigidity/bone_ratio_variance``; mixed: ``mirror/mixed``, which is no logarithm.) Views that agree and bones
that keep their length say that a body was seen, not that it is the right way round; a network in the middle of a mirror
crossing may hold stiff bodies, half of them mirrored, and mixing then speaks against it. Every piece of evidence can
only ever say "worse" when it grows.

**A ranking first, millimetres second.** The weights are few and round; how well they choose is measured in
``benchmarks/stability``. Intercept and slope (``calibration.json``, written by ``benchmarks/stability/calibrate.py``)
turn the score into the N-MPJPE that checkpoints of such a score had in the calibration runs: ``views`` on real motion,
``one_camera`` on procedural motion, whose runs were recorded before mixing was measured and count as unmixed. On other
data, other people and other detectors the millimetres are off by a factor, and risks of different regimes do not
compare; the order of checkpoints does. The slope also keeps a change of log risk about as large as the change of log
error behind it, which is what the thresholds of :mod:`.detectors` are about.

Risks that a run recorded stay what they were when it ran.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CALIBRATION = Path(__file__).with_name("calibration.json")
FLOOR = 1e-6  # signals are clamped here before the logarithm
_MOST = 50.0  # log risk

Signals = Mapping[str, float | None]
VIEWS, MIXED = "agreement/views", "mirror/mixed"
BONES, SYMMETRY, REPROJECTIONS = "rigidity/bone_ratio_variance", "rigidity/symmetry", "distance/sliced_wasserstein"


@dataclass(frozen=True)
class Regime:
    """What is summed up where which signals exist."""

    name: str
    logarithms: Mapping[str, float]  # signal -> weight of its logarithm; without one of them the regime does not apply
    shares: Mapping[str, float]  # signal -> weight of its value; one that was not measured counts as 0

    def applies(self, signals: Signals) -> bool:
        """Whether its evidence was measured."""
        return all(name in signals for name in self.logarithms)

    def score(self, signals: Signals) -> float | None:
        """The sum of evidence; ``None`` when a piece of it is missing or not finite."""
        total = 0.0
        for name, weight in self.logarithms.items():
            value = signals.get(name)
            if value is None or not math.isfinite(value):
                return None
            total += weight * math.log(max(value, FLOOR))
        for name, weight in self.shares.items():
            value = signals.get(name, 0.0)
            if value is None or not math.isfinite(value):
                return None
            total += weight * max(value, 0.0)
        return total


REGIMES = (
    Regime("views", {VIEWS: 1.0, BONES: 0.5}, {MIXED: 1.0}),
    Regime("one_camera", {BONES: 1.0, SYMMETRY: 0.4, REPROJECTIONS: 0.5}, {MIXED: 3.0}),
)
"""The first that applies counts."""


@dataclass(frozen=True)
class Line:
    """log risk = intercept + slope x score."""

    intercept: float
    slope: float


@functools.cache
def calibration() -> dict[str, Line]:
    """The frozen line of each regime."""
    stored = json.loads(CALIBRATION.read_text())["regimes"]
    return {name: Line(line["intercept"], line["slope"]) for name, line in stored.items()}


def regime_of(signals: Signals) -> Regime | None:
    """The regime that a row of signals belongs to: a signal that is absent was not defined for the data."""
    return next((regime for regime in REGIMES if regime.applies(signals)), None)


def risk(signals: Signals) -> float | None:
    """The risk of one evaluation step, or ``None`` when it cannot be told (evidence is missing or not finite)."""
    regime = regime_of(signals)
    score = None if regime is None else regime.score(signals)
    if regime is None or score is None:
        return None
    line = calibration()[regime.name]
    return math.exp(min(line.intercept + line.slope * score, _MOST))
