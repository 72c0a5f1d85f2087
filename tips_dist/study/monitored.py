"""The training loop with its TensorBoard writer, as trials of a study run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.files import read_json
from tips_dist.monitoring import Monitor

if TYPE_CHECKING:
    from tips_dist.config import Configuration
    from tips_dist.data.store import Poses
    from tips_dist.training.loop import Outcome


def monitored_train(
    configuration: Configuration, seeds: Sequence[int], poses: Poses, folder: Path, **others: Any
) -> Outcome:
    """Train as :func:`tips_dist.training.loop.train` does, writing ``tensorboard/`` in the trial's folder."""
    from tips_dist.training.loop import train

    record = read_json(folder / "trial.json")
    monitor = Monitor(folder / "tensorboard", {"representation": record["representation"], **record["parameters"]})
    try:
        return train(configuration, seeds, poses, folder, monitor=monitor, **others)
    finally:
        monitor.close()
