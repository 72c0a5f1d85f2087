"""The training loop with its TensorBoard writer, as trials of a study run it, one or several together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.monitoring import Monitor
from tips_dist.runfolder import Outcome, Trial, layout

if TYPE_CHECKING:
    from tips_dist.config import Configuration
    from tips_dist.data.store import Poses
    from tips_dist.training.job import Ended, Job


def monitored_train(
    configuration: Configuration, seeds: Sequence[int], poses: Poses, folder: Path, **others: Any
) -> Outcome:
    """Train as :func:`tips_dist.training.loop.train` does, writing ``tensorboard/`` in the trial's folder."""
    from tips_dist.training.loop import train

    monitor = _monitor(folder)
    try:
        return train(configuration, seeds, poses, folder, monitor=monitor, **others)
    finally:
        monitor.close()


def monitored_together(jobs: Sequence[Job], poses: Poses, ended: Ended, **others: Any) -> None:
    """Train as :func:`tips_dist.training.together.train_together` does, each job with its own ``tensorboard/``."""
    from tips_dist.training.together import train_together

    with contextlib.ExitStack() as stack:
        monitors = [stack.enter_context(contextlib.closing(_monitor(job.folder))) for job in jobs]
        watched = [replace(job, monitor=monitor) for job, monitor in zip(jobs, monitors, strict=True)]
        train_together(watched, poses, ended, **others)


def _monitor(folder: Path) -> Monitor:
    """The writer of the trial whose folder it is."""
    record = Trial.load(layout.TRIAL.beside(folder))
    about = {"representation": record.representation, **record.parameters}
    return Monitor(layout.EVENTS.beside(folder).parent, about)
