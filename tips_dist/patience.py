"""Patience with what is away for a moment: the one loop that tries again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FIRST_PAUSE = 0.25  # seconds; every further one is twice as long


def try_again(
    action: Callable[[], T],
    seconds: float,
    *,
    errors: tuple[type[Exception], ...],
    hopeless: Callable[[Exception], bool],
    longest: float = 8.0,
) -> T:
    """Do ``action``; where it fails, do it again for up to ``seconds``. It must be safe to repeat.

    An attempt that itself took longer than ``seconds`` shows that things worked meanwhile, so the time starts anew.

    Args:
        action: what to do.
        seconds: to go on trying, from the first failure on.
        errors: what counts as a failure; everything else passes through.
        hopeless: says of a failure that waiting will not help.
        longest: pause between two attempts, in seconds.

    Raises:
        Exception: the last failure, as it was.
    """
    pause, first_failure = FIRST_PAUSE, 0.0
    while True:
        begun = time.monotonic()
        try:
            return action()
        except errors as error:
            now = time.monotonic()
            if not first_failure or now - begun > seconds:
                pause, first_failure = FIRST_PAUSE, now
            if hopeless(error) or now + pause - first_failure > seconds:
                raise
        time.sleep(pause)
        pause = min(2 * pause, longest)
