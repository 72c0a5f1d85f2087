"""Trials that begin at once: how many there is room for, and workers that wait for one instead of being started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import ray
from ray.tune.execution import class_cache

from tips_dist.config import Resources
from tips_dist.study.cluster import at_home, trials_at_once

LOOK_SECONDS = 5.0


class Room:
    """How many trials the cluster has places for; nodes come and go, so it is counted anew every few seconds."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._resources, self._clock = resources, clock
        self._known, self._next = 0, -float("inf")

    def __call__(self) -> int:
        """So many."""
        if self._clock() >= self._next:
            self._known = trials_at_once(self._resources, ray.nodes())
            self._next = self._clock() + LOOK_SECONDS
        return self._known


@contextlib.contextmanager
def inheriting() -> Iterator[None]:
    """Let Tune's workers on a cluster of our own do with our environment, which they inherit.

    Given variables of its own a trial would need a worker of its own, started anew, instead of one that waits.
    """
    told, passed = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    before = {**told}, {*passed}
    if at_home():
        told.clear()
        passed.clear()
    try:
        yield
    finally:
        told.update(before[0])
        passed.update(before[1])
