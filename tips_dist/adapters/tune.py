"""The judge in your own Ray Tune script: a stopper, and a callback that records a run folder.

    tune.Tuner(
        train,  # reports {"risk/total": …, "generator/loss": …}, for instance tune.report(seen.metrics())
        run_config=tune.RunConfig(
            stop=VerdictStopper(steps=100),
            callbacks=[RunFolderCallback("runs/mine", steps=100)],
        ),
    )

Numbers that a trial reports under a name with a group (``generator/loss``) are signals as they are, others that of the
loop; ``risk/total`` is what detectors of drift and plateaus look at (:class:`tips_dist.Watch` measures it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from tips_dist.foreign import ForeignRun, ForeignTrial, foreign_study
from tips_dist.runfolder import TrialState
from tips_dist.runfolder.records import Parameter
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.stability.verdicts import Verdict, ends_seed

STEP = "training_iteration"
RISK = "risk/total"
_TUNES = ("time_", "iterations_since_restore", "pid", "timestamp", "timesteps_", STEP, "episodes_", "num_trials")


class VerdictStopper(tune.Stopper):  # type: ignore[misc]
    """Stops a trial whose verdict ends it; the others go on.

    Args:
        steps: how many steps a trial is to take, in the unit of ``step``.
        step: the reported number that counts them.
        real_label: what the discriminator is to say of real poses.
        settings: sections of a study file, ``{"stopping": {"plateau": "off"}}`` say.

    Raises:
        UserError: a setting is unknown or does not fit.
    """

    def __init__(
        self, *, steps: int, step: str = STEP, real_label: float = 1.0, settings: Mapping[str, Any] | None = None
    ) -> None:
        study = foreign_study("VerdictStopper", "tune", steps=steps, every=1, settings=settings)
        self._steps, self._step, self._recipe = steps, step, Recipe(real_label=real_label)
        self._stopping = study.stopping
        self._judges: dict[str, Judge] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends with this report."""
        judge = self._judges.get(trial_id)
        if judge is None:
            judge = Judge.of(self._steps, self._recipe, self._stopping)
            self._judges[trial_id] = judge
        signals, risk = _signals(result)
        verdict = judge.update(int(result[self._step]), {**signals, RISK: risk})
        return ends_seed(verdict.kind, self._stopping)

    def verdict(self, trial_id: str) -> Verdict:
        """What is thought of a trial so far."""
        return self._judges[trial_id].verdict if trial_id in self._judges else Verdict()

    def stop_all(self) -> bool:
        """Never: verdicts are of trials."""
        return False


class RunFolderCallback(tune.Callback):  # type: ignore[misc]
    """Records every trial's reports in a run folder, on the driver, for ``summary``, ``report`` and the others.

    Args:
        folder: the run folder to make; one that is there is not gone on with.
        steps: how many steps a trial is to take, in the unit of ``step``; a multiple of ``every``.
        every: steps between two reports.
        step: the reported number that counts them.
        name: of the study.
        real_label, settings: as for :class:`VerdictStopper`.

    Raises:
        UserError: a setting does not fit, or the folder holds another run.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        steps: int,
        every: int = 1,
        step: str = STEP,
        name: str = "tune",
        real_label: float = 1.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder, self._step, self._recipe = Path(folder).resolve(), step, Recipe(real_label=real_label)
        self._study = foreign_study("RunFolderCallback", name, steps=steps, every=every, settings=settings)
        self._run: ForeignRun | None = None
        self._trials: dict[str, ForeignTrial] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Judge and record a report; one that a restarted trial repeats is left out."""
        ours, (signals, risk) = self._of(trial), _signals(result)
        step = int(result[self._step])
        if step > ours.last.get(0, 0):
            ours.keep(ours.judge(step, {0: (signals, risk)}))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It ended, or the stopper ended it."""
        self._of(trial).write(TrialState.FINISHED)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed for good."""
        self._of(trial).write(TrialState.FAILED, error=f"failed in Ray Tune (trial {trial.trial_id})")

    def _of(self, trial: Any) -> ForeignTrial:
        if self._run is None:
            self._run = ForeignRun(self._folder, self._study, None)
        if trial.trial_id not in self._trials:
            parameters = {"tune": str(trial.trial_id), **_parameters(trial.config)}
            self._trials[trial.trial_id] = self._run.trial(
                len(self._trials), parameters=parameters, recipe=self._recipe
            )
        return self._trials[trial.trial_id]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_run": None, "_trials": {}}  # Tune pickles its configuration before a run


def _signals(result: Mapping[str, Any]) -> tuple[dict[str, float | None], float | None]:
    """The numbers that a trial reported, None for what is not finite; and its risk."""
    found: dict[str, float | None] = {}
    for name, value in _flat(result):
        if isinstance(value, bool) or not isinstance(value, int | float) or name.startswith((*_TUNES, "config/")):
            continue
        found[name if "/" in name else f"loop/{name}"] = float(value) if math.isfinite(value) else None
    return found, found.pop(RISK, None)


def _parameters(config: Mapping[str, Any]) -> dict[str, Parameter]:
    return {name: value for name, value in _flat(config) if isinstance(value, bool | int | float | str)}


def _flat(values: Mapping[str, Any], head: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{head}{name}/") if isinstance(value, Mapping) else [(f"{head}{name}", value)]
    return found
