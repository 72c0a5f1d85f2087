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
from collections.abc import Iterable, Mapping
from pathlib import Path

CALIBRATION = Path(__file__).with_name("calibration.json")
FLOOR = 1e-6  # signals are clamped here before the logarithm

Signals = Mapping[str, float | None]


@functools.cache
def calibration() -> dict[str, float]:
    """The frozen coefficients: signal name -> coefficient, and ``intercept``."""
    coefficients: dict[str, float] = json.loads(CALIBRATION.read_text())["coefficients"]
    return coefficients


def logarithms(signals: Signals, names: Iterable[str]) -> dict[str, float] | None:
    """What the risk is linear in; ``None`` when one of the signals is missing or not finite."""
    values: dict[str, float] = {}
    for name in names:
        value = signals.get(name)
        if value is None or not math.isfinite(value):
            return None
        logarithm = math.log(max(value, FLOOR))
        # A depth spread is wrong in both directions, so its distance from 1 counts.
        values[name] = abs(logarithm) if name == "depth/spread_ratio" else logarithm
    return values


def risk(signals: Signals, coefficients: Mapping[str, float] | None = None) -> float | None:
    """The risk of one evaluation step, or ``None`` when it cannot be told (a signal is missing or not finite).

    ``coefficients`` replaces the frozen calibration (for calibrating anew).
    """
    coefficients = calibration() if coefficients is None else coefficients
    values = logarithms(signals, [name for name in coefficients if name != "intercept"])
    if values is None:
        return None
    total = coefficients["intercept"] + sum(coefficients[name] * value for name, value in values.items())
    return math.exp(min(total, 50.0))
