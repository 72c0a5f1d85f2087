"""The command line: parse, then call one function. Heavy modules are imported by the command that needs them.

Exit codes: 0 done, 1 failed, 2 bad input (one line saying what and where), 130 interrupted (state saved, the line
that resumes is printed).
"""

from __future__ import annotations

import enum
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
from tips_dist.commands.address import run_folder
from tips_dist.commands.datasets import data_app
from tips_dist.commands.jobs import Address as ClusterAddress
from tips_dist.commands.jobs import jobs_app
from tips_dist.commands.output import Commands
from tips_dist.commands.plugins import Plugins
from tips_dist.escaping import plain
from tips_dist.files import StorageError, UserError
from tips_dist.terminal import cleaned


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


app = typer.Typer(
    name="tips-dist",
    help="Stability studies of adversarial 2D-to-3D human pose lifters, judged without 3D ground truth.",
    cls=Commands,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
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
    job: Annotated[bool, typer.Option("--job", hidden=True)] = False,
    plugin: Plugins = None,
) -> None:
    """Run a study: train, judge, stop, select, distil, and summarise."""
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
        str, typer.Option(help="Where run folders lie on the cluster: a place that all its nodes share.")
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
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of a run folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The local run folder to fill.")],
    as_json: Json = False,
) -> None:
    """Copy a run folder from storage to this machine, to read it or to resume it here."""
    from tips_dist.commands import address

    address.fetch_whole(url, output, as_json=as_json)


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


@app.command("status")
def _status(
    folder: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing it until the run is done.")] = False,
    as_json: Json = False,
) -> None:
    """Say where a run stands, from its folder alone."""
    from tips_dist.commands import reading as command

    command.follow_run(folder) if follow else command.show_status(folder, as_json=as_json)


@app.command("summary")
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
) -> None:
    """Print the tables of a study and write summary.json."""
    from tips_dist.commands import reading as command

    asked = {"json": as_json, "markdown": as_markdown, "latex": as_latex, "csv": as_csv}
    style = next((name for name, wanted in asked.items() if wanted), "table")
    command.summary(folder, command.Show(by.value, sort, descending, where or [], style))


@app.command("report")
def _report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A run folder; several are compared.", parser=run_folder)
    ],
    poses: PosesFile = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Of several runs: the page to write.", dir_okay=False)
    ] = Path("comparison.html"),
    plugin: Plugins = None,
) -> None:
    """Write report.html, the whole study on one page that opens from disk; of several runs, one that compares them."""
    from tips_dist.commands import reading as command

    if len(folders) == 1:
        command.report(folders[0], poses)
    else:
        command.report_together(folders, output)


@app.command("compare")
def _compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Two or more run folders.", parser=run_folder)
    ],
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Put two or more studies side by side."""
    from tips_dist.commands import reading as command

    command.compare(folders, as_json=as_json, as_markdown=as_markdown)


@app.command("monitor")
def _monitor(
    folder: RunArgument,
    port: Annotated[int, typer.Option(help="0 takes any free port.", min=0, max=65535)] = 6006,
    host: Annotated[str, typer.Option(help="What to bind; other machines see it only if told so.")] = "127.0.0.1",
    seeds: Annotated[
        str | None,
        typer.Option(metavar="TRIAL|all|none", help="Whose seeds to show one by one; all where they are few."),
    ] = None,
) -> None:
    """Start TensorBoard on a run folder, while it runs or later; the study's health comes first."""
    from tips_dist.commands import reading as command

    command.monitor(folder, host, port, seeds)


@app.command("select")
def _select(folder: RunArgument, as_json: Json = False, plugin: Plugins = None) -> None:
    """Choose checkpoints and teachers again, without truth."""
    from tips_dist.commands import deciding as command

    command.select_candidates(folder, as_json=as_json)


@app.command("audit")
def _audit(
    folder: RunArgument,
    policy: Annotated[
        Path | None, typer.Option(help="YAML with thresholds to try instead of the defaults.", dir_okay=False)
    ] = None,
    goal: Annotated[str | None, typer.Option(help="How much error may be risked: 0.5 % to 5 %.")] = None,
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Would stopping have killed the best? Replays a stopping policy over the recorded histories."""
    from tips_dist.commands import deciding as command

    command.audit(folder, policy, goal, as_json=as_json)


@app.command("distill")
def _distill(
    folder: RunArgument,
    poses: PosesFile = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Train the student from the selected teachers again, from 2D alone."""
    from tips_dist.commands import deciding as command

    command.distill_run(folder, poses, device)


@app.command("evaluate")
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


@app.command("scorecard")
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
    plugin: Plugins = None,
) -> None:
    """How good were the decisions? Replays selection and stopping against true errors, beside trivial baselines.

    Several runs are shown one by one, then together. Writes nothing into them.
    """
    from tips_dist.commands import evaluating as command

    command.show_scorecard(folders, truth, poses, policy, as_json=as_json, output=output)


@app.command("lift")
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


@app.command("export")
def _export(
    weights: Annotated[Path, typer.Argument(metavar="STUDENT", help="student.safetensors, or a candidate's.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".onnx, or .pt2 (torch.export).")],
    as_json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Export a network that lifts pixels to 3D, checked against PyTorch, with its model card."""
    from tips_dist.commands import weights as command

    command.export_network(weights, output, as_json=as_json)


@app.command("doctor")
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


@app.command("track")
def _track(
    folder: RunArgument,
    to: Annotated[list[str], typer.Option("--to", metavar="NAME", help="A tracker: mlflow, wandb; repeatable.")],
    plugin: Plugins = None,
) -> None:
    """Copy a run's curves, verdicts and summary to MLflow or Weights & Biases."""
    from tips_dist.trackers import track

    track(folder, to)


@app.command(name="plugins")
def plugins_(plugin: Plugins = None, as_json: Json = False) -> None:
    """List what is registered, kind by kind, and where it comes from."""
    from tips_dist.commands import plugins as command

    command.show(as_json=as_json)


def main() -> None:
    """Run the command line; turn errors meant for people into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets a ? for what it does not know
            stream.reconfigure(errors="replace")
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
        sys.exit(1 if isinstance(error, StorageError) else 2)
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
