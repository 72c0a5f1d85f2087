"""What every detector is made of: the recipe that thresholds depend on, the protocol, and a base that keeps state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import JsonValue

from tips_dist.config import Policy
from tips_dist.stability.verdicts import Verdict

Signals = Mapping[str, float | None]
MIXED = "mirror/mixed"
GROUPS = ("", "_torso", "_legs")  # the whole and the parts that signals are measured of


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

    def dump(self) -> dict[str, JsonValue]:
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
class Threshold(BaseDetector):
    """A condition that must hold for ``patience`` evaluation steps in a row; missing values neither count nor reset."""

    run: int = 0
    since: int = -1

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """(verdict, reason) if the condition holds now."""
        raise NotImplementedError

    needs: ClassVar[tuple[str, ...]] = ()

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """See :class:`Detector`."""
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
        return Verdict(kind, reason, self.since, {name: value_of(signals, name) for name in self.needs})


def mixing(signals: Signals) -> dict[str, float]:
    """The shares of mirrored poses that are known, of the whole ("") and of the parts."""
    found = {group: signals.get(MIXED + group) for group in GROUPS}
    return {group: share for group, share in found.items() if share is not None and math.isfinite(share)}


@dataclass
class Mixing(BaseDetector):
    """Knows since when poses are held mirrored, and until when nothing should be concluded from that.

    The share of mirrored poses is underestimated while a network leaves a mixture, and the average of its weights lags
    behind. So a mixture counts for a third of its length longer than it is seen. A network begins as one.
    """

    mixed_since: int = 0  # the first step of the present or last mixture
    mixed_until: int = 0  # its last step that was seen
    mixture: bool = True  # whether it lasts
    rising: int = -1  # the step at which the share last left half the threshold behind

    def mixes(self, step: int, share: float | None) -> bool:
        """Take in the share at an evaluation step: whether the network is, or may still be, a mixture.

        It becomes one at :attr:`Policy.crossing`, since when it had half of that, and is one down to half of that.
        """
        least = self.policy.crossing / 2
        if share is None or share < least:
            self.rising = -1
        elif self.rising < 0:
            self.rising = step
        if share is not None and share >= (least if self.mixture else 2 * least):
            self.mixed_since = self.mixed_since if self.mixture else self.rising
            self.mixed_until, self.mixture = step, True
        else:
            self.mixture = self.mixture and 3 * (step - self.mixed_until) < self.mixed_until - self.mixed_since
        return self.mixture


def value_of(signals: Signals, name: str) -> float:
    """A signal that is there; NaN where it was not finite."""
    value = signals[name]
    return math.nan if value is None else value


def smooth(old: float | None, new: float, weight: float) -> float:
    """An exponential average that begins with its first value."""
    return new if old is None else old + weight * (new - old)
