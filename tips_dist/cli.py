"""The command line: parse, then call one function. Heavy modules are imported by the command that needs them.

Here are its frame and the commands that make a run; :mod:`tips_dist.commands.using` has those that use what is there.

Exit codes: 0 done, 1 failed, 2 bad input (one line saying what and where), 130 interrupted (state saved, the line
that resumes is printed).
"""

from __future__ import annotations

import errno
import io
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from tips_dist import __version__
from tips_dist.commands.address import ClusterOfRun
from tips_dist.commands.datasets import data_app
from tips_dist.commands.jobs import Address as ClusterAddress
from tips_dist.commands.jobs import jobs_app
from tips_dist.commands.options import Address, Device, Json, Overrides, RunArgument, Storage, StudyFile, Track
from tips_dist.commands.output import Commands
from tips_dist.commands.plugins import Plugins
from tips_dist.commands.using import using_app
from tips_dist.escaping import plain
from tips_dist.files import StorageError, UnavailableError, UserError
from tips_dist.terminal import cleaned, plain_where_needed

app = typer.Typer(
    name="tips-dist",
    help="Stability studies of adversarial 2D-to-3D human pose lifters, judged without 3D ground truth.",
    cls=Commands,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(using_app)
app.add_typer(data_app, name="data")
app.add_typer(jobs_app, name="jobs")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tips-dist {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Stability studies of adversarial 2D-to-3D human pose lifters, judged without 3D ground truth."""


@app.command("init")
def _init(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to put it; made if it does not exist.", file_okay=False)
    ] = Path(),
) -> None:
    """Write a commented study file to start from, and say the next commands."""
    from tips_dist.commands import start as command

    command.init(folder)


@app.command("run")
def _run(
    study: StudyFile,
    runs: Annotated[Path, typer.Option(help="Where the run folder is made.")] = Path("runs"),
    overrides: Overrides = None,
    truth: Annotated[
        Path | None, typer.Option(help="Evaluate against this truth3d file after everything is decided.")
    ] = None,
    as_json: Json = False,
    address: Address = None,
    storage: Storage = None,
    track: Track = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Go on with the newest unfinished run of this very study, if any.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it asks for (trials, memory, disk, time), and start nothing.")
    ] = False,
    job: Annotated[bool, typer.Option("--job", hidden=True)] = False,
    plugin: Plugins = None,
) -> None:
    """Run a study: train, judge, stop, select, distil, and summarise."""
    if dry_run:
        from tips_dist.commands.foretelling import foretell

        foretell(study, overrides or [], as_json=as_json)
        return
    from tips_dist.commands import study as command

    command.run(
        study,
        runs,
        overrides or [],
        truth,
        as_json=as_json,
        address=address,
        storage=storage,
        track=track or [],
        go_on=go_on,
        job=job,
    )


@app.command("resume")
def _resume(
    folder: RunArgument,
    seeds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SEEDS]...", help="With --thaw: which, as TRIAL, TRIAL:SEED or a verdict; else all."),
    ] = None,
    thaw: Annotated[
        bool, typer.Option("--thaw", help="Let seeds that a verdict stopped go on from where they stopped.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option(metavar="+N", help="Give every representation N more trials.", min=1)
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="Refuse to go on unless this study file is the recorded one.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Evaluate against this truth3d file after everything is decided.")
    ] = None,
    as_json: Json = False,
    address: Address = None,
    storage: Storage = None,
    track: Track = None,
    plugin: Plugins = None,
) -> None:
    """Finish a run that was interrupted or killed, from its folder alone."""
    from tips_dist.commands import study as command

    if seeds and not thaw:
        raise UserError(f"{' '.join(seeds)}: seeds are named with --thaw alone")
    command.resume_study(
        folder,
        truth,
        trials=trials,
        study_file=study,
        as_json=as_json,
        address=address,
        storage=storage,
        thaw=list(seeds or ()) if thaw else None,
        track=track or [],
    )


@app.command("submit")
def _submit(
    study: StudyFile,
    address: ClusterAddress,
    runs: Annotated[
        str, typer.Option(help="Where run folders lie on the node of the driver; other nodes need not see it.")
    ] = "~/tips-dist-runs",
    storage: Storage = None,
    poses: Annotated[
        Path | None, typer.Option(help="The study's pose file, to send it although it lies outside the study's folder.")
    ] = None,
    overrides: Overrides = None,
    forward: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME", help="Give the driver this environment variable; repeatable."),
    ] = None,
    package: Annotated[
        bool, typer.Option("--package", help="Send this tips_dist along; else the installed one is used.")
    ] = False,
    python: Annotated[str | None, typer.Option(help="The Python to use on the cluster.")] = None,
    driver_cpus: Annotated[float, typer.Option(help="CPUs that the driver occupies.", min=0)] = 0,
    again: Annotated[bool, typer.Option("--again", help="Run anew what has succeeded already.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show the live table and the log until it ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit with the job's code.")] = False,
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Submit a study to a Ray cluster; a study that a job works on already is not submitted twice."""
    from tips_dist.commands import jobs as command
    from tips_dist.study.packing import Order

    order = Order(
        runs=runs,
        storage=storage,
        poses=poses,
        overrides=overrides or [],
        forward=forward or [],
        package=package,
        python=python,
        again=again,
        cpus=driver_cpus,
        plugins=plugin or [],
    )
    command.submit(study, address, order, follow=follow, wait=wait, as_json=as_json)


@app.command("fetch")
def _fetch(
    what: Annotated[
        str, typer.Argument(metavar="URL|JOB", help="The address of a run folder, or a job's id with --address.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The local run folder to fill.")],
    address: ClusterOfRun = None,
    as_json: Json = False,
) -> None:
    """Copy a run folder, from storage or from the cluster it works on, to this machine: to read it or to resume it."""
    from tips_dist.commands.address import fetch_whole

    fetch_whole(what, output, address, as_json=as_json)


@app.command("train")
def _train(
    study: StudyFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for this one trial; made below runs/ if not given.")
    ] = None,
    representation: Annotated[str | None, typer.Option(help="Default: the study's first.")] = None,
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Train one configuration without Ray, for debugging."""
    from tips_dist.commands import training as command

    command.train_alone(study, output, representation, overrides or [], device=device, as_json=as_json)


def main() -> None:
    """Run the command line; turn errors meant for people into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            plain_where_needed(stream)
    _listen()
    try:
        with cleaned():
            app()
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):  # and no command said more
            line = shlex.join(["tips-dist", *sys.argv[1:]])
            print(f"Interrupted; nothing is left half. Do it again with: {plain(line)}", file=sys.stderr)
        raise
    except UserError as error:
        print(f"tips-dist: {plain(error, lines=True)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, (StorageError, UnavailableError)) else 2)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):  # what no path that a person means is
            raise
        name = plain(error.filename)
        print(f"tips-dist: {name[:80]}{'…' if len(name) > 80 else ''}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def _listen() -> None:
    """Let the end of a terminal or session, and whoever stops us politely, do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    main()
