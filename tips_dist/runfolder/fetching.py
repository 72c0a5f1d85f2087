"""A run folder at an address: a copy of what a command needs of it."""

from __future__ import annotations

from pathlib import Path

from tips_dist.runfolder import layout
from tips_dist.storage import fetch


def fetch_run(url: str, command: str = "everything", folder: Path | None = None, patience: float = 30.0) -> Path:
    """Bring what a command reads of a run folder at an address to this machine.

    Args:
        url: of the run folder.
        command: decides which files, see :func:`tips_dist.runfolder.layout.needs`.
        folder: where to; a cache of ours by default.
        patience: seconds that storage may be away.

    Returns:
        The local folder: a copy; what a command writes there stays on this machine.

    Raises:
        UserError: there is no run folder at this address, or storage refuses.
        StorageError: storage does not answer.
    """
    return fetch(url, layout.needs(command), folder, mark=layout.STUDY.name, patience=patience)
