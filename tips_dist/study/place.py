"""What a place tells the studies that run there, by environment variables: a study file is the same everywhere."""

from __future__ import annotations

import math
import os

from tips_dist.files import UserError, shown

GRACE = "TIPS_DIST_GRACE"  # seconds between a scheduler's notice (SIGTERM) and its kill, as its recipe sets them
WAIT = "TIPS_DIST_WAIT"  # seconds that nodes get to come
NODES = "TIPS_DIST_NODES"  # how many there are to be
GRACE_SECONDS = 6.0  # on a laptop: whoever presses Ctrl-C wants the prompt back
WAIT_SECONDS = 900.0  # a cloud's machine, its image pulled


def grace_seconds() -> float:
    """How long running trials may take to save their state after they were asked to stop.

    Raises:
        UserError: ``TIPS_DIST_GRACE`` is no number of seconds.
    """
    return _number(GRACE, GRACE_SECONDS)


def wait_seconds() -> float:
    """How long to wait for nodes that are still coming (see :func:`grace_seconds`)."""
    return _number(WAIT, WAIT_SECONDS)


def expected_nodes() -> int:
    """How many nodes are to join; 0 where nobody knows (see :func:`grace_seconds`)."""
    return int(_number(NODES, 0.0))


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 10**7:
        raise UserError(f"{name}={shown(text, 40)}: expected a number, such as {name}=120")
    return value
