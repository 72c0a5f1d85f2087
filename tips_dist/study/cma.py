"""CMA-ES behind Optuna's sampler interface, rebuilt from the journal each time it is asked.

Optuna's own CmaEsSampler keeps its optimiser as a pickle inside the storage; nothing of ours may be executed on
reading (design rule 5), so this one keeps nothing: it replays the finished generations, which is deterministic, and
draws the next point with the trial's own seed. Categories and integers are searched as positions in the unit cube.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from cmaes import CMA  # type: ignore[import-untyped]
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tips_dist.config import Distribution
from tips_dist.study.space import from_unit, optuna_distributions, to_unit

_GENERATION = "generation"


class CmaSampler(optuna.samplers.BaseSampler):
    """One-objective CMA-ES over the unit cube of a typed search space.

    A generation is complete when its population has finished; trials without a value (pruned) rank last. Trials
    asked while a generation is running belong to it too, so parallel workers never wait.
    """

    def __init__(self, space: Mapping[str, Distribution], seed: int) -> None:
        """Prepare for one draw.

        Args:
            space: the searched keys.
            seed: of the trial to be drawn.
        """
        self._space, self._seed = space, seed
        self._distributions = optuna_distributions(space)
        self._fallback = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Everything is drawn one by one from the point made in :meth:`sample_independent`."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing (see :meth:`infer_relative_search_space`)."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """This key's value in the point that the replayed optimiser draws with this trial's seed."""
        known = self._distributions.get(param_name) == param_distribution
        if len(self._space) < 2 or not known:  # CMA-ES needs two dimensions, the same in every trial
            return self._fallback.sample_independent(study, trial, param_name, param_distribution)
        optimiser, generation = self._replayed(study.get_trials(deepcopy=False))
        study._storage.set_trial_system_attr(trial._trial_id, _GENERATION, generation)
        point = optimiser.ask()
        return from_unit(self._space[param_name], min(float(point[list(self._space).index(param_name)]), 1 - 1e-12))

    def _replayed(self, trials: Sequence[FrozenTrial]) -> tuple[CMA, int]:
        size = len(self._space)
        bounds = np.tile([0.0, 1.0], (size, 1))
        optimiser = CMA(mean=np.full(size, 0.5), sigma=0.25, bounds=bounds, seed=self._seed)
        done: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            whole = self._space.keys() <= trial.params.keys()
            if whole and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                done.setdefault(trial.system_attrs.get(_GENERATION, 0), []).append(trial)
        generation = 0
        while len(done.get(generation, [])) >= optimiser.population_size:
            members = done[generation][: optimiser.population_size]
            values = [trial.values[0] for trial in members if trial.values]
            worst = max(values, default=0.0) + 1.0  # only ranks matter to CMA-ES
            optimiser.tell(
                [
                    (
                        np.array([to_unit(self._space[key], trial.params[key]) for key in self._space]),
                        trial.values[0] if trial.values else worst,
                    )
                    for trial in members
                ]
            )
            generation += 1
        return optimiser, generation
