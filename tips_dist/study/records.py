"""Working in a run folder: events, patience with storage that is away for a moment."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tips_dist.files import StorageError
from tips_dist.patience import try_again

PATIENCE_SECONDS = 60.0
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

T = TypeVar("T")


@dataclass(frozen=True)
class StudyEvent:
    """Something happened to a trial; for live views. Made on the driver, in the order things became known."""

    trial: str
    representation: str
    state: str  # a trial's state, or "queued"
    step: int = 0
    steps: int = 0
    risk: float | None = None  # median over the seeds of the best risk so far
    verdicts: Mapping[str, int] = field(default_factory=dict)  # verdict -> number of seeds
    steps_per_second: float | None = None  # seed-steps
    error: str | None = None


def patiently(action: Callable[[], T], patience: float | None = None) -> T:
    """Do ``action``; while the run folder's storage is away, try again for up to ``patience`` seconds.

    A full, read-only or forbidden disk is not waited for: somebody has to act. ``action`` must be safe to repeat.

    Raises:
        StorageError: storage did not come back, or is full or read-only.
    """
    try:
        return try_again(
            action,
            PATIENCE_SECONDS if patience is None else patience,
            errors=(StorageError, OSError),
            hopeless=_hopeless,
            longest=4.0,
        )
    except OSError as error:
        raise StorageError(f"{error.filename or 'run folder'}: storage failed: {error.strerror}") from error


def _hopeless(error: Exception) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in _HOPELESS
