"""Where networks run: a card if there is one, or what was asked for, as torch names it; on how many threads."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tips_dist.files import UserError

if TYPE_CHECKING:
    import torch

AUTO = "auto"
PAYS = 3e8  # operations of a product of matrices, some milliseconds of a core, from which on more threads pay


def device_for(asked: str | None) -> str:
    """The device that ``--device`` means: ``auto`` (or nothing) takes a card where torch sees one.

    Raises:
        UserError: there is no such device; the message says which there are.
    """
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked in (None, AUTO):
        return "cuda" if cards else "cpu"
    found = re.fullmatch(r"(cpu)|cuda(?::(\d{1,4}))?", asked)
    if found is None:
        raise UserError(f"--device {asked[:40]}: expected auto, cpu, cuda, or cuda:N for card number N")
    if found[1] or int(found[2] or 0) < cards:
        return asked
    there = f"it sees {cards}, from cuda:0" if cards else "it sees none; `tips-dist doctor` says why"
    raise UserError(f"--device {asked}: torch sees no such card: {there}")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settle(device: torch.device) -> None:
    """Wait until a card has done what it was told, so that a clock read now tells what that took."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


@contextlib.contextmanager
def threads_for(rows: int, width: int) -> Iterator[None]:
    """In the body torch takes the threads that pay for layers of ``width`` on ``rows`` poses: one, or all it had.

    Threads that have little to do cost more than they give, and on a busy machine they wait for each other for
    minutes. What one thread computes is the same on every machine of a kind, however many cores it has.
    """
    import torch

    before = torch.get_num_threads()
    if 2 * rows * width**2 < PAYS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
