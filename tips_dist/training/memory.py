"""Freed memory is kept for the next step instead of being given back to the system, which would zero it again."""

from __future__ import annotations

import ctypes
import functools

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's mallopt(3): larger blocks are mapped anew; more free heap is returned
LARGEST = 2**30


@functools.cache
def keep_freed() -> bool:
    """Tell the C library to keep freed blocks of up to 1 GiB; False where it is not glibc, which changes nothing.

    A step frees and asks for the same tensors of a few megabytes over and over; page faults were about 5 % of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, LARGEST))
