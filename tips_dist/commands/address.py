"""Run folders elsewhere, at an address or of a job: fetched before a command reads them, or for good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tips_dist.commands.output import print_json, say, showing
from tips_dist.files import UserError
from tips_dist.storage import fetch_file, is_address

_HEAD = f"{__name__}.head"  # in the command's context: the cluster that was named


def _remember(address: str | None) -> str | None:
    if address is not None:
        typer.main.get_current_context().meta[_HEAD] = address  # type: ignore[attr-defined]
    return address


ClusterOfRun = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="A cluster's dashboard, http://HOST:8265: RUN may then be the id of a job there.",
        envvar="RAY_API_SERVER_ADDRESS",
        is_eager=True,  # known when RUN is looked at
        callback=_remember,
    ),
]


def run_folder(text: str) -> Path:
    """The local folder of the run that was given to a command: itself, or a copy of what the command reads of it.

    Raises:
        UserError: there is no run folder at the address, or the command works in a run folder.
        StorageError: storage does not answer.
    """
    context = typer.main.get_current_context()  # type: ignore[attr-defined]
    command = str(context.info_name)
    if not is_address(text):
        head = context.meta.get(_HEAD)
        if head is None or "/" in text or Path(text).exists():
            return Path(text)
        from tips_dist.study.job_folder import fetch_job

        with showing("asking the cluster"):
            folder = fetch_job(head, text, command)
        say(f"Reading a copy of the run of {text}: {folder}", stderr=True)
        return folder
    if command == "resume":
        name = text.partition("?")[0].rstrip("/").rpartition("/")[2]
        raise UserError(f"{text}: resume works in a local folder; first 'tips-dist fetch {text} -o runs/{name}'")
    if text.partition("?")[0].endswith(".safetensors"):
        return fetch_file(text)
    from tips_dist.runfolder.fetching import fetch_run  # heavy: not for every --help

    with showing("looking at storage"):
        folder = fetch_run(text, command)
    say(f"Reading a copy of {text}: {folder}", stderr=True)
    return folder


def fetch_whole(what: str, output: Path, head: str | None, *, as_json: bool) -> None:
    """Copy a whole run folder from an address, or of a job of the cluster ``head``; what is there already is kept."""
    if is_address(what):
        from tips_dist.runfolder.fetching import fetch_run

        with showing("looking at storage"):
            folder = fetch_run(what, folder=output)
    elif head is not None:
        from tips_dist.study.job_folder import fetch_job

        with showing("asking the cluster"):
            folder = fetch_job(head, what, folder=output)
    else:
        raise UserError(
            f"{what}: expected an address such as s3://BUCKET/runs/NAME, or a job's id with --address http://HEAD:8265"
        )
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if as_json:
        print_json({"folder": str(folder), "files": len(files), "bytes": size})
    else:
        say(f"{folder}: {len(files)} files, {size / 1e6:.1f} MB")
