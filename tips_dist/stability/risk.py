"""Risk: how bad a checkpoint is, estimated without ground truth; lower is better.

The estimate is a log-linear model of the signals: ``log risk = intercept + sum of coefficient x log signal``. Its
coefficients were fitted to N-MPJPE on *procedural* motion, where truth is known, and frozen
(``calibration.json``, written by ``benchmarks/calibrate.py``); the unit is millimetres for a person whose root-to-head
distance is that of the calibration data. On other data read it as a ranking, not as an error.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from importlib import resources

FLOOR = 1e-6  # signals are clamped here before the logarithm


@functools.cache
def calibration() -> dict[str, float]:
    """The frozen coefficients: signal name -> coefficient, and ``intercept``."""
    text = resources.files("tips_dist.stability").joinpath("calibration.json").read_text()
    coefficients: dict[str, float] = json.loads(text)["coefficients"]
    return coefficients


def features(signals: Mapping[str, float | None]) -> dict[str, float] | None:
    """The logarithms that the risk is linear in; ``None`` when a signal is missing or not finite."""
    values: dict[str, float] = {}
    for name in calibration():
        if name == "intercept":
            continue
        value = signals.get(name)
        if value is None or not math.isfinite(value):
            return None
        # A depth spread is wrong in both directions, so its distance from 1 counts.
        value = abs(math.log(max(value, FLOOR))) if name == "depth/spread_ratio" else math.log(max(value, FLOOR))
        values[name] = value
    return values


def risk(signals: Mapping[str, float | None]) -> float | None:
    """The risk of one evaluation step's signals, or ``None`` when it cannot be told (non-finite signals)."""
    logarithms = features(signals)
    if logarithms is None:
        return None
    coefficients = calibration()
    total = coefficients["intercept"] + sum(coefficients[name] * value for name, value in logarithms.items())
    return math.exp(min(total, 50.0))
