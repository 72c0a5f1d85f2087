"""The verdicts: every kind that a seed can end with, and all that depends on the kind. One table; the rest asks it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

HEALTHY, PLATEAUED, DIVERGED, COLLAPSED, NON_FINITE = "healthy", "plateaued", "diverged", "collapsed", "non_finite"

Ends = Literal["never", "plateau", "divergence", "always"]
Role = Literal["good", "note", "bad", "warning", "gone"]


@dataclass(frozen=True)
class Kind:
    """What a kind of verdict means, wherever it is met."""

    name: str
    severity: int  # a seed keeps the most severe finding
    ends: Ends  # whether it ends a seed: never, always, or where that part of the stopping policy is on
    sound: bool  # the seed's risk counts as observed; an unsound seed is censored and counts as broken
    tainted: bool  # checkpoints later than the onset are not to be trusted
    role: Role  # of its colour; the palette belongs to whoever draws
    short: str  # for narrow columns
    meaning: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(HEALTHY, 0, "never", True, False, "good", "ok", "nothing was found"),
        Kind(PLATEAUED, 1, "plateau", True, False, "note", "pl", "more training buys nothing"),
        Kind(DIVERGED, 2, "divergence", False, True, "bad", "div", "it left its best and did not come back"),
        Kind(COLLAPSED, 3, "divergence", False, True, "warning", "col", "depths are flat or stretched without bound"),
        Kind(NON_FINITE, 4, "always", False, False, "gone", "nan", "the networks' numbers are no longer finite"),
    )
}
UNKNOWN = Kind("unknown", -1, "never", False, False, "gone", "?", "this version does not know the verdict")


@dataclass(frozen=True)
class Verdict:
    """What a detector found: the kind, why in words, since which step, and the values behind it."""

    kind: str = HEALTHY
    reason: str = ""
    onset: int | None = None
    values: dict[str, float] = field(default_factory=dict)


class StoppingPolicy(Protocol):
    """The part of a configuration that says which verdicts end a seed (``config.Stopping``)."""

    @property
    def divergence(self) -> str:
        """``default`` or ``off``."""
        ...

    @property
    def plateau(self) -> str:
        """``default`` or ``off``."""
        ...


def kind_of(name: str) -> Kind:
    """The table's row; :data:`UNKNOWN` for the verdict of a newer version."""
    return KINDS.get(name, UNKNOWN)


def severity(name: str) -> int:
    """How severe a verdict is; 0 is healthy."""
    return kind_of(name).severity


def is_sound(name: str) -> bool:
    """Whether a seed with this verdict counts as one that trained well."""
    return kind_of(name).sound


def ends_seed(name: str, stopping: StoppingPolicy) -> bool:
    """Whether the stopping policy ends a seed with this verdict."""
    ends = kind_of(name).ends
    if ends in ("never", "always"):
        return ends == "always"
    return (stopping.plateau if ends == "plateau" else stopping.divergence) == "default"


def taints(name: str, onset: int | None, step: int) -> bool:
    """Whether a checkpoint of ``step`` is not to be trusted, because it came after the onset of this verdict."""
    return kind_of(name).tainted and onset is not None and step > onset
