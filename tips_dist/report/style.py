"""One visual language: a colour, a dash and a symbol per representation, a colour and a sign per verdict.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; dashes and symbols carry the same
distinction in a black-and-white print. Verdicts, and left and right (:mod:`tips_dist.drawing`), have colours of their
own, so that no colour means two things.
"""

from __future__ import annotations

from typing import NamedTuple

from tips_dist.stability.verdicts import KINDS, Role, kind_of


class Style(NamedTuple):
    """How a representation looks wherever it is drawn (plotly's names for dash and symbol)."""

    colour: str
    dash: str
    symbol: str


REPRESENTATION: dict[str, Style] = {
    "solo": Style("#D55E00", "solid", "circle"),
    "torso_legs": Style("#0072B2", "dash", "square"),
    "torso_legs_shared": Style("#56B4E9", "dot", "diamond"),
    "five_parts": Style("#009E73", "dashdot", "triangle-up"),
    "five_parts_shared": Style("#E69F00", "longdash", "triangle-down"),
    "left_right": Style("#CC79A7", "longdashdot", "star"),
}
OTHER = Style("#555555", "solid", "x")

_ROLE: dict[Role, tuple[str, str]] = {
    "good": ("#6B8E23", "circle"),
    "note": ("#A3A9B3", "diamond"),
    "passing": ("#2AA1B3", "hourglass"),
    "drift": ("#9A7D00", "triangle-right"),
    "bad": ("#D33682", "x"),
    "warning": ("#8A63D2", "triangle-down"),
    "gone": ("#8B6F4E", "cross"),
}
VERDICT_COLOUR = {name: _ROLE[kind.role][0] for name, kind in KINDS.items()}
STATE_SIGN: dict[str, str] = {
    "pending": "·",
    "running": "▶",
    "finished": "✓",
    "stopped": "■",
    "failed": "✗",
}


def verdict_look(verdict: str) -> tuple[str, str]:
    """Colour and symbol of a verdict, one of a newer version included."""
    return _ROLE[kind_of(verdict).role]


def style(representation: str) -> Style:
    """The style of a representation; grey for one this version does not know."""
    return REPRESENTATION.get(representation, OTHER)
