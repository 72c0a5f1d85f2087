"""``python -m tips_dist.training.follower HOST PORT RANK SIZE DEVICE``: one worker of a trial, started by rank 0."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tips_dist.training.execution import follow


def attend(arguments: Sequence[str], patience: float = 300) -> None:
    """Follow; when rank 0 is gone, which says why itself, end with one line."""
    host, port, rank, size, device = arguments
    try:
        follow(host, int(port), int(rank), int(size), device, patience)
    except RuntimeError as error:
        sys.exit(f"worker {rank}: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    attend(sys.argv[1:])
