"""Run folders at an address: fetched before a command reads them, or for good."""

from __future__ import annotations

from pathlib import Path

import typer

from tips_dist.commands.output import print_json, say, showing
from tips_dist.files import UserError
from tips_dist.storage import fetch_file, is_address


def run_folder(text: str) -> Path:
    """The local folder of the run that was given to a command: itself, or a copy of what the command reads of it.

    Raises:
        UserError: there is no run folder at the address, or the command works in a run folder.
        StorageError: storage does not answer.
    """
    if not is_address(text):
        return Path(text)
    context = typer.main.get_current_context()  # type: ignore[attr-defined]
    command = str(context.info_name)
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


def fetch_whole(url: str, output: Path, *, as_json: bool) -> None:
    """Copy a whole run folder from an address; files that are there already, unchanged, are kept."""
    if not is_address(url):
        raise UserError(f"{url}: expected an address such as s3://BUCKET/runs/NAME")
    from tips_dist.runfolder.fetching import fetch_run

    with showing("looking at storage"):
        folder = fetch_run(url, folder=output)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if as_json:
        print_json({"folder": str(folder), "files": len(files), "bytes": size})
    else:
        say(f"{folder}: {len(files)} files, {size / 1e6:.1f} MB")
