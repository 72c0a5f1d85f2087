"""What evidence chooses and orders: every signal and combination as a score, its regret and rank correlation by source.

A rule turns the signals of a run into a score (E, S), lower is better; truth only measures what it chose. Figures and
intervals are those of PROTOCOL.md: a run is drawn with all its seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.stability.bank import Curves
from tips_dist.bootstrap import CONFIDENCE, Statistic, group_weights, midranks
from tips_dist.stability.risk import BONES, FLOOR, MIXED, REPROJECTIONS, SYMMETRY, VIEWS

LATE = 0.25  # share of a run that Spearman and coverage leave out at its beginning
PARTS = {"": "", "_torso": " of the torso", "_legs": " of the legs"}

Array = npt.NDArray[np.float64]
Signals = Mapping[str, Array]  # name -> (E, S)
Rule = Callable[[Signals], Array]  # KeyError where a signal is absent


def logarithm(name: str, weight: float = 1.0) -> Rule:
    """The logarithm of a signal that is never negative."""
    return lambda found: weight * np.log(np.maximum(found[name], FLOOR))


def value(name: str, weight: float = 1.0) -> Rule:
    """A signal as it is."""
    return lambda found: weight * found[name]


def away(name: str, middle: float) -> Rule:
    """How far a signal lies from where it should."""
    return lambda found: np.abs(found[name] - middle)


def plus(*rules: Rule) -> Rule:
    """A sum of scores."""
    return lambda found: np.sum([rule(found) for rule in rules], axis=0)


def lacking(name: str) -> Rule:
    """What a share lacks of one."""
    return lambda found: 1 - found[name]


SINGLE: dict[str, Rule] = {
    **{f"bones{words}": logarithm(BONES + part) for part, words in PARTS.items()},
    "symmetry": logarithm(SYMMETRY),
    "sliced Wasserstein": logarithm(REPROJECTIONS),
    "nearest neighbour": logarithm("distance/nearest_neighbour"),
    "MMD": logarithm("distance/mmd"),
    "coverage": lacking("distance/coverage"),
    "depth spread": lambda found: np.abs(np.log(np.maximum(found["depth/spread_ratio"], FLOOR))),
    "knees": lacking("depth/knees"),
    "elbows": lacking("depth/elbows"),
    **{f"views{words}": logarithm(VIEWS + part) for part, words in PARTS.items()},
    "time": logarithm("agreement/time"),
    **{f"mixed{words}": value(MIXED + part) for part, words in PARTS.items()},
    "2D cycle": logarithm("consistency/cycle_2d"),
    "3D cycle": logarithm("consistency/cycle_3d"),
    "quarter turn": logarithm("consistency/turn_90"),
    "generator's loss": value("generator/loss"),
    "discriminator's accuracy": away("discriminator/accuracy", 0.5),
    "discriminator's balance": away("discriminator/loss", 0.25),
    "updates": logarithm("updates/lifter"),
    "gradients": logarithm("gradients/lifter"),
}
"""Each signal by itself."""

COMBINED: dict[str, Rule] = {
    "bones + mixed": plus(logarithm(BONES), value(MIXED)),
    "bones + knees": plus(logarithm(BONES), lacking("depth/knees")),
    "views x bones": plus(logarithm(VIEWS), logarithm(BONES)),
    "views + 0.5 bones": plus(logarithm(VIEWS), logarithm(BONES, 0.5)),
    "views + 0.5 bones + 0.5 knees": plus(
        logarithm(VIEWS), logarithm(BONES, 0.5), lambda found: 0.5 * (1 - found["depth/knees"])
    ),
}
BEFORE: dict[str, Rule] = {
    "several": plus(logarithm(VIEWS), logarithm(BONES, 0.5), value(MIXED)),
    "one": plus(logarithm(BONES), logarithm(SYMMETRY, 0.4), logarithm(REPROJECTIONS, 0.5), value(MIXED, 3.0)),
}
"""The risk before this one, by cameras."""


def last(found: Signals) -> Array:
    """The last checkpoint."""
    shape = next(iter(found.values())).shape
    return np.broadcast_to(-np.arange(float(shape[0]))[:, None], shape)


TRIVIAL: dict[str, Rule] = {"last checkpoint": last}


@dataclass(frozen=True, eq=False)
class Judged:
    """What one rule did on the seeds of some runs; NaN where it has nothing to say; N seeds."""

    regret: Array  # (N,) mm above the seed's best checkpoint
    within: Array  # (N,) Spearman with true error over the last three quarters
    lowest: Array  # (N,) its score where it chose,
    error: Array  # (N,) and the error there
    run: npt.NDArray[np.intp]  # (N,) which run a seed is of

    def __add__(self, other: Judged) -> Judged:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Judged(*(np.concatenate(pair) for pair in pairs))


def judge(rule: Rule, curves: Curves, run: int) -> Judged | None:
    """Let a rule choose on one run; None where it lacks a signal."""
    try:
        scores = rule(curves.signals)
    except KeyError:
        return None
    return judged(scores, curves, run)


def judged(scores: Array, curves: Curves, run: int) -> Judged:
    """What the lowest of ``scores`` (E, S) chooses on one run; NaN where nothing may be chosen."""
    known = np.isfinite(curves.errors)
    usable = np.where(np.isfinite(scores) & known, scores, np.inf)
    told = np.isfinite(usable).any(0)
    errors = np.where(known, curves.errors, np.nan)
    best, mean = _best_and_mean(errors)
    seeds = np.arange(errors.shape[1])
    place = usable.argmin(0)
    chosen = np.where(told, errors[place, seeds], mean)  # nothing to say: a random checkpoint
    late = slice(int(LATE * len(errors)), None)
    within = np.array([spearman(scores[late, seed], curves.errors[late, seed]) for seed in seeds])
    lowest = np.where(told, usable[place, seeds], np.nan)
    return Judged(chosen - best, within, lowest, chosen, np.full(len(seeds), run))


def _best_and_mean(errors: Array) -> tuple[Array, Array]:
    """Least and mean error of each seed; NaN of one that was never finite."""
    columns = [column[np.isfinite(column)] for column in errors.T]
    found = [(column.min(), column.mean()) if len(column) else (np.nan, np.nan) for column in columns]
    best, mean = np.array(found, np.float64).T
    return best, mean


def random_choice(curves: Curves, run: int) -> Judged:
    """What a random checkpoint costs, on average."""
    errors = np.where(np.isfinite(curves.errors), curves.errors, np.nan)
    best, mean = _best_and_mean(errors)
    gap = mean - best
    nothing = np.full(len(gap), np.nan)
    return Judged(gap, nothing, nothing, nothing, np.full(len(gap), run))


def pooled(rule: Rule, runs: Sequence[Curves]) -> Judged | None:
    """A rule on many runs; None where none has its signals."""
    found = [one for place, curves in enumerate(runs) if (one := judge(rule, curves, place)) is not None]
    return together(found)


def together(found: Sequence[Judged]) -> Judged | None:
    """Seeds of several runs."""
    if not found:
        return None
    total = found[0]
    for one in found[1:]:
        total = total + one
    return total


# --- figures with intervals ------------------------------------------------------------------------------------------


def across(judged: Judged) -> Statistic:
    """Spearman over seeds of the score where it chose with the error there; ranks are those of all seeds."""
    known = np.isfinite(judged.lowest) & np.isfinite(judged.error)
    if known.sum() < 4:
        return Statistic(float("nan"), float("nan"), float("nan"), 0)
    ranks = np.stack([midranks(judged.lowest[known]), midranks(judged.error[known])])
    weights = group_weights(judged.run[known])
    share = weights / weights.sum(1, keepdims=True)
    centred = ranks[:, None] - (share @ ranks.T).T[..., None]  # (2, draws, N)
    products = [(share * centred[i] * centred[j]).sum(1) for i, j in ((0, 1), (0, 0), (1, 1))]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = products[0] / np.sqrt(products[1] * products[2])
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Statistic(spearman(judged.lowest, judged.error), float(low), float(high), int(known.sum()))


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of two series (E,); NaN where one does not vary or fewer than four pairs are known."""
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 4 or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return float("nan")
    one, other = midranks(a[known]), midranks(b[known])
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))
