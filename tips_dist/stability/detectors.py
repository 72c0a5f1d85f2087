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
from typing import Any, ClassVar

from pydantic import JsonValue

from tips_dist.config import Policy, Stopping
from tips_dist.files import UserError
from tips_dist.registry import built_in, entry, register
from tips_dist.stability import crossings
from tips_dist.stability.crossings import Crossing
from tips_dist.stability.goals import thresholds
from tips_dist.stability.online import BaseDetector, Detector, Recipe, Signals, Threshold, value_of
from tips_dist.stability.rises import Burst, Drift, Drifting, Plateau
from tips_dist.stability.verdicts import (
    COLLAPSED,
    DIVERGED,
    HEALTHY,
    KINDS,
    NON_FINITE,
    Interval,
    Verdict,
    crossing_at,
    severity,
    taints,
)

__all__ = ["DETECTORS", "OWN_NUMBERS", "BaseDetector", "Detector", "Judge", "Recipe", "Signals"]

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
class DiscriminatorDominance(Threshold):
    """The discriminator tells real from reprojected almost perfectly, so the lifter learns nothing from it."""

    name: ClassVar[str] = "discriminator_dominance"
    needs: ClassVar[tuple[str, ...]] = ("discriminator/loss", "discriminator/accuracy")

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """Low loss for the recipe *and* high accuracy on held-out poses."""
        position = self.recipe.position(value_of(signals, "discriminator/loss"))
        accuracy = value_of(signals, "discriminator/accuracy")
        if position < self.policy.dominance and accuracy > self.policy.dominance_accuracy:
            return DIVERGED, f"the discriminator dominates (accuracy {accuracy:.2f} on held-out poses)"
        return None


@dataclass
class DiscriminatorFailure(Threshold):
    """The discriminator does worse than answering blindly: its own training has broken."""

    name: ClassVar[str] = "discriminator_failure"
    needs: ClassVar[tuple[str, ...]] = ("discriminator/loss",)

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """A loss well above that of the best constant answer."""
        position = self.recipe.position(value_of(signals, "discriminator/loss"))
        if position > self.policy.failure:
            return DIVERGED, f"the discriminator fails (its loss is {position:.1f} times the balanced one)"
        return None


@dataclass
class Collapse(Threshold):
    """Depths are flat (which cheats every cycle loss) or stretched far beyond the poses' width."""

    name: ClassVar[str] = "collapse"
    needs: ClassVar[tuple[str, ...]] = ("depth/spread_ratio",)

    def finding(self, signals: Signals) -> tuple[str, str] | None:
        """The spread of depth over the spread of x, which azimuth-uniform views make equal."""
        ratio = value_of(signals, "depth/spread_ratio")
        if ratio < self.policy.flat:
            return COLLAPSED, f"flat poses (depth spread is {ratio:.2f} of the x spread)"
        if ratio > self.policy.deep:
            return COLLAPSED, f"exploded poses (depth spread is {ratio:.1f} times the x spread)"
        return None


DETECTORS: tuple[type[BaseDetector], ...] = (
    NonFinite,
    Collapse,
    DiscriminatorDominance,
    DiscriminatorFailure,
    Burst,
    Drift,
    Drifting,
    Plateau,
    Crossing,
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
    """All detectors of one seed; the verdict is the most serious finding so far, and never gets milder.

    But for what passes: while a seed is in a crossing that is its verdict, if it has no worse; afterwards it has the
    verdict that it had before.
    """

    def __init__(self, steps: int, recipe: Recipe, policy: Policy | None = None, further: Sequence[str] = ()) -> None:
        """Judge with the built-in detectors and ``further`` registered ones, by their names."""
        policy = thresholds(policy or Policy())
        self._crossing = Crossing(policy, recipe, steps)
        made: list[Detector] = [kind(policy, recipe, steps) for kind in DETECTORS if kind is not Crossing]
        self._all = {type(one).__name__: one for one in (*made, self._crossing)}  # by the key of their state on disk
        for name in further:
            self._all[name] = entry("detectors", name).value(policy, recipe, steps)
        self.lasting = Verdict()
        self.passing: Verdict | None = None
        self.crossings: list[Interval] = []  # in their order; the last may still last

    @classmethod
    def of(cls, steps: int, recipe: Recipe, stopping: Stopping) -> Judge:
        """The judge that a configuration asks for."""
        return cls(steps, recipe, thresholds(stopping.policy, stopping.goal), stopping.detectors)

    @property
    def detectors(self) -> list[Detector]:
        """All of them."""
        return list(self._all.values())

    @property
    def settled(self) -> int | None:
        """The first step at which it held one mirror solution, so that it can be chosen from there on; None so far."""
        return self._crossing.settled_step

    @property
    def verdict(self) -> Verdict:
        """What the seed is now."""
        if self.passing is not None and severity(self.passing.kind) > severity(self.lasting.kind):
            return self.passing
        if self.lasting.kind == HEALTHY and self.crossings and self.passing is None:
            return Verdict(reason=crossings.in_words(self.crossings))
        return self.lasting

    def may_choose(self, step: int) -> bool:
        """Whether a checkpoint of ``step`` may be chosen, by what is known now."""
        return self.one_sided(step) and not taints(self.verdict.kind, self.verdict.onset, step)

    def one_sided(self, step: int) -> bool:
        """Whether it held one mirror solution at ``step``, or never did."""
        return step >= (self.settled or 0) and crossing_at(self.crossings, step) is None

    def update(self, step: int, signals: Signals) -> Verdict:
        """Take in one evaluation step's signals, ``risk/total`` among them."""
        self.passing = None
        for name, detector in self._all.items():
            finding = detector.update(step, signals)
            if finding is None:
                continue
            if finding.kind not in KINDS:
                known = ", ".join(KINDS)
                raise UserError(f"{entry('detectors', name)}: unknown kind of verdict '{finding.kind}'; kinds: {known}")
            if KINDS[finding.kind].passes:
                self.passing = finding
            elif severity(finding.kind) > severity(self.lasting.kind):
                self.lasting = finding
        self.crossings = crossings.remember(self.crossings, self.passing if self._crossing.inside else None, step)
        return self.verdict

    def dump(self) -> dict[str, JsonValue]:
        """All state as plain data (JSON)."""
        return {
            "verdict": dataclasses.asdict(self.lasting),
            "passing": None if self.passing is None else dataclasses.asdict(self.passing),
            "crossings": [dataclasses.asdict(one) for one in self.crossings],
            "detectors": {name: detector.dump() for name, detector in self._all.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where :meth:`dump` left off; a detector that the state does not know begins here."""
        self.lasting = Verdict(**state["verdict"])
        passing = state.get("passing")
        self.passing = None if passing is None else Verdict(**passing)
        self.crossings = [Interval(**one) for one in state.get("crossings", ())]
        for name, detector in self._all.items():
            if name in state["detectors"]:
                detector.load(state["detectors"][name])
