"""Detectors of what lasts: a seed's risk breaks away from its best, drifts from it slowly, or falls no further.

All look at the logarithm of the risk, so that changes are relative and no unit matters; slightly smoothed, for the
averaged weights that are judged make little noise. None looks at a network that holds poses of both mirror solutions,
because it is crossing over or has not settled yet, and after that they begin anew: its risk says nothing about how well
the network will do on one side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from tips_dist.stability.online import MIXED, Mixing, Signals, mixing, smooth
from tips_dist.stability.verdicts import DIVERGED, DRIFTING, PLATEAUED, Verdict

RISK = "risk/total"
SUSPENSE = 5  # evaluation steps at which little mixing is thought to be the beginning of a crossing
BURST = math.log(1.5)  # no crossing makes the risk half as large again
EVALUATIONS = 50  # in a run; where there are more, each counts for less


@dataclass
class Lasting(Mixing):
    """Knows the smoothed log risk, and how many evaluation steps the newest counts for."""

    smoothed: float | None = None
    first: float | None = None
    last_step: int = 0
    suspected: int = 0  # evaluation steps in a row at which a crossing may have begun

    def take(self, step: int, signals: Signals) -> float | None:
        """Take in one evaluation step; None where there is no risk, or nothing to judge."""
        risk = signals.get(RISK)
        if risk is None or not math.isfinite(risk) or risk <= 0:
            return None
        self.first = math.log(risk) if self.first is None else self.first
        mixed = max(mixing(signals).values(), default=0.0)
        self.suspected = self.suspected + 1 if mixed >= self.policy.crossing / 4 else 0
        if self.mixes(step, mixed):
            self.forget(step)
            return None
        self.smoothed = smooth(self.smoothed, math.log(risk), self.policy.smoothing)
        weight = min(1.0, (step - self.last_step) * EVALUATIONS / max(self.steps, 1))
        self.last_step = step
        return weight

    def forget(self, step: int) -> None:
        """Poses are mirrored: what was is no measure any more, but for where the run began."""
        self.smoothed, self.last_step = None, step

    @property
    def may_cross(self) -> bool:
        """Whether a rise may be the beginning of a crossing; one that begins is sure within a few evaluations."""
        return 0 < self.suspected <= SUSPENSE

    def begun(self, best: float) -> bool:
        """Whether the run has begun to converge."""
        return self.first is not None and best <= self.first + math.log(max(self.policy.plateau_learnt, 1e-9))


@dataclass
class Drift(Lasting):
    """The risk has left its best value and stays away: a one-sided CUSUM (Page 1954) on the smoothed log risk."""

    name: ClassVar[str] = "drift"
    best: float | None = None
    sum: float = 0.0
    since: int = -1

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """Accumulate what exceeds the best by more than the slack; the onset is where the sum last left zero."""
        weight = self.take(step, signals)
        if weight is None or self.smoothed is None or self.warming_up(step):
            return None
        if self.best is None or self.smoothed < self.best:
            self.best = self.smoothed
        excess = self.smoothed - self.best - self.policy.drift_slack
        if self.sum == 0 and excess > 0:
            self.since = step
        self.sum = max(0.0, self.sum + weight * excess)
        if self.sum <= self.policy.drift_alarm:
            return None
        best, now = math.exp(self.best), math.exp(self.smoothed)
        return Verdict(
            DIVERGED, f"risk drifted from its best {best:.3g} to {now:.3g}", self.since, {"best": best, "risk": now}
        )

    def forget(self, step: int) -> None:
        """Its best too."""
        super().forget(step)
        self.best, self.sum, self.since = None, 0.0, -1


@dataclass
class Burst(Lasting):
    """The risk is half as large again as its lowest for a few evaluation steps: no crossing, whatever is mirrored."""

    name: ClassVar[str] = "burst"
    lowest: float | None = None  # log risk on one side of the mirror, ever
    since: int = -1
    run: int = 0  # evaluation steps since then

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """The onset is where it doubled."""
        risk = signals.get(RISK)
        if risk is None or not math.isfinite(risk) or risk <= 0:
            return None
        self.take(step, signals)
        if not self.mixture:
            self.lowest = min(math.log(risk), math.inf if self.lowest is None else self.lowest)
        if self.lowest is None or math.log(risk) < self.lowest + BURST:
            self.run = 0
            return None
        self.since = step if self.run == 0 else self.since
        self.run += 1
        if self.run < self.policy.patience / 2 or self.warming_up(step):
            return None
        low = math.exp(self.lowest)
        return Verdict(DIVERGED, f"risk burst from {low:.3g} to {risk:.3g}", self.since, {"best": low, "risk": risk})


SINGLE = {  # signal -> what it means that it grew
    "agreement/views": "views of one moment agree less",
    "rigidity/bone_ratio_variance": "bones have grown less rigid",
    "rigidity/symmetry": "left and right have grown apart",
    "distance/sliced_wasserstein": "new views look less human",
    MIXED: "more poses are mirrored",
}
PARTS = {"": "", "_torso": "torso: ", "_legs": "legs: "}
PART_ALARM = 3.0  # a part alone must rise for longer, for the others may make up for it
SHARE = {"_torso": 10 / 17, "_legs": 7 / 17}  # of the joints


@dataclass
class Drifting(Lasting):
    """The risk of the whole, or what is known of a part, grows slowly worse than its best: the same sum, finer.

    A part counts by its share of the joints. Only a run that has begun to converge can drift. The reason names the
    single signal that rose the most since the best.
    """

    name: ClassVar[str] = "drifting"
    levels: dict[str, float] = field(default_factory=dict)  # smoothed, of the whole ("") and of parts
    bests: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)  # the step where each sum last left zero
    then: dict[str, dict[str, float]] = field(default_factory=dict)  # single signals at each best
    best_steps: dict[str, int] = field(default_factory=dict)

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """The onset is where the sum that raised the alarm last left zero."""
        weight = self.take(step, signals)
        if weight is None or self.smoothed is None:
            return None
        told = {"": self.smoothed, **self._parts(signals)}
        for group, level in told.items():
            self._follow(group, level, weight, step, signals)
        over = [group for group in told if self.sums[group] > self._alarm * (PART_ALARM if group else 1.0)]
        if not over or self.warming_up(step) or self.may_cross or not self.begun(self.bests[""]):
            return None
        group = max(over, key=lambda name: self.sums[name])
        broken = self.smoothed - self.bests[""] > self.policy.drift_slack
        return Verdict(
            DIVERGED if broken else DRIFTING, self._reason(group, signals), self.since[group], self._values(group)
        )

    @property
    def _alarm(self) -> float:
        return self.policy.drifting_alarm or math.inf

    def _parts(self, signals: Signals) -> dict[str, float]:
        """The smoothed log risk of each part, as far as its signals go."""
        found = {}
        for part, share in SHARE.items():
            level = part_level(signals, part)
            if level is not None:
                old = self.levels.get(part)
                self.levels[part] = smooth(old, share * level, self.policy.smoothing)
                found[part] = self.levels[part]
        return found

    def _follow(self, group: str, level: float, weight: float, step: int, signals: Signals) -> None:
        best = self.bests.get(group)
        if best is None or level < best:
            self.bests[group], self.best_steps[group] = level, step
            self.then[group] = _singles(signals, group)
        excess = level - self.bests[group] - self.policy.drifting_slack
        before = self.sums.get(group, 0.0)
        if before == 0 and excess > 0:
            self.since[group] = step
        self.sums[group] = max(0.0, before + weight * excess)

    def _reason(self, group: str, signals: Signals) -> str:
        then, now = self.then.get(group, {}), _singles(signals, group)
        rises = {name: math.log(max(now[name], 1e-6) / max(then[name], 1e-6)) for name in now if name in then}
        since = self.best_steps.get(group, 0)
        if now.get(MIXED, 0.0) < self.policy.crossing / 4:
            rises.pop(MIXED, None)  # from next to nothing to next to nothing
        if not rises or max(rises.values()) <= 0:
            return f"{PARTS[group]}risk has risen since step {since:,}"
        name = max(rises, key=lambda one: rises[one])
        return f"{PARTS[group]}{SINGLE[name]} since step {since:,}: {then[name]:.3g} to {now[name]:.3g}"

    def _values(self, group: str) -> dict[str, float]:
        return {"best": math.exp(self.bests[""]), "risk": math.exp(self.smoothed or 0.0), "rise": self.sums[group]}

    def forget(self, step: int) -> None:
        """All bests too."""
        super().forget(step)
        for one in (self.levels, self.bests, self.sums, self.since, self.then, self.best_steps):
            one.clear()


@dataclass
class Plateau(Lasting):
    """The best smoothed risk has not improved for a share of the training so far: more training buys nothing.

    A run that has not begun to converge is no plateau: its risk may stay flat for long before it falls.
    """

    name: ClassVar[str] = "plateau"
    best: float | None = None
    best_step: int = 0
    stale: int = 0  # evaluation steps since the last progress

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """The onset is the step of the last progress."""
        if self.take(step, signals) is None or self.smoothed is None:
            return None
        if self.best is None or self.smoothed < self.best + math.log1p(-(self.policy.plateau_progress or 0.0)):
            self.best, self.best_step, self.stale = self.smoothed, step, 0
            return None
        self.stale += 1
        wait = max((self.policy.plateau_share or 0.0) * self.steps, self.policy.plateau_wait * self.best_step)
        too_short = step - self.best_step < wait or self.stale < self.policy.plateau_patience
        if self.warming_up(step) or too_short or self.may_cross or not self.begun(self.best):
            return None
        best = math.exp(self.best)
        return Verdict(
            PLATEAUED, f"no progress since step {self.best_step} (risk {best:.3g})", self.best_step, {"best": best}
        )

    def forget(self, step: int) -> None:
        """Its best too."""
        super().forget(step)
        self.best, self.best_step, self.stale = None, step, 0


def part_level(signals: Signals, part: str) -> float | None:
    """What the risk would be made of, of one part alone; None where it was not measured."""
    names = {"agreement/views": 1.0, "rigidity/bone_ratio_variance": 0.5}
    slope = 0.3
    if f"agreement/views{part}" not in signals:
        names, slope = {"rigidity/bone_ratio_variance": 1.0, "distance/sliced_wasserstein": 0.3}, 0.4
    total = 0.0
    for name, weight in names.items():
        value = signals.get(name + part)
        if value is None or not math.isfinite(value):
            return None
        total += weight * math.log(max(value, 1e-6))
    return slope * total


def _singles(signals: Signals, group: str) -> dict[str, float]:
    found = {name: signals.get(name + group) for name in SINGLE}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
