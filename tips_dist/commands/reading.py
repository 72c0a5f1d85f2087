"""Commands that read a run folder: status, summary, report, compare, monitor."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist.commands.output import console, print_json, print_record, say, showing
from tips_dist.files import UserError
from tips_dist.phases import Phase, phase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tips_dist.runfolder import RunFolder
    from tips_dist.study.records import StudyEvent
    from tips_dist.study.status import Status

FOLLOW_SECONDS = 1.0


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print where a run stands."""
    from tips_dist.study.run import status as read_status

    found = read_status(folder)
    print_json(found.plain()) if as_json else print_record(found.plain())


def follow_run(folder: Path) -> None:
    """Show a run until nobody works on it any more."""
    from tips_dist.report.live import LiveView
    from tips_dist.study.run import status as read_status

    found = read_status(folder)
    with LiveView(console(), sum(found.trials.values())) as view:
        shown: dict[str, StudyEvent] = {}
        while True:
            for event in events(folder, found):
                if shown.get(event.trial) != event:
                    shown[event.trial] = event
                    view(event)
            if found.working is None:
                break
            if found.done:
                view.phase(Phase(found.doing))
            time.sleep(FOLLOW_SECONDS)
            found = read_status(folder)
    say(found.doing[0].upper() + found.doing[1:])


def events(folder: Path, found: Status) -> list[StudyEvent]:
    """What a study would have told of each trial by now."""
    from tips_dist.runfolder import read_trials
    from tips_dist.stability.statistic import trial_risk
    from tips_dist.study.records import StudyEvent

    running = {entry.trial: entry for entry in found.running}
    known = []
    for trial in read_trials(folder):
        seeds, now = trial.seed_outcomes, running.get(trial.id)
        risk = trial_risk((seed.best_risk, seed.verdict) for seed in seeds)
        known.append(
            StudyEvent(
                trial.id,
                trial.representation,
                trial.state,
                now.step if now else max((seed.stopped_step for seed in seeds), default=0),
                trial.steps,
                now.risk if now else risk,
                now.verdicts if now else dict(Counter(seed.verdict for seed in seeds)),
                now.steps_per_second if now else None,
                trial.error,
            )
        )
    return known


def compare(folders: Sequence[Path], *, as_json: bool, as_markdown: bool) -> None:
    """Print studies side by side."""
    from tips_dist.report import comparing, formats
    from tips_dist.report.summary import summarise
    from tips_dist.runfolder import RunFolder

    if len(folders) < 2:
        raise UserError("compare: give two or more run folders")
    runs = [RunFolder(folder) for folder in folders]
    summaries = [summarise(run) for run in runs]
    differences = comparing.run_differences(runs, summaries)
    answer = comparing.comparison_lines(differences)
    shown = [*comparing.difference_table(differences), *comparing.comparison_tables(runs, summaries)]
    lines = comparing.comparison_notes(runs)
    if as_json:
        print_json([found.plain() for found in summaries])
    elif as_markdown:
        sys.stdout.write(formats.markdown(shown, lines, answer))
    else:
        formats.print_answer(console(), answer)
        formats.print_tables(console(), shown, lines)


@dataclasses.dataclass(frozen=True)
class Show:
    """What ``summary`` shows and how."""

    by: str = "representation"
    sort: str | None = None
    descending: bool = False
    where: Sequence[str] = ()
    style: str = "table"


def summary(folder: Path, show: Show) -> None:
    """Print a run folder's summary as tables, Markdown, LaTeX or JSON; the whole one is written to summary.json."""
    from tips_dist.report import choosing, formats, tables
    from tips_dist.report.answer_words import answer_lines
    from tips_dist.report.summary import summarise, write_summary
    from tips_dist.runfolder import RunFolder
    from tips_dist.study.importance import importances

    found = write_summary(folder)
    if show.where:
        found = summarise(choosing.where(RunFolder(folder), show.where))
    if show.sort:
        trials = choosing.by(found.trials, show.sort, descending=show.descending)
        found = found.model_copy(update={"trials": trials})
    if show.style == "json":
        print_json(found.plain())
        return
    if show.by == "trial":
        shown = [tables.trial_table(found)]
    else:
        ranks = importances(RunFolder(folder).study.study, found.trials)
        shown = [
            *tables.representation_tables(found), *tables.difference_tables(found), *tables.importance_table(ranks),
            *tables.time_table(found.time),
        ]  # fmt: skip
    lines, answer = tables.notes(found), answer_lines(found)
    if show.style == "table":
        formats.print_answer(console(), answer)
        formats.print_tables(console(), shown, lines)
    elif show.style == "csv":
        sys.stdout.write(formats.comma_separated(shown, answer))
    else:
        sys.stdout.write((formats.markdown if show.style == "markdown" else formats.latex)(shown, lines, answer))


def report(folder: Path, poses: Path | None) -> None:
    """Write report.html, and the summary that it shows; neither where a record is damaged."""
    from tips_dist.report.html import write_report
    from tips_dist.report.summary import summarise
    from tips_dist.runfolder import RunFolder, layout
    from tips_dist.study.importance import importances

    run = RunFolder(folder)
    with showing("reading the run"):
        found = summarise(run)
        ranks = importances(run.study.study, found.trials)
    with showing("writing the report"):
        path = write_report(run, found, importances=ranks, poses=_validation_poses(run, poses))
        found.save(layout.SUMMARY.at(folder))
    say(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def report_together(folders: Sequence[Path], output: Path) -> None:
    """Write one page that compares several runs."""
    from tips_dist.report.comparison_page import write_comparison
    from tips_dist.report.summary import summarise
    from tips_dist.runfolder import RunFolder

    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("report: a run folder is named twice; it would be compared with itself")
    runs, summaries = [RunFolder(folder) for folder in folders], []
    with showing("reading the runs"), phase("summarising", len(runs)) as told:
        for count, run in enumerate(runs):
            summaries.append(summarise(run))
            told(count + 1)
    with showing("writing the comparison"):
        path = write_comparison(output, runs, summaries)
    say(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _validation_poses(run: RunFolder, poses: Path | None) -> NDArray[np.float32] | None:
    """The normalised validation poses of a run, for its pictures; None if the file has gone and none was named."""
    from tips_dist.data.store import normalised
    from tips_dist.training.validation import validation_rows

    try:
        data = run.poses(poses)
    except UserError:
        if poses is not None:
            raise
        return None
    rows = validation_rows(data, run.study.resolved.training.validation_poses)
    return normalised(data, rows, run.study.data.scale)


def monitor(folder: Path, host: str, port: int, seeds: str | None) -> None:
    """Serve TensorBoard on a run folder until interrupted."""
    from tips_dist.report.tensorboard import launch
    from tips_dist.runfolder import RunFolder

    _ = RunFolder(folder).study
    try:
        with showing("starting TensorBoard"):
            board = launch(folder, host, port, seeds)
    except OSError as error:
        raise UserError(f"--port {port}: TensorBoard cannot listen on {host}:{port} ({error})") from None
    if board.note:
        say(board.note)
    say(f"TensorBoard on {board.address}?smoothing=0 (Ctrl-C ends it)")
    from threading import Event

    Event().wait()
