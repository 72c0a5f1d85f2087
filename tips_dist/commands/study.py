"""``run`` and ``resume``: the live view around a study, then its summary."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tips_dist import plugins, trackers
from tips_dist.commands.output import console, print_json, say, showing
from tips_dist.files import UserError
from tips_dist.mirror import mirror_once
from tips_dist.phases import listening

if TYPE_CHECKING:
    from tips_dist.commands.evaluating import AtTheEnd
    from tips_dist.config import Study
    from tips_dist.runfolder import Summary
    from tips_dist.study.records import StudyEvent
    from tips_dist.study.run import Conclude

OnEvent = Callable[["StudyEvent"], None]
Work = Callable[[OnEvent, "Conclude | None"], Path]


def run(
    study_file: Path,
    runs: Path,
    overrides: list[str],
    truth: Path | None,
    *,
    as_json: bool,
    address: str | None,
    storage: str | None = None,
    track: Sequence[str] = (),
    go_on: bool = False,
    job: bool = False,
) -> None:
    """Run a study from its file; ``go_on`` with an unfinished run of it, if there is one; as a ``job`` of a cluster."""
    from tips_dist.study import run as studies
    from tips_dist.study_file import load_study

    if job:
        from tips_dist.study.packing import arrive

        arrive()
    study = load_study(study_file, overrides)
    text = study_file.read_text()
    _check_truth(truth)
    begun = studies.unfinished(study, runs.expanduser(), storage) if go_on or job else None

    def work(view: OnEvent, conclude: Conclude | None) -> Path:
        if begun is not None:
            if job:
                _say_where(begun)
            poses = studies.open_recorded(begun, study, study_file.parent)
            return studies.resume(
                begun,
                address=address,
                progress=view,
                conclude=conclude,
                poses=poses,
                storage=storage,
                track=track,
            )
        return studies.start(
            study,
            study_path=study_file,
            text=text,
            overrides=overrides,
            runs=runs.expanduser(),
            address=address,
            progress=view,
            conclude=conclude,
            storage=storage,
            track=track,
            made=_say_where if job else None,
        )

    _follow(work, _trials(study), begun, truth, as_json, job=job, track=track)


def resume_study(
    folder: Path,
    truth: Path | None,
    *,
    trials: int | None,
    study_file: Path | None,
    as_json: bool,
    address: str | None,
    storage: str | None = None,
    thaw: list[str] | None = None,
    track: Sequence[str] = (),
) -> None:
    """Finish a run from its folder, perhaps with more trials than it was started with."""
    from tips_dist.runfolder import RunFolder
    from tips_dist.study import run as studies

    _check_truth(truth)
    study = RunFolder(folder).study.study
    more = (trials or 0) * len(study.representations)

    def work(view: OnEvent, conclude: Conclude | None) -> Path:
        return studies.resume(
            folder,
            trials=trials,
            study_path=study_file,
            address=address,
            progress=view,
            conclude=conclude,
            storage=storage,
            thaw=thaw,
            track=track,
        )

    _follow(work, _trials(study) + more, folder, truth, as_json, track=track)


def _follow(
    work: Work,
    trials: int,
    folder: Path | None,
    truth: Path | None,
    as_json: bool,
    *,
    job: bool = False,
    track: Sequence[str] = (),
) -> None:
    from tips_dist.study.run import StudyInterrupted
    from tips_dist.study.sessions import timed

    try:
        with timed(before=time.process_time()), _at_the_end(truth) as evaluation:
            with _view(trials, _ended(folder), job=job) as view:
                folder = work(view, evaluation.conclude if evaluation else None)
            found = sum_up(short(folder), evaluation)
        finish(short(folder), found, as_json=as_json)
        trackers.track(folder, track, summary_alone=True)
    except KeyboardInterrupt as interrupt:
        folder = getattr(interrupt, "run", folder)
        if folder is not None:
            foreign = [word for one in plugins.loaded() if one.text is not None for word in ("--plugin", one.where)]
            words = ["tips-dist", "resume", str(short(folder)), *(["--truth", str(truth)] if truth else []), *foreign]
            line = shlex.join(words)
            saved = interrupt.words() if isinstance(interrupt, StudyInterrupted) else "the state is saved"
            say(f"Interrupted; {saved}. Go on with: {line}", stderr=True)
            raise typer.Exit(130) from None
        raise


def _say_where(run: Path) -> None:
    """Tell whoever reads the log of a job where its run folder lies (study/job_folder.py reads it there)."""
    from tips_dist.study.packing import WORKS_IN

    print(f"{WORKS_IN}{run.resolve()}", flush=True)


@contextlib.contextmanager
def _at_the_end(truth: Path | None) -> Iterator[AtTheEnd | None]:
    if truth is None:
        yield None
        return
    from tips_dist.commands.evaluating import AtTheEnd

    with AtTheEnd(truth) as evaluation:
        yield evaluation


def _ended(folder: Path | None) -> list[StudyEvent]:
    """The trials that an earlier driver ended, which this one will not speak of."""
    from tips_dist.commands.reading import events
    from tips_dist.report.live import DONE
    from tips_dist.study.status import status

    with contextlib.suppress(UserError):  # a damaged folder, which resuming mends or refuses by itself
        return [] if folder is None else [event for event in events(folder, status(folder)) if event.state in DONE]
    return []


@contextlib.contextmanager
def _view(trials: int, known: Sequence[StudyEvent], *, job: bool) -> Iterator[OnEvent]:
    """The live table; a job prints its events instead, for the table of whoever follows it."""
    if job:
        from tips_dist.study.jobs import Announcer

        yield Announcer()
        return
    from tips_dist.report.live import LiveView

    with LiveView(console(stderr=True), trials) as view, listening(view.phase):
        for event in known:
            view(event)
        yield view


def sum_up(folder: Path, evaluation: AtTheEnd | None) -> Summary:
    """Evaluate if there is truth (everything is decided by now), and summarise."""
    from tips_dist.report import summary

    if evaluation is not None:
        with showing("evaluating", folder):
            evaluation.evaluate(folder)
    with showing("summarising", folder):
        return summary.write_summary(folder)


def finish(folder: Path, found: Summary, *, as_json: bool) -> None:
    """Say what was found and what was written."""
    from tips_dist.report import formats, tables
    from tips_dist.report.answer_words import answer_lines

    copy = mirror_once(folder)
    if as_json:
        print_json(found.plain())
        return
    formats.print_tables(console(), tables.representation_tables(found), tables.notes(found))
    for name, what in _WRITTEN.items():
        if (folder / name).exists():
            say(f"  {folder / name}: {what}")
    if copy is not None:
        say(f"  {copy}: a copy of the whole folder")
    say("")
    formats.print_answer(console(), answer_lines(found))


_WRITTEN = {
    "trials": "records, checkpoints and TensorBoard files of every trial",
    "selection.json": "the chosen checkpoints and why",
    "student/student.safetensors": "the distilled whole-pose lifter",
    "evaluation.json": "errors against truth",
    "summary.json": "the numbers above",
}


def short(path: Path) -> Path:
    """The path relative to where the user is, if it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _trials(study: Study) -> int:
    from tips_dist.study import space

    return space.budgets(study)


def _check_truth(truth: Path | None) -> None:
    """A truth file that is missing should be said before an hour of training, not after."""
    if truth is not None and not truth.is_file():
        raise UserError(f"--truth {truth}: no such file")
