"""Resumable state in one safetensors file: tensors, and everything else as its JSON metadata. Atomic; two are kept.

Files are written by one background thread, one state after the other, so that training goes on meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tips_dist.models import write_tensors

KEPT = 2


class Writer:
    """Does one writing job at a time in the background; an error surfaces at the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Start ``job`` when the one before it is done, so that at most one state waits in memory.

        Raises:
            StorageError: the job before failed.
        """
        self.finish()
        self._last = self._pool.submit(job)

    def check(self) -> None:
        """Raise the error of a job that has already failed; waits for nothing."""
        if self._last is not None and self._last.done():
            self.finish()

    def finish(self) -> None:
        """Wait until everything is on disk; raise the last job's error."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Wait for what is being written and end the thread; errors go unreported, as something else went wrong."""
        self._pool.shutdown(wait=True)


def save(folder: Path, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write the state at ``step`` and drop all but the latest two.

    Raises:
        StorageError: the write failed; the states written before are untouched.
    """
    write_tensors(folder / f"step-{step:09d}.safetensors", tensors, record)
    for path in _files(folder)[:-KEPT]:
        path.unlink(missing_ok=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The latest state that can be read, or ``None``; a damaged file is passed over for the one before it."""
    for path in reversed(_files(folder)):
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                return tensors, json.loads(file.metadata()["record"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return None


def _files(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+\.safetensors", path.name)]
    return sorted(found)
