"""How much each searched dimension mattered (PED-ANOVA), from the records of finished trials."""

from __future__ import annotations

from collections.abc import Sequence

from tips_dist.config import Study
from tips_dist.runfolder.results import TrialSummary
from tips_dist.study.space import dimensions, optuna_distributions

FEWEST = 6  # finished trials; below, an importance would be noise


def importances(study: Study, trials: Sequence[TrialSummary]) -> dict[str, dict[str, float] | None]:
    """Importance of each dimension for the median risk, by representation; None where too few trials say anything.

    Args:
        study: the study, for its search space.
        trials: the trials of a summary.
    """
    return {name: _importances(study, name, trials) for name in study.representations}


def _importances(study: Study, representation: str, trials: Sequence[TrialSummary]) -> dict[str, float] | None:
    import optuna

    space = optuna_distributions(dimensions(study, representation))
    judged = [
        (trial.parameters, trial.risk.value)
        for trial in trials
        if trial.representation == representation and trial.risk is not None and set(trial.parameters) == set(space)
    ]
    if len(judged) < FEWEST or len({risk for _, risk in judged}) < 2 or not space:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    record = optuna.create_study()
    for parameters, risk in judged:
        record.add_trial(optuna.trial.create_trial(params=dict(parameters), distributions=space, value=risk))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return {
        key: float(value) for key, value in optuna.importance.get_param_importances(record, evaluator=evaluator).items()
    }
