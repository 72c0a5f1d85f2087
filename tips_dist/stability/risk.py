"""Risk: how bad a checkpoint is, estimated without ground truth, in mm, with an interval; lower is better.

``log risk = intercept + sum of weight x evidence``: evidence is the logarithm of a signal, but for ``mirror/mixed``,
which counts as it is. Weights are never negative, so a piece of evidence can only ever say "worse" when it grows. There
are two regimes, and the data decides which applies (:func:`regime_of`):

========== ============================================================================================================
views      instants seen by two or more cameras: agreement between views, rigidity, distance of reprojections, mixing
one_camera everywhere else: rigidity, distance of reprojections, mixing
========== ============================================================================================================

Views that agree and bones that keep their length say that a body was seen, not that it is the right way round; a
network in the middle of a mirror crossing may hold stiff bodies, half of them mirrored, and mixing then speaks against
it. All numbers are in ``calibration.json``, which ``benchmarks/stability/calibrate.py`` fits to true errors of the
benchmark's runs and writes with what they were fitted on; ``benchmarks/stability`` measures how well they choose, order
and tell on sources of motion that they were not fitted on.

**The interval** holds the true error of nine in ten checkpoints (:attr:`Regime.plus_minus`). It has two parts: how far
true errors scatter about the risk on one source of motion, and how far a source as a whole may lie off. The latter is
common to all checkpoints of a data set, so the *order* of checkpoints is surer than their millimetres: bodies differ in
size, detectors in noise, and no camera shows either. Risks of different regimes or data sets do not compare.

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
REGIMES = ("views", "one_camera")  # the first that applies counts
NEEDED = {"views": (VIEWS,)}  # without which a regime does not apply, whatever its weights
SHARES = (MIXED,)  # evidence that counts as it is; one that was not measured counts as 0


@dataclass(frozen=True)
class Estimate:
    """The error that a checkpoint is thought to have, in mm of N-MPJPE, and the ends of its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Regime:
    """What counts how much where which signals exist."""

    name: str
    intercept: float
    weights: Mapping[str, float]  # signal -> weight, not negative
    within: float  # of the logarithm: half the width of the 90 % interval on a source whose bodies are known,
    between: float  # and of how far a source as a whole may lie off

    @property
    def half_width(self) -> float:
        """Half the width of the 90 % interval of log error."""
        return math.hypot(self.within, self.between)

    @property
    def plus_minus(self) -> float:
        """The interval as a share of the risk: 0.2 means that the true error is at most 1.2 times the risk."""
        return math.expm1(self.half_width)

    def applies(self, signals: Signals) -> bool:
        """Whether its evidence was measured: a signal that is absent was not defined for the data."""
        needed = {*self.weights, *NEEDED.get(self.name, ())} - {*SHARES}
        return all(name in signals for name in needed)

    def log_risk(self, signals: Signals) -> float | None:
        """``None`` when a piece of evidence is missing or not finite."""
        total = self.intercept
        for name, weight in self.weights.items():
            value = signals.get(name, 0.0 if name in SHARES else None)
            if value is None or not math.isfinite(value):
                return None
            total += weight * (max(value, 0.0) if name in SHARES else math.log(max(value, FLOOR)))
        return min(total, _MOST)

    def around(self, risk: float) -> Estimate:
        """A risk of this regime with its interval."""
        factor = math.exp(self.half_width)
        return Estimate(risk, risk / factor, risk * factor)


@functools.cache
def regimes() -> tuple[Regime, ...]:
    """As calibrated; the first that applies counts."""
    stored = json.loads(CALIBRATION.read_text())["regimes"]
    return tuple(
        Regime(name, line["intercept"], line["weights"], line["within"], line["between"])
        for name, line in ((name, stored[name]) for name in REGIMES)
    )


def regime_of(signals: Signals) -> Regime | None:
    """The regime that a row of signals belongs to."""
    return next((regime for regime in regimes() if regime.applies(signals)), None)


def estimate(signals: Signals) -> Estimate | None:
    """The risk of one evaluation step with its interval, or ``None`` when it cannot be told."""
    regime, told = regime_of(signals), risk(signals)
    return None if regime is None or told is None else regime.around(told)


def risk(signals: Signals) -> float | None:
    """The risk of one evaluation step, or ``None`` when it cannot be told (evidence is missing or not finite)."""
    regime = regime_of(signals)
    log_risk = None if regime is None else regime.log_risk(signals)
    return None if log_risk is None else math.exp(log_risk)
