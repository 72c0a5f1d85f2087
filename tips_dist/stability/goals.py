"""How much error may be risked to save training: a goal turns into thresholds of the detectors.

``goals.json`` (written by ``benchmarks/stability/goals.py``) holds, for each of a few goals, the thresholds that saved
the most steps in the calibration runs while losing no more than the goal on average. Between them it is interpolated.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np

from tips_dist.config import Goal, Policy

TABLE = Path(__file__).with_name("goals.json")


@functools.cache
def goal_table() -> dict[str, list[float]]:
    """Threshold -> its value at each goal; ``loss`` holds the goals."""
    rows = json.loads(TABLE.read_text())["goals"]
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def thresholds(policy: Policy, goal: Goal | None = None) -> Policy:
    """``policy`` with the goal's thresholds where it sets none itself; the default goal where none is given."""
    found = goal_table()
    losses = [math.log(loss) for loss in found["loss"]]
    where = math.log((goal or Goal()).loss)
    changes: dict[str, float] = {
        name: float(np.interp(where, losses, values))
        for name, values in found.items()
        if name != "loss" and getattr(policy, name) is None
    }
    return policy.model_copy(update=changes)
