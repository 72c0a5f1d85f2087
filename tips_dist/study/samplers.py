"""Samplers by name: who proposes a trial's configuration. Optuna is imported when one is made.

A sampler that needs no history (``history=False``) is a function (study, representation, number) -> the point of that
trial, from the study's seed, the representation and the number alone. The others are functions of the same arguments
that make an Optuna sampler, seeded for this trial, whose draw depends on the journal alone; ``startup`` says how many
of a study's trials such a one draws at random before it learns from any.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from tips_dist.config import Study
from tips_dist.files import UserError
from tips_dist.registry import built_in, entry, register
from tips_dist.study import space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def _check(name: str, value: object) -> None:
    if not callable(value):
        raise UserError(f"expected a function (study, representation, number), got {value!r:.80}")


with built_in("samplers", _check):

    @register("samplers", "tpe", startup=10)
    def tpe(study: Study, representation: str, number: int) -> BaseSampler:
        """Tree-structured Parzen estimators, multivariate; running trials count as bad ones."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=space.seed_of(study, representation, number), multivariate=True, constant_liar=True)

    @register("samplers", "gp", startup=10)
    def gp(study: Study, representation: str, number: int) -> BaseSampler:
        """A Gaussian process."""
        from optuna.samplers import GPSampler

        return GPSampler(seed=space.seed_of(study, representation, number), deterministic_objective=False)

    @register("samplers", "nsga2")
    def nsga2(study: Study, representation: str, number: int) -> BaseSampler:
        """A genetic algorithm, made for several objectives."""
        from optuna.samplers import NSGAIISampler

        seed, population = space.seed_of(study, representation, number), max(4, study.search.trials // 4)
        return NSGAIISampler(seed=seed, population_size=population)

    @register("samplers", "cmaes")
    def cmaes(study: Study, representation: str, number: int) -> BaseSampler:
        """CMA-ES, rebuilt from the journal (see :mod:`tips_dist.study.cma`)."""
        from tips_dist.study.cma import CmaSampler

        return CmaSampler(space.dimensions(study, representation), space.seed_of(study, representation, number))

    register("samplers", "qmc", space.sobol, history=False)
    register("samplers", "random", space.uniform, history=False)
    register("samplers", "grid", space.grid, history=False)


def make_sampler(study: Study, representation: str, number: int) -> BaseSampler:
    """The study's sampler for one trial.

    Raises:
        UserError: a plug-in's made something else; the message names it.
    """
    from optuna.samplers import BaseSampler

    found = entry("samplers", study.search.sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are marked experimental
        made = found.value(study, representation, number)
    if not isinstance(made, BaseSampler):
        raise UserError(f"search.sampler: {found} made {made!r:.80}, expected an Optuna sampler")
    return made
