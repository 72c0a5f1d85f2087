"""Mirror crossings: a network turns from one mirror solution to the other, pose by pose, and mostly comes out well.

Mirroring every depth leaves 2D almost as it was, so both solutions look human and a run may change sides late. In
between, a share of poses is held mirrored (``mirror/mixed``, module ``agreement``): the error is half as large again,
rigidity and reprojections see nothing, and nothing must be chosen there. It passes, so nothing is ended for it either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tips_dist.stability.online import MIXED, Mixing, Signals, mixing
from tips_dist.stability.verdicts import CROSSING, Interval, Verdict

WHOSE = {"": "", "_torso": ", the torso most", "_legs": ", the legs most"}
SETTLED = 2  # evaluation steps on one side before a network can cross to the other
MOST = 16  # intervals that are remembered apart; the last takes in what comes after


@dataclass
class Crossing(Mixing):
    """More poses are mirrored than :attr:`Policy.crossing`, of a network that had settled on one side, or never did.

    It begins where mixing last left half that share behind, and ends when the mixture has (:class:`Mixing`), so that a
    share that trembles around the threshold is one crossing. Of torso and legs the more mixed counts: independent
    lifters cross alone. Missing shares change nothing.
    """

    name: ClassVar[str] = "crossing"
    settled: int = 0  # evaluation steps on one side, as far as they matter
    settled_step: int | None = None  # the first of them
    seen: int = 0  # evaluation steps, as far as they matter
    inside: bool = False
    share: float = 0.0  # now
    most: float = 0.0  # since the beginning
    whose: str = ""  # the part that is the most mixed now

    def update(self, step: int, signals: Signals) -> Verdict | None:
        """Holds from the threshold on, with the beginning that came before."""
        if shares := mixing(signals):
            self._take(step, shares)
        mirrored = f"{self.share:.0%} of poses mirrored{WHOSE[self.whose]}"
        if self.inside:
            reason = f"crosses to its mirror image since step {self.mixed_since:,}: {mirrored}"
            return Verdict(CROSSING, reason, self.mixed_since, {MIXED: self.most})
        early = self.warming_up(step) or self.seen < self.policy.patience
        if self.settled or early or self.share < self.policy.crossing:
            return None
        return Verdict(CROSSING, f"has not settled on one side of the mirror: {mirrored}", 0, {MIXED: self.most})

    def _take(self, step: int, shares: dict[str, float]) -> None:
        group = max(shares, key=lambda name: (shares[name], -len(name)))
        self.share, self.seen = shares[group], min(self.policy.patience, self.seen + 1)
        self.whose = group if self.share > 1.5 * shares.get("", self.share) else ""
        if not self.mixes(step, self.share):
            self.settled = min(SETTLED, self.settled + 1)
            self.settled_step = step if self.settled_step is None else self.settled_step
            self.inside, self.most = False, 0.0
            return
        self.most = max(self.most, self.share)
        if self.settled == SETTLED and self.share >= self.policy.crossing:
            self.inside = True


def remember(crossings: list[Interval], found: Verdict | None, step: int) -> list[Interval]:
    """A seed's crossings after an evaluation step at which the detector found ``found``."""
    last = crossings[-1] if crossings else None
    lasting = last is not None and last.end is None
    if found is None or found.onset is None:
        if last is None or not lasting:
            return crossings
        return [*crossings[:-1], Interval(last.begin, step, last.mirrored)]
    share = found.values.get(MIXED, 0.0)
    if last is None or (not lasting and len(crossings) < MOST):
        return [*crossings, Interval(found.onset, None, share)]
    return [*crossings[:-1], Interval(last.begin, None, max(share, last.mirrored))]


def in_words(crossings: list[Interval]) -> str:
    """The crossings that a seed came through, in words; empty without any."""
    if not crossings:
        return ""
    spans = ", ".join(f"{one.begin:,} to {one.end:,}" for one in crossings if one.end is not None)
    most = max(one.mirrored for one in crossings)
    return f"crossed to its mirror image at steps {spans}, {most:.0%} of poses mirrored at most"
