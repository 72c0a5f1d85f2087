"""What stopping saved, in seed-steps (one step of one seed), and which seeds it froze or let go on, by the records."""

from __future__ import annotations

from collections.abc import Iterable

from tips_dist.runfolder.records import Trial, TrialState
from tips_dist.runfolder.results import Budget


def budget_of(trials: Iterable[Trial]) -> Budget:
    """The budget of the trials that have ended well or were stopped; others have spent an amount that nobody knows."""
    planned = trained = frozen = 0
    counted = [trial for trial in trials if trial.state in (TrialState.FINISHED, TrialState.STOPPED)]
    for trial in counted:
        planned += trial.steps * len(trial.seeds)
        trained += _trained(trial)
        frozen += len(frozen_seeds(trial))
    return Budget(
        planned=planned,
        trained=trained,
        frozen=frozen,
        revived=sum(len(trial.thaw) for trial in counted),
        stopped_trials=sum(trial.state is TrialState.STOPPED for trial in counted),
    )


def frozen_seeds(trial: Trial) -> list[int]:
    """The seeds of a trial that has ended which could go on: all of one that was stopped as a whole."""
    if trial.state is TrialState.STOPPED:
        return list(trial.seeds)
    return [seed.seed for seed in trial.seed_outcomes if seed.frozen is not None]


def _trained(trial: Trial) -> int:
    if trial.outcome is not None and trial.state is TrialState.FINISHED:
        return sum(seed.stopped_step for seed in trial.outcome.seeds)
    return (trial.steps if trial.stopped_step is None else trial.stopped_step) * len(trial.seeds)
