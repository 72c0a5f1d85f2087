"""Filter and sort the trials of a study before they are shown."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any

from tips_dist.bootstrap import Statistic
from tips_dist.files import UserError
from tips_dist.runfolder import RunFolder, Trial
from tips_dist.runfolder.results import TrialSummary

_COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
SORTABLE = ("trial", "representation", "state", "runs", "stopped_step", "steps_saved", "risk", "error", "wall_seconds")


def where(run: RunFolder, conditions: Sequence[str]) -> RunFolder:
    """The run folder with only the trials that meet all conditions, such as ``training.generator_lr<3e-4``.

    A condition compares ``representation``, ``trial``, ``state`` or a dotted key of the trial's configuration.

    Raises:
        UserError: a condition is malformed, its key is unknown, or no trial meets them all.
    """
    trials = run.trials
    for condition in conditions:
        found = re.fullmatch(r"([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(.+)", condition)
        if found is None:
            raise UserError(
                f"--where {condition}: expected KEY=VALUE (or <, >, <=, >=, !=), such as representation=solo"
            )
        key, sign, value = found.groups()
        trials = [trial for trial in trials if _meets(trial, key, sign, value, condition)]
    if run.trials and not trials:
        raise UserError(f"--where {', '.join(conditions)}: no trial of {run.path} meets this")
    return run.only(trials)


def _meets(trial: Trial, key: str, sign: str, value: str, condition: str) -> bool:
    actual: Any = {"trial": trial.id, **trial.plain(), **trial.configuration.model_dump()}
    for name in key.split("."):
        if not isinstance(actual, dict) or name not in actual:
            raise UserError(f"--where {condition}: no key '{key}'; dotted keys are those of the study file")
        actual = actual[name]
    if isinstance(actual, bool) or not isinstance(actual, int | float):
        if sign not in ("=", "!="):
            raise UserError(f"--where {condition}: '{key}' is no number; compare it with = or !=")
        return bool(_COMPARE[sign](str(actual).lower(), value.lower()))
    try:
        return bool(_COMPARE[sign](actual, float(value)))
    except ValueError:
        raise UserError(f"--where {condition}: '{key}' is a number, {value!r} is not") from None


def by(trials: Sequence[TrialSummary], key: str, *, descending: bool = False) -> list[TrialSummary]:
    """The trials of a summary sorted by a column or a searched parameter; those without a value last.

    Raises:
        UserError: no such column.
    """
    parameters = {name for trial in trials for name in trial.parameters}
    if key not in SORTABLE and key not in parameters:
        raise UserError(f"--sort {key}: expected one of {', '.join([*SORTABLE, *sorted(parameters)])}")
    known = [trial for trial in trials if _value(trial, key) is not None]
    known.sort(key=lambda trial: _value(trial, key), reverse=descending)
    return known + [trial for trial in trials if _value(trial, key) is None]


def _value(trial: TrialSummary, key: str) -> Any:
    if key in trial.parameters:
        return trial.parameters[key]
    if key == "error":
        found = trial.errors.metrics.get("n_mpjpe_resolved") if trial.errors else None
        return None if found is None else found.value
    value = getattr(trial, key)
    return value.value if isinstance(value, Statistic) else value
