"""Start TensorBoard on the trials of a run, in this process."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path

from tips_dist.runfolder import layout

RELOAD_SECONDS = 10


def launch(run: Path, host: str = "127.0.0.1", port: int = 6006) -> str:
    """Serve a run's events from a background thread and return the address.

    Runs are called as the trials are ("solo-000", "solo-000/seed1"): TensorBoard looks at a temporary folder of links.
    There may be no trial yet; new ones appear as they are written.

    Raises:
        OSError: the port is taken or the host cannot be bound.
    """
    from tensorboard import program

    board = program.TensorBoard()
    folder = tempfile.TemporaryDirectory(prefix="tips-dist-tensorboard-")
    links = Path(folder.name)
    link(run, links)
    board.configure(logdir=str(links), host=host, port=port or None, reload_interval=RELOAD_SECONDS)
    try:
        address = str(board.launch())
    except program.TensorBoardServerException as error:
        folder.cleanup()
        raise OSError(str(error)) from error
    threading.Thread(target=_keep_linking, args=(run, links, folder), name="links", daemon=True).start()
    return address


def link(run: Path, links: Path) -> None:
    """Make a link to the events of every trial that has none yet, named as the trial."""
    for trial in sorted((run / layout.TRIALS).glob("*")):
        events = layout.EVENTS.at(run.resolve(), trial.name).parent
        if events.is_dir() and not (links / trial.name).is_symlink():
            with contextlib.suppress(FileExistsError):
                (links / trial.name).symlink_to(events, target_is_directory=True)


def _keep_linking(run: Path, links: Path, keep: object) -> None:
    """Until the process ends; ``keep`` holds the folder for as long."""
    while not threading.Event().wait(RELOAD_SECONDS):
        with contextlib.suppress(OSError):
            link(run, links)
