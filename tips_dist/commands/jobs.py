"""``submit`` and ``jobs``: a study on a Ray cluster, from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tips_dist.commands.output import Commands, console, print_json, print_record, say
from tips_dist.escaping import plain

if TYPE_CHECKING:
    from tips_dist.study.jobs import Jobs
    from tips_dist.study.packing import Order

jobs_app = typer.Typer(
    help="List, read, follow or stop submitted studies.", cls=Commands, rich_markup_mode=None, no_args_is_help=True
)

_COLUMNS = {"job": "id", "study": "study", "status": "status", "started": "started", "ended": "ended", "runs": "runs"}

Address = Annotated[
    str,
    typer.Option(help="The cluster's dashboard, http://HOST:8265.", envvar="RAY_API_SERVER_ADDRESS", show_envvar=True),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `submit` and `jobs list` print it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


def submit(study_file: Path, address: str, order: Order, *, follow: bool, wait: bool, as_json: bool) -> None:
    """Submit a study; then leave it, wait for it, or follow it."""
    from tips_dist.study.jobs import Jobs
    from tips_dist.study_file import load_study

    study = load_study(study_file, list(order.overrides))
    jobs = Jobs(address)
    found = jobs.submit(study, study_file, order)
    what = "submitted" if found.fresh else f"this study has a job already ({found.status}); nothing was submitted"
    if as_json:
        print_json({"id": found.id, "status": found.status, "fresh": found.fresh, "address": address})
    else:
        say(f"{found.id}: {what}")
    if follow or wait:
        _attend(jobs, found.id, follow=follow)
    if not as_json:
        say(f"Follow it with: tips-dist jobs logs {found.id} --follow --address {address}")


@jobs_app.command("list")
def list_(address: Address, as_json: Json = False) -> None:
    """List the studies submitted to a cluster, the newest first."""
    from tips_dist.study.jobs import Jobs

    found = Jobs(address).list()
    if as_json:
        print_json([asdict(job) for job in found])
    elif not found:
        say(f"No study was submitted to {address}.")
    else:
        from rich.table import Column, Table
        from rich.text import Text

        table = Table(*(Column(name, no_wrap=name == "job") for name in _COLUMNS), box=None, pad_edge=False)
        for job in found:
            table.add_row(*(Text(plain(getattr(job, key) or "")) for key in _COLUMNS.values()))
        console().print(table)


@jobs_app.command("status")
def _status(job: JobArgument, address: Address, as_json: Json = False) -> None:
    """Say where one job stands."""
    from tips_dist.study.jobs import Jobs

    found = Jobs(address).status(job)
    print_json(asdict(found)) if as_json else print_record(asdict(found))


@jobs_app.command("logs")
def logs(
    job: JobArgument,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends; exit with its code.")] = False,
) -> None:
    """Print what a job has said, or follow it with the live table."""
    from tips_dist.study.jobs import Jobs

    jobs = Jobs(address)
    if follow:
        _attend(jobs, job, follow=True)
    else:
        _show(jobs.logs(job).splitlines(), 0)


@jobs_app.command("stop")
def stop(job: JobArgument, address: Address) -> None:
    """Stop a job; its trials save their state, and submitting the study again goes on with it."""
    from tips_dist.study.jobs import Jobs

    stopped = Jobs(address).stop(job)
    say(f"{job}: " + ("told to stop" if stopped else "had ended already"))


def _attend(jobs: Jobs, identity: str, *, follow: bool) -> None:
    """Follow or wait, then exit with the job's code; Ctrl-C leaves the job alone.

    Raises:
        typer.Exit: always.
    """
    try:
        if follow:
            _show(jobs.follow(identity), jobs.status(identity).trials)
        code = jobs.wait(identity)
    except KeyboardInterrupt:
        line = f"tips-dist jobs stop {identity} --address {jobs.address}"
        say(f"The job goes on without us. Stop it with: {line}", stderr=True)
        raise typer.Exit(130) from None
    if code:
        say(f"tips-dist: {identity} ended with exit code {code}", stderr=True)
    raise typer.Exit(code)


def _show(lines: Iterable[str] | Iterator[str], trials: int) -> None:
    """Print a job's lines; its events feed the live table (plain lines where the output is no terminal)."""
    from tips_dist.report.live import LiveView
    from tips_dist.study.jobs import heard

    with LiveView(console(stderr=True), trials) as view:
        for line in lines:
            event = heard(line)
            say(line) if event is None else view(event)
