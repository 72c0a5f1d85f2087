"""Workers that hang are found by their missing signs of life, and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tips_dist.config import Study
from tips_dist.files import UserError
from tips_dist.runfolder import Alive, Trial, layout
from tips_dist.study.reasons import Failures


class Watched(Protocol):
    """The driver, as far as it is asked here."""

    study: Study
    run: Path
    failures: Failures

    def training(self) -> Iterable[Trial]:
        """The trials that workers work on."""
        ...


class Heartbeats(tune.Callback):  # type: ignore[misc]
    """Finds workers that hang (no sign of life) and kills them, so that Tune starts their trials again."""

    def __init__(self, driver: Watched, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver, self._clock = driver, clock
        self._limit = driver.study.resources.heartbeat_seconds
        self._seen: dict[str, tuple[int, float]] = {}  # our trial id -> (mtime in ns, when it was new to us)
        self._before: dict[str, int] = {}  # our trial id -> mtime that an earlier worker left behind
        self._next = 0.0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker takes trials on: what an earlier one left in their folders says nothing."""
        for identity in trial.config["trials"]:
            self._seen.pop(identity, None)
            self._before[identity] = _changed(layout.ALIVE.at(self._driver.run, identity))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Trials wait for a worker again, however long: what the last one left in their folders says nothing."""
        self.on_trial_start(iteration, trials, trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at every running trial, a few times per limit."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._limit / 5
        for trial in list(self._driver.training()):
            path = layout.ALIVE.at(self._driver.run, trial.id)
            if self.hangs(trial.id, _changed(path), now):
                self._kill(path)

    def hangs(self, identity: str, changed: int, now: float) -> bool:
        """Whether a running worker's file is older than the limit.

        Age is counted by our own monotonic clock, from when we saw the file change: wall clocks jump and differ.

        Args:
            identity: our trial id.
            changed: the file's modification time, in ns; 0 if it is not there (not started, or storage is away).
            now: seconds on our clock.
        """
        if changed in (0, self._before.get(identity, 0)):
            self._seen.pop(identity, None)
            return False
        before = self._seen.get(identity)
        if before is None or before[0] != changed:
            self._seen[identity] = (changed, now)
            return False
        return now - before[1] > self._limit

    def _kill(self, path: Path) -> None:
        try:
            alive = Alive.load(path)
        except UserError:
            return
        self._seen.pop(path.parent.name, None)
        self._driver.failures.hung(path.parent.name, self._limit)
        if alive.node == ray.get_runtime_context().get_node_id():
            _kill_process(alive.pid)
        else:
            where = NodeAffinitySchedulingStrategy(alive.node, soft=False)
            ray.remote(_kill_process).options(num_cpus=0, scheduling_strategy=where).remote(alive.pid)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _kill_process(pid: int) -> None:
    """Kill a Ray worker on this node; a process id that meanwhile means something else is left alone."""
    with contextlib.suppress(OSError):
        if b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
