"""Is one trial surely worse than the best one? A test over their seeds, at a few looks, for ``stopping.trials``.

Schedulers such as ASHA (Li et al. 2020, arXiv 1810.05934) stop a share of the trials at each rung, whatever is known
of them. This test stops a trial only when the mean log risk of its seeds lies above that of the best trial's, at the
same step, by more than chance explains: one-sided, for unequal variances (Welch 1947). The chance that a study ever
stops a trial that is as good as the best is held below :data:`ALPHA` by sharing it among all looks and all pairs of
trials (Bonferroni): all pairs, because the best of many trials is the luckiest of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tips_dist.stability.statistic import trial_risk
from tips_dist.stability.verdicts import is_sound

Array = npt.NDArray[np.float64]
ALPHA = 0.05
TINY = 1e-20  # a variance of log risks that is rounding
LOOKS = (0.3, 0.5, 0.7)  # shares of the steps; earlier ones say little of the end, later ones save little
LEAST_SEEDS = 2  # sound ones on either side: the spread of one is unknown

Seeds = Sequence[tuple[float | None, str]]  # each seed's lowest risk so far (None: it has none) and its verdict


@dataclass(frozen=True)
class Worse:
    """A trial that is surely worse: than which one, how sure (``p`` of ``allowed``), and both trials' risks."""

    best: str
    risk: float
    best_risk: float
    p: float
    allowed: float

    def words(self) -> str:
        """Why the trial is stopped."""
        return (
            f"surely worse than {self.best}: risk {self.risk:.3g} against {self.best_risk:.3g} at the same step "
            f"(p = {self.p:.1g}, {self.allowed:.1g} allowed)"
        )


def look(step: int, steps: int, every: int) -> bool:
    """Whether ``step`` is a look: the first evaluation step at or after its share of the ``steps``."""
    return any(step - every < share * steps <= step for share in LOOKS)


def surely_worse(identity: str, trials: Mapping[str, Seeds]) -> Worse | None:
    """Whether a trial is surely worse than the best of ``trials``, itself among them, all at the same step.

    None as well where too few seeds are sound to tell. Unsound seeds count for neither side: how badly a seed broke
    says nothing of the others, and which trial is best is told by :func:`trial_risk`, which counts them.
    """
    risks = {name: trial_risk(seeds) for name, seeds in trials.items()}
    known = {name: risk for name, risk in risks.items() if risk is not None}
    mine, best = known.get(identity), min(known, key=lambda name: (known[name], name), default=identity)
    if mine is None or best == identity:
        return None
    worse, better = _logs(trials[identity]), _logs(trials[best])
    if min(len(worse), len(better)) < LEAST_SEEDS:
        return None
    p = _welch(worse, better)
    allowed = ALPHA / len(LOOKS) / (len(trials) * (len(trials) - 1))
    return Worse(best, mine, known[best], p, allowed) if p < allowed else None


def _welch(worse: Array, better: Array) -> float:
    """The one-sided p of the first mean not being above the second; 1 where neither has a spread to tell by."""
    from scipy.stats import t

    first, second = (values.var(ddof=1) / len(values) for values in (worse, better))
    if first + second < TINY:
        return 1.0
    freedom = (first + second) ** 2 / (first**2 / (len(worse) - 1) + second**2 / (len(better) - 1))
    return float(t.sf((worse.mean() - better.mean()) / math.sqrt(first + second), freedom))


def _logs(seeds: Seeds) -> Array:
    """The logarithms of the sound seeds' risks."""
    return np.array([math.log(risk) for risk, verdict in seeds if risk is not None and risk > 0 and is_sound(verdict)])
