"""Commands about data sets: generate, import, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tips_dist.commands.output import print_json, print_record
from tips_dist.files import UserError


def generate(prefix: Path, poses: int, seed: int, *, as_json: bool) -> None:
    """Write a procedural data set."""
    from tips_dist.data.procedural import write

    _show(write(prefix, poses, seed), as_json)


def import_(format: str, source: Path, prefix: Path, options: list[str], *, as_json: bool) -> None:
    """Import a data set."""
    from tips_dist.data.importers import import_data

    _show(import_data(format, source, prefix, _options(options)), as_json)


def inspect(file: Path, picture: Path | None, *, as_json: bool) -> None:
    """Print what a pose file holds."""
    from tips_dist.data import inspection

    found = inspection.inspect(file)
    if picture is not None:
        inspection.draw(file, picture)
        found["picture"] = str(picture)
    _show(found, as_json)


def _options(texts: list[str]) -> dict[str, Any]:
    values = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--set {text}: expected key=value, for example cameras=4")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text}: the value is not a number, word or list") from None
    return values


def _show(found: dict[str, Any], as_json: bool) -> None:
    print_json(found) if as_json else print_record(found)
