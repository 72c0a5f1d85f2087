"""What was damaged between a kill and a resume: set aside or rebuilt from what is whole, and said.

Every file of ours is written whole or not at all, so damage comes from elsewhere: a disk, a sync, a hand. The study
goes on where it can: the search's journal is rebuilt from the trials, a trial's record from the journal, and a trial
whose own files do not fit together starts anew from its parameters, which gives the same numbers again.
"""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import yaml

from tips_dist.files import UserError, check_file, write_text
from tips_dist.runfolder import RunFolder, Trial, layout, read_trial
from tips_dist.runfolder.history import History
from tips_dist.runfolder.records import StudyRecord
from tips_dist.study_file import load_study

ASIDE = ".damaged"  # behind the name of what was set aside


def mend(run: Path, record: StudyRecord) -> list[str]:
    """Bring a run folder, whose lock we hold, to a state from which the study can go on.

    Returns:
        What was lost or rebuilt, one line each.
    """
    notes = [*_study_text(run, record), *_journal(run)]
    for folder in sorted((run / layout.TRIALS).glob("*")):
        if folder.is_dir() and not folder.is_symlink():
            notes += _trial(run, folder, record)
    return notes


def _study_text(run: Path, record: StudyRecord) -> list[str]:
    path = layout.STUDY_TEXT.at(run)
    try:
        load_study(path, list(record.overrides))
    except UserError as error:
        _aside(path)
        text = yaml.safe_dump(record.resolved.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        write_text(path, f"# rebuilt from {layout.STUDY.name}, as the file was lost\n{text}")
        return [f"{error}; rebuilt from {layout.STUDY.name}"]
    return []


def _journal(run: Path) -> list[str]:
    """A last line that a kill cut is none of our business (search.py cuts it off); anything else is."""
    path = layout.JOURNAL.at(run)
    if not _there(path):
        return []
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        check_file(path)
        lines = path.read_bytes().splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):
                json.loads(line)
        if lines and lines[-1].endswith(b"\n"):
            storage = JournalStorage(JournalFileBackend(str(path)))
            storage.get_all_studies()
    except Exception as error:  # whatever Optuna makes of operations that are none
        _aside(path)
        return [f"{path}: damaged ({type(error).__name__}); the search is rebuilt from the trials"]
    return []


def _trial(run: Path, folder: Path, record: StudyRecord) -> list[str]:
    path = layout.TRIAL.at(run, folder.name)
    try:
        trial = read_trial(run, folder.name)
        if trial.id != folder.name or trial.representation not in record.resolved.representations:
            raise UserError(f"{path}: is the record of {trial.id}")
    except UserError as error:
        if not _there(path) and not any(folder.iterdir()):
            return []
        _aside(path)
        return [f"{error}; the trial is asked of the search again"]
    try:
        history = History.load(layout.HISTORY.at(run, trial.id))
        reason = None if trial.state.final else _unfit(RunFolder(run), trial, history)
    except UserError as error:
        if trial.state.final:
            return [f"{error}; {_readable_lines(layout.HISTORY.at(run, trial.id))}", *_depths(run, trial)]
        reason = str(error)
    if reason is not None:
        _start_anew(folder)
        return [f"{reason}; {trial.id} starts anew"]
    return _depths(run, trial) if trial.state.final else []


def _unfit(run: RunFolder, trial: Trial, history: History) -> str | None:
    """Why an unfinished trial's files do not fit together, if they do not."""
    checkpoints = sorted((run.path / layout.TRIALS / trial.id / "checkpoint").glob("step-*.safetensors"))
    steps = [int(path.stem.removeprefix("step-")) for path in checkpoints if path.stem.removeprefix("step-").isdigit()]
    if not steps:
        return None  # it starts anew by itself
    last = max((row.step for row in history.rows), default=0)
    every = trial.configuration.training.evaluate_every
    if last < max(steps) // every * every:  # an interrupt may save between two evaluations
        return f"{layout.HISTORY.at(run.path, trial.id)}: ends at step {last}, before the checkpoint of {max(steps)}"
    if trial.configuration.training.record_depths and run.depths(trial) is None:
        return f"{layout.DEPTHS.at(run.path, trial.id)}: is missing"
    return None


def _depths(run: Path, trial: Trial) -> list[str]:
    """Depths of a trial that has ended serve comparison alone: without them it is not compared."""
    try:
        RunFolder(run).depths(trial)
    except UserError as error:
        _aside(layout.DEPTHS.at(run, trial.id))
        return [f"{error}; {trial.id} goes without its depths"]
    return []


def _readable_lines(path: Path) -> str:
    """Keep the lines of a history that can be read."""
    try:
        check_file(path)
        lines = path.read_bytes().splitlines(keepends=True)
    except (UserError, OSError):
        lines = []
    kept = []
    for line in lines:
        trying = path.with_name(path.name + ".line")
        try:
            trying.write_bytes(line)
            History.load(trying)
            kept.append(line)
        except UserError:
            continue
        finally:
            trying.unlink(missing_ok=True)
    _aside(path)
    path.write_bytes(b"".join(kept))
    return f"{len(lines) - len(kept)} of {len(lines)} lines are lost"


def _start_anew(folder: Path) -> None:
    for name in ("checkpoint", "candidates", "frozen"):
        if (folder / name).is_symlink():
            (folder / name).unlink()
        shutil.rmtree(folder / name, ignore_errors=True)
    for file in (layout.HISTORY, layout.DEPTHS, layout.RAW_DEPTHS):
        _aside(file.beside(folder))


def _aside(path: Path) -> None:
    """Keep what is damaged for whoever wants to look at it, unless it is no file at all."""
    if not _there(path):
        return
    aside = path.with_name(path.name + ASIDE)
    aside.unlink(missing_ok=True) if not aside.is_dir() or aside.is_symlink() else shutil.rmtree(aside)
    path.rename(aside)


def _there(path: Path) -> bool:
    try:
        return bool(stat.S_IFMT(path.lstat().st_mode))
    except OSError:
        return False
