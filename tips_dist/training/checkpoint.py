"""Resumable state in one safetensors file: tensors, and everything else as its JSON metadata. Atomic; two are kept.

Files are written by one background thread, one state after the other, so that training goes on meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tips_dist.files import UserError
from tips_dist.models import write_tensors
from tips_dist.runfolder import CheckpointRecord, layout
from tips_dist.runfolder.record import NewerVersionError
from tips_dist.runfolder.weights import METADATA

KEPT = 2
_NAME = r"(thaw-\d+-)?step-\d+\.safetensors"


class CheckpointWriter:
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


def save(folder: Path, tensors: dict[str, Tensor], record: CheckpointRecord) -> None:
    """Write a state and drop all but the latest two.

    Raises:
        StorageError: the write failed; the states written before are untouched.
    """
    write_tensors(folder / layout.checkpoint_name(record.step, record.round), tensors, record)
    for path in _files(folder)[:-KEPT]:
        path.unlink(missing_ok=True)


def load(folder: Path) -> tuple[dict[str, Tensor], CheckpointRecord] | None:
    """The latest state that can be read, or ``None``; a damaged file is passed over for the one before it.

    Raises:
        UserError: no state can be read, and one is from a newer version: starting anew would throw its work away.
    """
    newer: UserError | None = None
    for path in reversed(_files(folder)):
        try:
            with safe_open(str(path), framework="pt") as file:
                record = CheckpointRecord.parse(file.metadata()[METADATA], str(path))
                return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118 (not a dict)
        except NewerVersionError as error:
            newer = newer or error
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, UserError):
            continue
    if newer is not None:
        raise newer
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if re.fullmatch(_NAME, path.name))
