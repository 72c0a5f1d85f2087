"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tips_dist.commands.address import run_folder

RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run folder, as `run` prints it, or its address (s3://…).", parser=run_folder),
]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the study file; repeatable."),
]
TruthFile = Annotated[Path, typer.Option(help="NAME.truth3d.h5; only the evaluation reads it.")]
PosesFile = Annotated[Path | None, typer.Option(help="The pose2d file, if it has moved since the run.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto (a card if torch sees one), cpu, cuda, or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster; without it Ray starts here.")]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Mirror the run folder below this address (s3://, gs://, …) while it runs."),
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", metavar="NAME", help="Copy curves and verdicts there: mlflow, wandb; repeatable."),
]
