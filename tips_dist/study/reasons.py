"""Why a trial's worker failed, in words: Ray's own errors say much, and little of what a person can act on.

Ray 2.60 does not tell a kill from a crash or an exit: a worker that is gone has one text, whatever signal or exit code
ended it. It tells its own memory monitor, nodes that died, errors that were raised, and workers that never started.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.schedulers import FIFOScheduler

from tips_dist.files import shown

REMEDY = "submit with --package, or give all nodes the same image or runtime environment"
SMALLER = "take a larger node, resources.max_concurrent or resources.cpus for fewer trials at a time, or fewer seeds"
_RAISED = re.compile(r"^(?:[\w.]+\.)?([A-Z]\w+): (.*)$", re.MULTILINE)  # the last line of a traceback
_MEMORY = re.compile(r"used / ([\d.]+ ?[KMGT]i?B) limit")
_ADDRESS = re.compile(r"\bip[:=] ?([0-9a-f.:]*[0-9a-f])", re.IGNORECASE)


def reason_words(text: str, host: str = "", *, kernel: bool = False) -> str:
    """What ended a worker, in one line that says what to do where that is known.

    Args:
        text: of the error that Ray raised.
        host: where the worker ran.
        kernel: whether the kernel has ended processes for want of memory there meanwhile.
    """
    where = f" on {host}" if host else ""
    kind, message = [("", ""), *_RAISED.findall(text)][-1]
    if kind in ("UserError", "StorageError", "WorkerLost"):
        return f"{shown(message, 400)}{f' (node {host})' if host else ''}"
    if kind in ("ModuleNotFoundError", "ImportError"):
        return f"a package is missing{where}: {shown(message)}; {REMEDY}"
    if "low on memory" in text:
        found = _MEMORY.search(text)
        has = f" ({found[1]})" if found else ""
        return f"its node ran out of memory{has}, so Ray ended its worker{where}; {SMALLER}"
    if "worker startup repeatedly failed" in text:
        return f"no worker could be started{where}: a broken Python environment there, or the machine is too busy"
    if re.search(r"\bnode has died|node was terminated|node .{0,80}(?:died|dead|unreachable)", text):
        return f"its node died{where}, or its connection"
    if kernel:
        return f"its node ran out of memory, so the kernel ended its worker{where}; {SMALLER}"
    if "SYSTEM_ERROR" in text or "died" in text:
        return (
            f"its worker died{where}: killed by somebody or by the kernel for want of memory (dmesg there tells), "
            "or crashed"
        )
    return f"{kind}: {shown(message, 300)}{where}" if kind else f"{shown(text, 300)}{where}"


class Actors(RayActorManager):  # type: ignore[misc]
    """Takes a worker that Ray ended for want of memory as one that has died; Tune's own gives the whole study up."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


class Failures(FIFOScheduler):  # type: ignore[misc]
    """Hears from Tune each time that a trial's worker fails, before anybody decides what becomes of the trial.

    It schedules nothing beyond what Tune does by itself: a scheduler is the only one whom Tune tells in time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard: defaultdict[str, list[str]] = defaultdict(list)  # our trial id -> what each failure was
        self._hung: dict[str, str] = {}
        self._kernel = kernel_kills()

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note what ended a trial's worker."""
        text = last_error(trial)
        self.hear(trial.config["trials"], text, host_in(text))
        super().on_trial_error(tune_controller, trial)

    def hear(self, trials: Sequence[str], text: str, host: str = "") -> None:
        """Note one failure of the worker of our trials."""
        kills = kernel_kills()
        ours = host in ("", socket.gethostname())
        hung = [words for identity in trials if (words := self._hung.pop(identity, None)) is not None]
        words = hung[0] if hung else reason_words(text, host, kernel=ours and kills > self._kernel)
        self._kernel = kills
        for identity in trials:
            self._heard[identity].append(words)

    def hung(self, identity: str, seconds: float) -> None:
        """The trial's worker is killed now, since it showed no sign of life for so long."""
        self._hung[identity] = f"its worker hung (no sign of life for {seconds:g} s) and was killed"

    def told(self, identity: str) -> str:
        """Why the trial failed: what its last failure was, how often, and what others were."""
        words = self._heard.pop(identity, [])
        if not words:
            return "its worker failed, and Ray does not say why"
        times = Counter(words)
        last = words[-1]
        others = "".join(f"; before, {_times(n)}: {one}" for one, n in times.items() if one != last)
        return f"{last} ({_times(times[last])}){others}" if len(words) > 1 else last


def last_error(trial: Any) -> str:
    """The text of the newest error of one of Tune's trials."""
    with contextlib.suppress(OSError, TypeError):
        return re.split(r"^Failure # \d+ .*$", Path(trial.error_file).read_text(), flags=re.MULTILINE)[-1].strip()
    return ""


def host_in(text: str) -> str:
    """The host that an error of Ray speaks of, by name if Ray knows one; empty if it speaks of none."""
    found = _ADDRESS.search(text)
    if found is None:
        return ""
    nodes = ray.nodes() if ray.is_initialized() else []
    return next((str(n["NodeManagerHostname"]) for n in nodes if n["NodeManagerAddress"] == found[1]), found[1])


def kernel_kills() -> int:
    """How many processes the kernel of this machine has ended for want of memory, in all or in our control group."""
    found = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError, ValueError):
            rows = (line.split() for line in Path(path).read_text().splitlines())
            found += sum(int(row[1]) for row in rows if row[0] == "oom_kill")
    return found


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
