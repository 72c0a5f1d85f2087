"""The search space as Optuna sees it, points drawn without history, and what a trial is worth.

Pure functions: no storage, no Ray. Optuna is imported where its distributions are made, so that reading a run
folder costs nothing.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tips_dist.config import Distribution, Integer, LogUniform, OneOf, Study, Uniform
from tips_dist.registry import entry
from tips_dist.runfolder import Outcome
from tips_dist.runfolder.records import Parameter
from tips_dist.stability.statistic import trial_risk
from tips_dist.stability.verdicts import is_sound

if TYPE_CHECKING:
    import optuna


def dimensions(study: Study, representation: str) -> dict[str, Distribution]:
    """The searched keys of one representation, in the order of the study file."""
    return {key: value for key, value in study.space.items() if not value.only or representation in value.only}


def budget(study: Study, representation: str) -> int:
    """How many trials a representation gets: ``search.trials``, or fewer where no further point exists.

    A study without search space has one point; a grid has as many as its values multiply to.
    """
    space = dimensions(study, representation)
    if not space:
        return 1
    if study.search.sampler == "grid":
        return min(study.search.trials, math.prod(len(values) for values in _choices(space)))
    return study.search.trials


def budgets(study: Study) -> int:
    """How many trials all its representations get."""
    return sum(budget(study, name) for name in study.representations)


def _choices(space: Mapping[str, Distribution]) -> list[list[bool | int | float | str]]:
    return [dimension.choice for dimension in space.values() if isinstance(dimension, OneOf)]


def seed_of(study: Study, representation: str, number: int) -> int:
    """The random seed that belongs to trial ``number`` (32 bits), whatever ran before it."""
    entropy = [study.seed, zlib.crc32(representation.encode()), number]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def draw(study: Study, representation: str, number: int) -> dict[str, Parameter] | None:
    """The point of trial ``number`` for a sampler without history; None where the sampler needs history.

    It depends on the study's seed, the representation and the number alone (design rule 2), so a study that was
    killed and resumed, or whose trials finish in another order, tries the same points.
    """
    if not dimensions(study, representation):
        return {}
    sampler = entry("samplers", study.search.sampler)
    if sampler.options.get("history", True):
        return None
    point: dict[str, Any] = sampler.value(study, representation, number)
    return point


def grid(study: Study, representation: str, number: int) -> dict[str, Any]:
    """The grid's points in a random order."""
    space = dimensions(study, representation)
    points = math.prod(len(values) for values in _choices(space))
    order = np.random.default_rng(seed_of(study, representation, 0)).permutation(points)
    values = next(itertools.islice(itertools.product(*_choices(space)), int(order[number]), None))
    return dict(zip(space, values, strict=True))


def uniform(study: Study, representation: str, number: int) -> dict[str, Any]:
    """Every key by itself, at random."""
    space = dimensions(study, representation)
    unit = np.random.default_rng(seed_of(study, representation, number)).random(len(space))
    return {key: from_unit(space[key], float(u)) for key, u in zip(space, unit, strict=True)}


def sobol(study: Study, representation: str, number: int) -> dict[str, Any]:
    """The next point of a scrambled Sobol sequence."""
    from scipy.stats import qmc

    space = dimensions(study, representation)
    sequence = qmc.Sobol(len(space), scramble=True, rng=seed_of(study, representation, 0))
    if number:
        sequence.fast_forward(number)
    return {key: from_unit(space[key], float(u)) for key, u in zip(space, sequence.random(1)[0], strict=True)}


def from_unit(distribution: Distribution, u: float) -> Any:
    """Map ``u`` in [0, 1) onto a distribution, so that a uniform ``u`` gives the distribution."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return low + u * (high - low)
        case LogUniform(log_uniform=(low, high)):
            return min(max(math.exp(math.log(low) + u * (math.log(high) - math.log(low))), low), high)
        case Integer(int=(low, high)):
            return min(low + int(u * (high - low + 1)), high)
        case OneOf(choice=values):
            return values[min(int(u * len(values)), len(values) - 1)]


def to_unit(distribution: Distribution, value: Any) -> float:
    """The inverse of :func:`from_unit`; integers and choices map to the middle of their share of [0, 1)."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return float((value - low) / (high - low))
        case LogUniform(log_uniform=(low, high)):
            return float((math.log(value) - math.log(low)) / (math.log(high) - math.log(low)))
        case Integer(int=(low, high)):
            return float((value - low + 0.5) / (high - low + 1))
        case OneOf(choice=values):
            return (values.index(value) + 0.5) / len(values)


def optuna_distributions(space: Mapping[str, Distribution]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Typed Optuna distributions of a search space."""
    from optuna import distributions

    result: dict[str, distributions.BaseDistribution] = {}
    for key, distribution in space.items():
        match distribution:
            case Uniform(uniform=(low, high)):
                result[key] = distributions.FloatDistribution(low, high)
            case LogUniform(log_uniform=(low, high)):
                result[key] = distributions.FloatDistribution(low, high, log=True)
            case Integer(int=(low, high)):
                result[key] = distributions.IntDistribution(low, high)
            case OneOf(choice=values):
                result[key] = distributions.CategoricalDistribution(values)
    return result


def objective(outcome: Outcome | None, names: Sequence[str]) -> list[float] | None:
    """What Optuna is told about a trial: one number per objective, all minimised; None where there is none.

    ``risk`` is :func:`tips_dist.stability.statistic.trial_risk`, as everywhere. ``instability`` is the share of seeds
    that ended badly plus the relative spread of the others' lowest risks, MAD / (MAD + \\|median\\|), so it lies in
    [0, 2).

    Args:
        outcome: of the trial's record (None: the trial was stopped or failed).
        names: the study's ``search.objectives``.
    """
    if outcome is None:
        return None
    risk = trial_risk((seed.best_risk, seed.verdict) for seed in outcome.seeds)
    if risk is None:
        return None
    sound = [s.best_risk for s in outcome.seeds if s.best_risk is not None and is_sound(s.verdict)]
    deviation = float(np.median(np.abs(np.asarray(sound) - np.median(sound))))
    spread = deviation / (deviation + abs(float(np.median(sound)))) if deviation else 0.0
    values = {"risk": risk, "instability": (len(outcome.seeds) - len(sound)) / len(outcome.seeds) + spread}
    return [values[name] for name in names]
