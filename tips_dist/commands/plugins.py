"""``plugins``: what a study may name, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tips_dist.commands.output import console, print_json, say
from tips_dist.escaping import plain


def _load(files: list[Path] | None) -> list[Path] | None:
    if files:
        from tips_dist import plugins

        for file in files:
            plugins.load_file(file)
    return files


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE.py", callback=_load, help="Load this plug-in; repeatable.", envvar="TIPS_DIST_PLUGINS"
    ),
]


def show(*, as_json: bool) -> None:
    """Print everything that is registered; plug-ins that could not be loaded are said on standard error, exit 1."""
    from tips_dist import plugins
    from tips_dist.registry import HOMES

    found, broken = plugins.registered(), plugins.broken()
    if as_json:
        rows = [{"kind": one.kind, "name": one.name, "source": str(one.source)} for one in found]
        known = [{"name": p.name, "version": p.version, "digest": p.digest, "where": p.where} for p in plugins.loaded()]
        print_json({"registered": rows, "plugins": known, "broken": broken})
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table("kind", "name", "from")
        for kind in HOMES:
            sources: dict[str, list[str]] = {}
            for one in found:
                if one.kind == kind:
                    sources.setdefault(str(one.source), []).append(one.name)
            for source, names in sources.items():
                table.add_row(kind, Text(plain(", ".join(names))), Text(plain(source)))
        console().print(table)
        for line in broken:
            say(plain(line), stderr=True)
    if broken:
        raise typer.Exit(1)
