"""Start TensorBoard on a run: the study, its trials and, where they are few or asked for, its seeds."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tips_dist.files import UserError
from tips_dist.report.board import StudyBoard
from tips_dist.runfolder import RunFolder, layout

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 10
FEW_SEEDS = 24  # of a study: so many are shown one by one without being asked for
ALL, NONE = "all", "none"

Shows = Callable[[str], bool]  # whether the seeds of a trial are shown


@dataclass(frozen=True)
class Board:
    """A TensorBoard that serves: where, and what it leaves out in words."""

    address: str
    note: str


def launch(run: Path, host: str = "127.0.0.1", port: int = 6006, seeds: str | None = None) -> Board:
    """Serve a run's events from a background thread.

    TensorBoard looks at a temporary folder: "study" and "study/solo" are written there from the histories, "solo-000"
    is links to the trial's events, "solo-000/seed1" to a seed's. There may be no trial yet; new ones appear as they
    are written.

    Args:
        run: the run folder.
        host: what to bind.
        port: likewise; 0 takes any free port.
        seeds: whose seeds are shown one by one: a trial, ``all`` or ``none``; None shows all where they are few.

    Raises:
        UserError: there is no such trial.
        OSError: the port is taken or the host cannot be bound.
    """
    from tensorboard import program

    board = program.TensorBoard()
    shows, note = _seeds_shown(run, seeds)
    folder = tempfile.TemporaryDirectory(prefix="tips-dist-tensorboard-")
    view = Path(folder.name)
    study = StudyBoard(run.resolve(), view)
    _refresh(run, view, study, shows)
    board.configure(logdir=str(view), host=host, port=port or None, reload_interval=RELOAD_SECONDS)
    try:
        address = str(board.launch())
    except program.TensorBoardServerException as error:
        folder.cleanup()
        raise OSError(str(error)) from error
    keep = threading.Thread(target=_keep_up, args=(run, view, study, shows, folder), name="study board", daemon=True)
    keep.start()
    return Board(address, note)


def _seeds_shown(run: Path, wanted: str | None) -> tuple[Shows, str]:
    """Which trials show their seeds, and what to say of the others."""
    if wanted == ALL:
        return lambda trial: True, ""
    if wanted == NONE:
        return lambda trial: False, ""
    found = RunFolder(run)
    if wanted is not None:
        found.trial(wanted)
        return lambda trial: trial == wanted, ""
    study = found.study.study
    seeds = study.search.trials * len(study.representations) * study.seeds
    if seeds <= FEW_SEEDS:
        return lambda trial: True, ""
    return lambda trial: False, f"{seeds} seeds are shown together; --seeds TRIAL, or all, shows them one by one"


def link(run: Path, view: Path, shows: Shows) -> None:
    """Make a link to every file of events that has none yet, in folders that are named as trials and seeds."""
    for trial in sorted((run / layout.TRIALS).glob("*")):
        events = layout.EVENTS.at(run.resolve(), trial.name).parent
        for file in sorted(events.rglob("events.out.tfevents.*")):
            place = view / trial.name / file.relative_to(events)
            if (file.parent == events or shows(trial.name)) and not place.is_symlink():
                place.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    place.symlink_to(file)


def _refresh(run: Path, view: Path, study: StudyBoard, shows: Shows) -> None:
    try:
        link(run, view, shows)
        study.refresh()
    except OSError as error:
        logger.warning("TensorBoard shows nothing new of %s: %s", run, error)


def _keep_up(run: Path, view: Path, study: StudyBoard, shows: Shows, keep: object) -> None:
    """Until the process ends; ``keep`` holds the folder for as long."""
    while not threading.Event().wait(RELOAD_SECONDS):
        with contextlib.suppress(UserError):
            _refresh(run, view, study, shows)
