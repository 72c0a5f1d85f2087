"""Commands that read a run folder: status, summary, monitor."""

from __future__ import annotations

import sys
from pathlib import Path

from tips_dist.commands.output import console, print_json, print_record
from tips_dist.files import UserError


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
