"""The runs of a study, one row each, as every table and figure counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tips_dist.runfolder import RunFolder
from tips_dist.runfolder.results import SeedErrors
from tips_dist.stability.verdicts import is_sound

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One run (configuration and seed) as it ended; ``errors`` where it was compared with truth."""

    trial: str
    representation: str
    seed: int
    verdict: str
    reason: str
    onset: int | None
    steps: int  # planned
    stopped_step: int
    best_step: int | None
    best_risk: float | None
    candidates: tuple[int, ...] = ()  # steps of the checkpoints that were kept
    errors: SeedErrors | None = None
    raw: SeedErrors | None = None  # of its raw weights, where both were judged

    def error(self, checkpoint: str, metric: str = "n_mpjpe_resolved", *, raw: bool = False) -> float | None:
        """A metric in mm of one of its checkpoints (``selected``, ``best``, ``last``, ``random``); None if unknown."""
        measured = self.raw if raw else self.errors
        found = None if measured is None else measured.of(checkpoint)
        return None if found is None else found.of(metric)


def seed_runs(run: RunFolder) -> list[SeedRun]:
    """All runs that have an outcome, trial by trial."""
    return [
        SeedRun(
            trial=trial.id,
            representation=trial.representation,
            seed=seed.seed,
            verdict=seed.verdict,
            reason=seed.reason,
            onset=seed.onset,
            steps=trial.steps,
            stopped_step=seed.stopped_step,
            best_step=seed.best_step,
            best_risk=seed.best_risk,
            candidates=tuple(seed.candidates),
            errors=None if run.evaluation is None else run.evaluation.errors(trial.id, seed.seed),
            raw=None if run.evaluation is None else run.evaluation.errors(trial.id, seed.seed, raw=True),
        )
        for trial in run.trials
        for seed in trial.seed_outcomes
    ]


def risks(runs: Sequence[SeedRun]) -> Array:
    """The lowest risk of each run, NaN where there is none."""
    return np.array([np.nan if run.best_risk is None else run.best_risk for run in runs], float)


def ranked(runs: Sequence[SeedRun]) -> Array:
    """The lowest risk of each run as it counts for the risk of a trial: an unsound run is worse than any other.

    Their median is the one risk of a trial, which Optuna minimises too (:mod:`tips_dist.stability.statistic`).
    """
    return np.where([is_sound(run.verdict) for run in runs], np.nan_to_num(risks(runs), nan=np.inf), np.inf)
