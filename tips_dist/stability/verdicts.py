"""The verdicts: every kind that a seed can end with, and all that depends on the kind. One table; the rest asks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

HEALTHY, PLATEAUED, CROSSING, DRIFTING = "healthy", "plateaued", "crossing", "drifting"
DIVERGED, COLLAPSED, NON_FINITE = "diverged", "collapsed", "non_finite"

Ends = Literal["never", "plateau", "divergence", "always"]
Role = Literal["good", "note", "passing", "drift", "bad", "warning", "gone"]


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
    passes: bool = False  # a seed can leave it, and then has the verdict that it had before


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(HEALTHY, 0, "never", True, False, "good", "ok", "nothing was found"),
        Kind(PLATEAUED, 1, "plateau", True, False, "note", "pl", "more training buys nothing"),
        Kind(
            CROSSING, 2, "never", True, False, "passing", "cr", "it turns from one mirror solution to the other", True
        ),
        Kind(DRIFTING, 3, "plateau", True, True, "drift", "dr", "it grows slowly worse than its best"),
        Kind(DIVERGED, 4, "divergence", False, True, "bad", "div", "it left its best and did not come back"),
        Kind(COLLAPSED, 5, "divergence", False, True, "warning", "col", "depths are flat or stretched without bound"),
        Kind(NON_FINITE, 6, "always", False, False, "gone", "nan", "the networks' numbers are no longer finite"),
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


@dataclass(frozen=True)
class Interval:
    """A crossing that a seed went through, or is in."""

    begin: int  # the first evaluation step inside
    end: int | None  # the first after it; None: it lasts
    mirrored: float  # the largest share of mirrored poses, 0 to 0.5


class Span(Protocol):
    """An :class:`Interval`, or a record of one."""

    @property
    def begin(self) -> int:
        """The first evaluation step inside."""
        ...

    @property
    def end(self) -> int | None:
        """The first after it; None: it lasts."""
        ...


CrossingT = TypeVar("CrossingT", bound=Span)


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


def crossing_at(crossings: Iterable[CrossingT], step: int) -> CrossingT | None:
    """The crossing that ``step`` lies inside, so that nothing is chosen there; None outside."""
    return next((one for one in crossings if one.begin <= step and (one.end is None or step < one.end)), None)
