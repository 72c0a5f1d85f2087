"""The commands that use what is there, run folders, networks, this machine: parse, then call one function."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from tips_dist.commands.address import ClusterOfRun, run_folder
from tips_dist.commands.options import Device, Json, PosesFile, RunArgument, TruthFile
from tips_dist.commands.plugins import Plugins

using_app = typer.Typer()  # without a name: its commands stand among those of the program


class LiftSize(enum.StrEnum):
    """What is taken for a person's size in the image (see :mod:`tips_dist.lifting`)."""

    trained = "trained"
    mean = "mean"
    each = "each"


class Signs(enum.StrEnum):
    """Whose depth signs a lift takes (see :mod:`tips_dist.pose_signs`)."""

    network = "network"
    pose = "pose"


class GroupBy(enum.StrEnum):
    """What a row of a summary stands for."""

    representation = "representation"
    trial = "trial"


@using_app.command("status")
def _status(
    folder: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing it until the run is done.")] = False,
    as_json: Json = False,
    address: ClusterOfRun = None,
) -> None:
    """Say where a run stands, from its folder alone."""
    from tips_dist.commands import reading as command

    command.follow_run(folder) if follow else command.show_status(folder, as_json=as_json)


@using_app.command("summary")
def _summary(
    folder: RunArgument,
    by: Annotated[GroupBy, typer.Option(help="A row per representation or per trial.")] = GroupBy.representation,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort trials by risk, error, stopped_step, a parameter, ...")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="Largest first.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Only trials like representation=solo or training.generator_lr<3e-4."),
    ] = None,
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX tables (booktabs).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV; a spreadsheet reads no cell as a formula.")] = False,
    address: ClusterOfRun = None,
) -> None:
    """Print the tables of a study and write summary.json."""
    from tips_dist.commands import reading as command

    asked = {"json": as_json, "markdown": as_markdown, "latex": as_latex, "csv": as_csv}
    style = next((name for name, wanted in asked.items() if wanted), "table")
    command.summary(folder, command.Show(by.value, sort, descending, where or [], style))


@using_app.command("report")
def _report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A run folder; several are compared.", parser=run_folder)
    ],
    poses: PosesFile = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Of several runs: the page to write.", dir_okay=False)
    ] = Path("comparison.html"),
    address: ClusterOfRun = None,
    plugin: Plugins = None,
) -> None:
    """Write report.html, the whole study on one page that opens from disk; of several runs, one that compares them."""
    from tips_dist.commands import reading as command

    if len(folders) == 1:
        command.report(folders[0], poses)
    else:
        command.report_together(folders, output)


@using_app.command("compare")
def _compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Two or more run folders.", parser=run_folder)
    ],
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    address: ClusterOfRun = None,
) -> None:
    """Put two or more studies side by side."""
    from tips_dist.commands import reading as command

    command.compare(folders, as_json=as_json, as_markdown=as_markdown)


@using_app.command("monitor")
def _monitor(
    folder: RunArgument,
    port: Annotated[int, typer.Option(help="0 takes any free port.", min=0, max=65535)] = 6006,
    host: Annotated[str, typer.Option(help="What to bind; other machines see it only if told so.")] = "127.0.0.1",
    seeds: Annotated[
        str | None,
        typer.Option(metavar="TRIAL|all|none", help="Whose seeds to show one by one; all where they are few."),
    ] = None,
    address: ClusterOfRun = None,
) -> None:
    """Start TensorBoard on a run folder, while it runs or later; the study's health comes first."""
    from tips_dist.commands import reading as command

    command.monitor(folder, host, port, seeds)


@using_app.command("select")
def _select(folder: RunArgument, as_json: Json = False, plugin: Plugins = None) -> None:
    """Choose checkpoints and teachers again, without truth."""
    from tips_dist.commands import deciding as command

    command.select_candidates(folder, as_json=as_json)


@using_app.command("audit")
def _audit(
    folder: RunArgument,
    policy: Annotated[
        Path | None, typer.Option(help="YAML with thresholds to try instead of the defaults.", dir_okay=False)
    ] = None,
    goal: Annotated[str | None, typer.Option(help="How much error may be risked: 0.5 % to 5 %.")] = None,
    as_json: Json = False,
    address: ClusterOfRun = None,
    plugin: Plugins = None,
) -> None:
    """Would stopping have killed the best? Replays a stopping policy over the recorded histories."""
    from tips_dist.commands import deciding as command

    command.audit(folder, policy, goal, as_json=as_json)


@using_app.command("distill")
def _distill(
    folder: RunArgument,
    poses: PosesFile = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Train the student from the selected teachers again, from 2D alone."""
    from tips_dist.commands import deciding as command

    command.distill_run(folder, poses, device)


@using_app.command("evaluate")
def _evaluate(
    what: Annotated[
        Path,
        typer.Argument(metavar="RUN|WEIGHTS", help="A run folder, or one .safetensors file.", parser=run_folder),
    ],
    truth: TruthFile,
    poses: Annotated[
        Path | None, typer.Option(help="The pose2d file; for a run only if it has moved, for weights always.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of weights: train, validation or test.")] = "test",
    device: Device = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Of weights: also write this JSON.")] = None,
    as_json: Json = False,
    address: ClusterOfRun = None,
    plugin: Plugins = None,
) -> None:
    """Measure a run, or one network's weights, against 3D truth; decides nothing.

    A run gets its evaluation.json. Weights may be measured on any data set, also one they never saw.
    """
    from tips_dist.commands import evaluating as command

    if what.is_dir() or what.suffix != ".safetensors":
        command.evaluate(what, truth, poses, device=device, as_json=as_json)
    else:
        command.evaluate_network(what, truth, poses, split, output, device=device, as_json=as_json)


@using_app.command("scorecard")
def _scorecard(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or their addresses.", parser=run_folder)
    ],
    truth: TruthFile,
    poses: PosesFile = None,
    policy: Annotated[
        Path | None, typer.Option(help="YAML with thresholds to try instead of the defaults.", dir_okay=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the numbers as JSON.")] = None,
    as_json: Json = False,
    address: ClusterOfRun = None,
    plugin: Plugins = None,
) -> None:
    """How good were the decisions? Replays selection and stopping against true errors, beside trivial baselines.

    Several runs are shown one by one, then together. Writes nothing into them.
    """
    from tips_dist.commands import evaluating as command

    command.show_scorecard(folders, truth, poses, policy, as_json=as_json, output=output)


@using_app.command("lift")
def _lift(
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="student.safetensors, or a candidate's.")],
    poses: Annotated[
        Path, typer.Argument(metavar="POSES", help="pose2d HDF5, COCO keypoint JSON, .npz, or .csv of one pose.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="3D poses: .npz, .json or .csv.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the first poses into this PNG file.")] = None,
    animate: Annotated[Path | None, typer.Option(help="Animate the poses in this GIF file.")] = None,
    size: Annotated[
        LiftSize | None,
        typer.Option(help="What is taken for a person's size in the image; chosen by the file if not given."),
    ] = None,
    minimum_score: Annotated[
        float, typer.Option(help="Leave out people with a COCO joint below this score.", min=0, max=1)
    ] = 0.3,
    signs: Annotated[
        Signs, typer.Option(help="Depth signs: the network's recorded ones, or told pose by pose (knees, elbows).")
    ] = Signs.network,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write how far the student's teachers would be apart, joint by joint.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Lift 2D poses of a file to root-relative 3D; one unit is the mean root-to-head distance."""
    from tips_dist.commands import weights as command

    command.lift_poses(
        student,
        poses,
        output,
        size=None if size is None else size.value,
        minimum_score=minimum_score,
        picture=picture,
        animation=animate,
        signs="pose" if signs is Signs.pose else "network",
        uncertainty=uncertainty,
        device=device,
        as_json=as_json,
    )


@using_app.command("export")
def _export(
    weights: Annotated[Path, typer.Argument(metavar="STUDENT", help="student.safetensors, or a candidate's.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".onnx, or .pt2 (torch.export).")],
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Export a network that lifts pixels to 3D, checked against PyTorch, with its model card."""
    from tips_dist.commands import weights as command

    command.export_network(weights, output, as_json=as_json)


@using_app.command("doctor")
def _doctor(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY]", help="Also check what this study needs.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders will lie.")] = Path("runs"),
    storage: Annotated[str | None, typer.Option(metavar="URL", help="Try this storage.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A cluster: http://HOST:8265, or auto or HOST:PORT to join and ask every node.")
    ] = None,
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Check Python, torch, Ray, clocks, disks, storage and data, and say what to do."""
    from tips_dist.commands import doctor as command

    command.doctor(study, runs, storage, address, as_json=as_json)


@using_app.command("track")
def _track(
    folder: RunArgument,
    to: Annotated[list[str], typer.Option("--to", metavar="NAME", help="A tracker: mlflow, wandb; repeatable.")],
    address: ClusterOfRun = None,
    plugin: Plugins = None,
) -> None:
    """Copy a run's curves, verdicts and summary to MLflow or Weights & Biases."""
    from tips_dist.trackers import track

    track(folder, to)


@using_app.command(name="plugins")
def plugins_(plugin: Plugins = None, as_json: Json = False) -> None:
    """List what is registered, kind by kind, and where it comes from."""
    from tips_dist.commands import plugins as command

    command.show(as_json=as_json)
