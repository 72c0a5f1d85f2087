"""Trials that begin at once: how many there is room for."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray

from tips_dist.config import Resources
from tips_dist.study.cluster import places

LOOK_SECONDS = 5.0


class Room:
    """How many trials the cluster has places for; nodes come and go, so it is counted anew every few seconds."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._resources, self._clock = resources, clock
        self._known, self._next = 0, -float("inf")

    def __call__(self) -> int:
        """So many."""
        if self._clock() >= self._next:
            self._known = places(self._resources, ray.nodes())
            self._next = self._clock() + LOOK_SECONDS
        return self._known
