"""Detectors: plain numbers in, verdicts out; online, O(1) memory, state that dumps and loads.

A detector sees one seed's signals at each evaluation step and may raise a :class:`Verdict`. The :class:`Judge` of a
seed runs them all and keeps the most serious verdict. Thresholds live in :class:`tips_dist.config.Policy`, the kinds
of verdict in :mod:`tips_dist.stability.verdicts`; what counts as balanced or won depends on the recipe (loss kind,
label swaps), which :class:`Recipe` knows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import JsonValue

from tips_dist.config import Policy
from tips_dist.files import UserError
from tips_dist.registry import built_in, entry, register
from tips_dist.stability.verdicts import COLLAPSED, DIVERGED, KINDS, NON_FINITE, PLATEAUED, Verdict, severity

Signals = Mapping[str, float | None]


@dataclass(frozen=True)
class Recipe:
    """The adversarial recipe, as far as thresholds depend on it."""

    kind: str = "least_squares"
    label_swap: float = 0.0
    real_label: float = 1.0

    @property
    def balanced_loss(self) -> float:
        """The discriminator's loss when it cannot tell real from fake: the best constant answer."""
        half = self.real_label / 2
        return half**2 if self.kind == "least_squares" else _cross_entropy(half)

    @property
    def perfect_loss(self) -> float:
        """The loss of a discriminator that knows every pose; label swaps and soft labels set a floor above 0."""
        p, r = self.label_swap, self.real_label
        if self.kind == "least_squares":
            return p * (1 - p) * r**2
        return (_cross_entropy(r * (1 - p)) + _cross_entropy(r * p)) / 2

    def position(self, loss: float) -> float:
        """Where a loss lies between perfect (0) and balanced (1); above 1 the discriminator is worse than blind."""
        return (loss - self.perfect_loss) / (self.balanced_loss - self.perfect_loss)


def _cross_entropy(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * math.log(p) - (1 - p) * math.log(1 - p)


class Detector(Protocol):
    """What every detector offers; the contract suite in :mod:`tips_dist.testing` holds for each.

    It is made with a :class:`Policy`, a :class:`Recipe` and the run's budget in steps.
    """

    name: ClassVar[str]

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """Take in one evaluation step; return a verdict when (and as long as) the finding holds."""
        ...

    def dump(self) -> dict[str, Any]:
        """The state as plain data (JSON)."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where :meth:`dump` left off."""
        ...


@dataclass
class BaseDetector:
    """State is whatever a detector's fields hold besides ``policy``, ``recipe`` and ``steps``; all plain numbers."""

    policy: Policy
    recipe: Recipe
    steps: int  # the run's budget
    name: ClassVar[str] = ""

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """See :class:`Detector`."""
        raise NotImplementedError

    def warming_up(self, step: int) -> bool:
        """Whether it is too early for a verdict."""
        return step < self.policy.warm_up * self.steps

    def dump(self) -> dict[str, JsonValue]:
        """The state as plain data."""
        fixed = {"policy", "recipe", "steps"}
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name not in fixed}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where :meth:`dump` left off."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class _Threshold(BaseDetector):
    """A condition that must hold for ``patience`` evaluation steps in a row; missing values neither count nor reset."""

    run: int = 0
    since: int = -1

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """(verdict, reason) if the condition holds now."""
        raise NotImplementedError

    needs: ClassVar[tuple[str, ...]] = ()

    def update(self, step: int, signals: Signals) -> Verdict | None:
        if self.warming_up(step) or any(signals.get(name) is None for name in self.needs):
            return None
        finding = self.finding(signals)
        if finding is None:
            self.run, self.since = 0, -1
            return None
        if self.run == 0:
            self.since = step
        self.run += 1
        if self.run < self.policy.patience:
            return None
        kind, reason = finding
        return Verdict(kind, reason, self.since, {name: _number(signals, name) for name in self.needs})


OWN_NUMBERS = ("generator/", "discriminator/", "gradients/", "updates/", "depth/spread_ratio", "loop/")
"""Prefixes of the networks' own numbers: losses and scores, norms of gradients and steps, the predicted depths, whose
spread is finite if and only if they are, and what a foreign loop tells (:mod:`tips_dist.watch`). Every other signal may
be undefined of a sound network."""


@dataclass
class NonFinite(BaseDetector):
    """One of the networks' own numbers (:data:`OWN_NUMBERS`) is not finite: the seed's numbers are gone for good.

    Other signals end no seed: they may be undefined at a step though the networks are sound.
    """

    name: ClassVar[str] = "non_finite"

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """Raise at once, warm-up or not."""
        bad = sorted(
            name
            for name, value in signals.items()
            if name.startswith(OWN_NUMBERS) and (value is None or not math.isfinite(value))
        )
        if not bad:
            return None
        return Verdict(NON_FINITE, f"not finite: {', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}", step)


@dataclass
class DiscriminatorDominance(_Threshold):
    """The discriminator tells real from reprojected almost perfectly, so the lifter learns nothing from it."""

    name: ClassVar[str] = "discriminator_dominance"
    needs: ClassVar[tuple[str, ...]] = ("discriminator/loss", "discriminator/accuracy")

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """Low loss for the recipe *and* high accuracy on held-out poses."""
        position = self.recipe.position(_number(signals, "discriminator/loss"))
        accuracy = _number(signals, "discriminator/accuracy")
        if position < self.policy.dominance and accuracy > self.policy.dominance_accuracy:
            return DIVERGED, f"the discriminator dominates (accuracy {accuracy:.2f} on held-out poses)"
        return None


@dataclass
class DiscriminatorFailure(_Threshold):
    """The discriminator does worse than answering blindly: its own training has broken."""

    name: ClassVar[str] = "discriminator_failure"
    needs: ClassVar[tuple[str, ...]] = ("discriminator/loss",)

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """A loss well above that of the best constant answer."""
        position = self.recipe.position(_number(signals, "discriminator/loss"))
        if position > self.policy.failure:
            return DIVERGED, f"the discriminator fails (its loss is {position:.1f} times the balanced one)"
        return None


@dataclass
class Collapse(_Threshold):
    """Depths are flat (which cheats every cycle loss) or stretched far beyond the poses' width."""

    name: ClassVar[str] = "collapse"
    needs: ClassVar[tuple[str, ...]] = ("depth/spread_ratio",)

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """The spread of depth over the spread of x, which azimuth-uniform views make equal."""
        ratio = _number(signals, "depth/spread_ratio")
        if ratio < self.policy.flat:
            return COLLAPSED, f"flat poses (depth spread is {ratio:.2f} of the x spread)"
        if ratio > self.policy.deep:
            return COLLAPSED, f"exploded poses (depth spread is {ratio:.1f} times the x spread)"
        return None


@dataclass
class Drift(BaseDetector):
    """The risk has left its best value and stays away: a one-sided CUSUM (Page 1954) on the smoothed log risk."""

    name: ClassVar[str] = "drift"
    smoothed: float | None = None
    best: float | None = None
    sum: float = 0.0
    since: int = -1

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """Accumulate what exceeds the best by more than the slack; the onset is where the sum last left zero."""
        risk = signals.get("risk/total")
        if risk is None or not math.isfinite(risk) or risk <= 0:
            return None
        self.smoothed = _smooth(self.smoothed, math.log(risk), self.policy.smoothing)
        if self.warming_up(step):
            return None
        if self.best is None or self.smoothed < self.best:
            self.best = self.smoothed
        excess = self.smoothed - self.best - self.policy.drift_slack
        if self.sum == 0 and excess > 0:
            self.since = step
        self.sum = max(0.0, self.sum + excess)
        if self.sum <= self.policy.drift_alarm:
            return None
        best, now = math.exp(self.best), math.exp(self.smoothed)
        return Verdict(
            DIVERGED, f"risk drifted from its best {best:.3g} to {now:.3g}", self.since, {"best": best, "risk": now}
        )


@dataclass
class Plateau(BaseDetector):
    """The best smoothed risk has not improved for a share of the budget: more training buys nothing.

    A run that has not begun to learn is no plateau: its risk may stay flat for long before it falls.
    """

    name: ClassVar[str] = "plateau"
    smoothed: float | None = None
    best: float | None = None
    best_step: int = 0
    first: float | None = None
    stale: int = 0  # evaluation steps since the last progress

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """The onset is the step of the last progress."""
        risk = signals.get("risk/total")
        if risk is None or not math.isfinite(risk) or risk <= 0:
            return None
        self.smoothed = _smooth(self.smoothed, math.log(risk), self.policy.smoothing)
        self.first = self.smoothed if self.first is None else self.first
        if self.best is None or self.smoothed < self.best + math.log1p(-self.policy.plateau_progress):
            self.best, self.best_step, self.stale = self.smoothed, step, 0
            return None
        self.stale += 1
        too_short = step - self.best_step < self.policy.plateau_share * self.steps
        unlearnt = self.best > self.first + math.log(max(self.policy.plateau_learnt, 1e-9))
        if self.warming_up(step) or unlearnt or too_short or self.stale < self.policy.plateau_patience:
            return None
        best = math.exp(self.best)
        return Verdict(
            PLATEAUED, f"no progress since step {self.best_step} (risk {best:.3g})", self.best_step, {"best": best}
        )


DETECTORS: tuple[type[BaseDetector], ...] = (
    NonFinite,
    Collapse,
    DiscriminatorDominance,
    DiscriminatorFailure,
    Drift,
    Plateau,
)
"""Those that judge every seed; a study may name further ones (``stopping.detectors``)."""


def _check(name: str, value: object) -> None:
    missing = [method for method in ("update", "dump", "load") if not callable(getattr(value, method, None))]
    if not isinstance(value, type) or missing:
        raise UserError(f"expected a class with update, dump and load, got {value!r:.80}")


with built_in("detectors", _check):
    for _detector in DETECTORS:
        register("detectors", _detector.name, _detector)


class Judge:
    """All detectors of one seed; the verdict is the most serious finding so far, and never gets milder."""

    def __init__(self, steps: int, recipe: Recipe, policy: Policy | None = None, further: Sequence[str] = ()) -> None:
        """Judge with the built-in detectors and ``further`` registered ones, by their names."""
        self._all: dict[str, Detector] = {}  # by the key of their state
        for kind in DETECTORS:
            self._all[kind.__name__] = kind(policy or Policy(), recipe, steps)
        for name in further:
            self._all[name] = entry("detectors", name).value(policy or Policy(), recipe, steps)
        self.verdict = Verdict()

    @property
    def detectors(self) -> list[Detector]:
        """All of them."""
        return list(self._all.values())

    def update(self, step: int, signals: Signals) -> Verdict:
        """Take in one evaluation step's signals, ``risk/total`` among them."""
        for name, detector in self._all.items():
            finding = detector.update(step, signals)
            if finding is not None and finding.kind not in KINDS:
                known = ", ".join(KINDS)
                raise UserError(f"{entry('detectors', name)}: unknown kind of verdict '{finding.kind}'; kinds: {known}")
            if finding is not None and severity(finding.kind) > severity(self.verdict.kind):
                self.verdict = finding
        return self.verdict

    def dump(self) -> dict[str, JsonValue]:
        """All state as plain data (JSON)."""
        return {
            "verdict": dataclasses.asdict(self.verdict),
            "detectors": {name: detector.dump() for name, detector in self._all.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where :meth:`dump` left off."""
        self.verdict = Verdict(**state["verdict"])
        for name, detector in self._all.items():
            detector.load(state["detectors"][name])


def _number(signals: Signals, name: str) -> float:
    value = signals[name]
    return math.nan if value is None else value


def _smooth(old: float | None, new: float, weight: float) -> float:
    return new if old is None else old + weight * (new - old)
