"""``data``: make, import or inspect a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tips_dist.commands.output import Commands, print_found, showing
from tips_dist.commands.plugins import Plugins
from tips_dist.files import JSON, UserError
from tips_dist.study_yaml import load_yaml

data_app = typer.Typer(
    help="Make, import or inspect a data set.", cls=Commands, rich_markup_mode=None, no_args_is_help=True
)

Prefix = Annotated[Path, typer.Option("--output", "-o", help="PREFIX of the files to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


@data_app.command("generate")
def _generate(
    output: Prefix,
    poses: Annotated[int, typer.Option(help="How many poses.", min=1)] = 20_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    cameras: Annotated[int, typer.Option(help="How many see each sequence at the same moments.", min=1, max=64)] = 2,
    as_json: Json = False,
) -> None:
    """Generate plausible human motion: PREFIX.pose2d.h5 and PREFIX.truth3d.h5."""
    from tips_dist.data.procedural import write

    with showing(f"generating {poses:,} poses"):
        made = write(output, poses, seed, cameras)
    print_found(made, as_json=as_json)


@data_app.command("import")
def import_(
    format: Annotated[
        str, typer.Argument(metavar="FORMAT", help="The data set's layout, such as cmu, or auto to have it recognised.")
    ],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The file or folder to import.")],
    output: Prefix,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the importer; repeatable."),
    ] = None,
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Convert a data set to PREFIX.pose2d.h5 and, where it has 3D, PREFIX.truth3d.h5."""
    from tips_dist.data.importers import import_data

    chosen = _options(options or [])
    with showing(f"reading {source}"):
        found = import_data(format, source, output, chosen)
    print_found(found, as_json=as_json)


@data_app.command("inspect")
def _inspect(
    file: Annotated[Path, typer.Argument(metavar="POSES", help="A pose2d file.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw mean poses from front and side, and some rows, into this PNG file.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything was found.")] = False,
    as_json: Json = False,
) -> None:
    """Examine a data set: counts, splits, ranges, and what is wrong with it, the worst first."""
    from tips_dist.data import inspection

    with showing(f"inspecting {file}"):
        found = inspection.inspect(file)
        if picture is not None:
            inspection.draw_picture(file, picture)
    if picture is not None:
        found["picture"] = str(picture)
    print_found(found, as_json=as_json)
    if strict and found["findings"]:
        raise typer.Exit(1)


def _options(texts: list[str]) -> dict[str, JSON]:
    values: dict[str, JSON] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--set {text}: expected key=value, for example cameras=4")
        values[key.strip()] = load_yaml(value, f"--set {text}")
    return values
