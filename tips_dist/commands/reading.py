"""Commands that read a run folder: status, summary, monitor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist.commands.output import console, print_json, print_record
from tips_dist.files import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tips_dist.report.reading import RunFolder


def status(folder: Path, *, as_json: bool) -> None:
    """Print where a run stands."""
    from tips_dist.study.run import status as read_status

    found = read_status(folder)
    print_json(found) if as_json else print_record(found)


def summary(folder: Path, *, as_json: bool, as_markdown: bool) -> None:
    """Write summary.json and print it as tables, Markdown or JSON."""
    from tips_dist.report import summary as summaries
    from tips_dist.report import tables

    found = summaries.write_summary(folder)
    if as_json:
        print_json(found)
        return
    shown, lines = tables.representation_tables(found), tables.notes(found)
    if as_markdown:
        sys.stdout.write(tables.markdown(shown, lines))
    else:
        tables.print_tables(console(), shown, lines)


def report(folder: Path, poses: Path | None) -> None:
    """Write report.html."""
    from tips_dist.report.html import write_report
    from tips_dist.report.reading import read_run
    from tips_dist.report.summary import write_summary
    from tips_dist.study.folder import recorded_study
    from tips_dist.study.importance import importances

    run = read_run(folder)
    found = write_summary(folder)
    ranks = importances(recorded_study(run.study), found["trials"])
    path = write_report(run, found, importances=ranks, poses=_validation_poses(run, poses))
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _validation_poses(run: RunFolder, poses: Path | None) -> NDArray[np.float32] | None:
    """The normalised validation poses of a run, for its pictures; None if the file has gone and none was named."""
    from tips_dist.data.store import normalised
    from tips_dist.evaluation.evaluate import run_poses
    from tips_dist.training.loop import validation_rows

    try:
        data = run_poses(run.folder, run.study, poses)
    except UserError:
        if poses is not None:
            raise
        return None
    rows = validation_rows(data, run.study["resolved"]["training"]["validation_poses"])
    return normalised(data, rows, float(run.study["data"]["scale"]))


def monitor(folder: Path, host: str, port: int) -> None:
    """Serve TensorBoard on a run folder until interrupted."""
    from tips_dist.report.reading import read_run
    from tips_dist.report.tensorboard import launch

    read_run(folder)
    try:
        address = launch(folder / "trials", host, port)
    except OSError as error:
        raise UserError(f"--port {port}: TensorBoard cannot listen on {host}:{port} ({error})") from None
    print(f"TensorBoard on {address} (Ctrl-C ends it)", flush=True)
    from threading import Event

    Event().wait()
