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

from tips_dist.config import Choice, Distribution, Integer, LogUniform, Study, Uniform
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


def _choices(space: Mapping[str, Distribution]) -> list[list[bool | int | float | str]]:
    return [dimension.choice for dimension in space.values() if isinstance(dimension, Choice)]


def seed_of(study: Study, representation: str, number: int) -> int:
    """The random seed that belongs to trial ``number`` (32 bits), whatever ran before it."""
    entropy = [study.seed, zlib.crc32(representation.encode()), number]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def draw(study: Study, representation: str, number: int) -> dict[str, Any] | None:
    """The point of trial ``number`` for a sampler without history; None where the sampler needs history.

    It depends on the study's seed, the representation and the number alone (design rule 2), so a study that was
    killed and resumed, or whose trials finish in another order, tries the same points.
    """
    space = dimensions(study, representation)
    sampler = study.search.sampler
    if not space:
        return {}
    if sampler == "grid":
        points = math.prod(len(values) for values in _choices(space))
        order = np.random.default_rng(seed_of(study, representation, 0)).permutation(points)
        values = next(itertools.islice(itertools.product(*_choices(space)), int(order[number]), None))
        return dict(zip(space, values, strict=True))
    if sampler == "random":
        unit = np.random.default_rng(seed_of(study, representation, number)).random(len(space))
    elif sampler == "qmc":
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(space), scramble=True, rng=seed_of(study, representation, 0))
        if number:
            sequence.fast_forward(number)
        unit = sequence.random(1)[0]
    else:
        return None
    return {key: from_unit(space[key], float(u)) for key, u in zip(space, unit, strict=True)}


def from_unit(distribution: Distribution, u: float) -> Any:
    """Map ``u`` in [0, 1) onto a distribution, so that a uniform ``u`` gives the distribution."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return low + u * (high - low)
        case LogUniform(log_uniform=(low, high)):
            return min(max(math.exp(math.log(low) + u * (math.log(high) - math.log(low))), low), high)
        case Integer(int=(low, high)):
            return min(low + int(u * (high - low + 1)), high)
        case Choice(choice=values):
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
        case Choice(choice=values):
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
            case Choice(choice=values):
                result[key] = distributions.CategoricalDistribution(values)
    return result


def censored_median(observed: Sequence[float], censored: Sequence[float]) -> float | None:
    """The Kaplan-Meier median of best risks, of which some are known only as "at least this".

    Args:
        observed: best risks of seeds that held (healthy or plateaued).
        censored: best risks of seeds that ended badly. Such a seed's number is no fair sample of what its
            configuration is worth, but a bound: its run is worth no better than the best it showed.

    Returns:
        The least risk that at least half of the seeds reach, by the product-limit estimate: each observed risk r
        takes its share of the seeds still at risk (those with a value >= r), so a censored seed's share moves on to
        the risks above its bound. Without censoring it is the lower median. None where fewer than half of the seeds
        were observed: then the median itself is not observed, and no number is made up for it.
    """
    if not observed or 2 * len(observed) < len(observed) + len(censored):
        return None
    values = np.sort(np.asarray(observed, dtype=np.float64))
    everything = np.concatenate([values, np.asarray(censored, dtype=np.float64)])
    survival = 1.0
    for value in np.unique(values):
        at_risk = int((everything >= value).sum())
        survival *= 1.0 - int((values == value).sum()) / at_risk
        if survival <= 0.5 + 1e-12:
            return float(value)
    return None


def objective(outcome: Mapping[str, Any] | None, names: Sequence[str]) -> list[float] | None:
    """What Optuna is told about a trial: one number per objective, all minimised; None where there is none.

    ``risk`` is :func:`censored_median` over the seeds' best risks: seeds with a sound verdict are
    observed, the others are censored at the best risk they showed (at "any risk" if they showed none).
    ``instability`` is the share of seeds that ended badly plus the relative spread of those observed,
    MAD / (MAD + \\|median\\|), so it lies in [0, 2).

    Args:
        outcome: the ``outcome`` of a trial's record (None: the trial was stopped or failed).
        names: the study's ``search.objectives``.
    """
    if outcome is None:
        return None
    seeds = outcome["seeds"]
    known = [s for s in seeds if s["best_risk"] is not None and math.isfinite(s["best_risk"])]
    observed = [float(s["best_risk"]) for s in known if is_sound(s["verdict"])]
    bounds = [float(s["best_risk"]) for s in known if not is_sound(s["verdict"])]
    bounds += [-math.inf] * (len(seeds) - len(known))
    risk = censored_median(observed, bounds)
    if risk is None:
        return None
    deviation = float(np.median(np.abs(np.asarray(observed) - np.median(observed))))
    spread = deviation / (deviation + abs(float(np.median(observed)))) if deviation else 0.0
    values = {"risk": risk, "instability": (len(seeds) - len(observed)) / len(seeds) + spread}
    return [values[name] for name in names]
