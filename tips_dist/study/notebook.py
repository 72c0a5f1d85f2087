"""A study from Python: objects in, a run folder out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from tips_dist.config import Study
from tips_dist.runfolder import RunFolder
from tips_dist.study import run as studies
from tips_dist.study.records import StudyEvent


def run_study(
    study: Study,
    *,
    runs: Path | str = "runs",
    base: Path | str = ".",
    address: str | None = None,
    progress: Callable[[StudyEvent], None] | None = None,
) -> RunFolder:
    """Run a study to its end: train, judge, stop, select, distil; the same as ``tips-dist run`` on its file.

    Args:
        study: what to study; ``load_study`` reads one from a file.
        runs: where the run folder is made.
        base: what a relative ``data.poses`` is relative to.
        address: of a Ray cluster; None works on this machine.
        progress: hears of every event.

    Raises:
        UserError: the study names what is not registered, its data is unusable, or it fits on no node.
        StorageError: the disk is full or not writable.
        Interrupted: Ctrl-C; ``tips-dist resume`` goes on.
    """
    text = yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    run = studies.start(
        study,
        study_path=Path(base) / f"{study.name}.yaml",
        text=text,
        runs=Path(runs),
        address=address,
        progress=progress,
    )
    return RunFolder(run)
