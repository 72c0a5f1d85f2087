"""The training loop with its TensorBoard writer, as trials of a study run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.monitoring import Monitor
from tips_dist.runfolder import Outcome, Trial, layout

if TYPE_CHECKING:
    from tips_dist.config import Configuration
    from tips_dist.data.store import Poses


def monitored_train(
    configuration: Configuration, seeds: Sequence[int], poses: Poses, folder: Path, **others: Any
) -> Outcome:
    """Train as :func:`tips_dist.training.loop.train` does, writing ``tensorboard/`` in the trial's folder."""
    from tips_dist.training.loop import train

    record = Trial.load(layout.TRIAL.beside(folder))
    monitor = Monitor(
        layout.EVENTS.beside(folder).parent, {"representation": record.representation, **record.parameters}
    )
    try:
        return train(configuration, seeds, poses, folder, monitor=monitor, **others)
    finally:
        monitor.close()
