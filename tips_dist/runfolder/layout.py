"""Every file of a run folder, once: its name, what kind it is, who needs it.

Readers and writers take names from here. What a command needs of a run folder at an address (:func:`needs`), what the
mirror copies, in which order and how often (:func:`copied`), follow from a file's kind, so that a file added here
reaches everyone.
"""

from __future__ import annotations

import enum
import fnmatch
from dataclasses import dataclass
from pathlib import Path


class Kind(enum.IntEnum):
    """What a file is; the number is its place in the order of copying, see :func:`order`."""

    JOURNAL = 0  # the search's: trials without an entry do not exist, entries without trials do
    SERIES = 1  # histories and curves: read by whatever shows how things went
    DEPTHS = 2  # of the validation poses, large
    CANDIDATES = 3  # weights, large in sum
    STUDENT = 4
    EVENTS = 5  # TensorBoard's
    OTHER = 6  # for people: the report, error texts
    STATE = 7  # checkpoints: history beyond one is cut, one beyond its history would be lost work
    RECORD = 8  # small, typed (records.py), read by every command
    NOTE = 9  # the mirror's, after everything it vouches for
    LOCAL = 10  # means something on this machine alone, never copied


@dataclass(frozen=True)
class File:
    """A file, or all files that fit a pattern (``*`` stands for a trial's id, a seed, a step)."""

    pattern: str
    kind: Kind

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return self.pattern.rpartition("/")[2]

    def at(self, run: Path, trial: str | None = None) -> Path:
        """Where it lies in a run folder; ``trial`` for a file of a trial."""
        return run / (self.pattern if trial is None else self.pattern.replace("*", trial, 1))

    def beside(self, trial_folder: Path) -> Path:
        """Where it lies in a trial's own folder (``train`` makes one without a run around it)."""
        return trial_folder / self.pattern.split("/", 2)[2]


TRIALS = "trials"  # the folder of trials, one folder each
STUDY_TEXT = File("study.yaml", Kind.RECORD)  # as given
STUDY = File("study.json", Kind.RECORD)
SELECTION = File("selection.json", Kind.RECORD)
DEPENDENCE = File("dependence.json", Kind.RECORD)
EVALUATION = File("evaluation.json", Kind.RECORD)
CURVES = File("curves.npz", Kind.SERIES)
SUMMARY = File("summary.json", Kind.RECORD)
REPORT = File("report.html", Kind.OTHER)
JOURNAL = File("optuna.journal", Kind.JOURNAL)
STUDENT = File("student/student.json", Kind.RECORD)
STUDENT_WEIGHTS = File("student/student.safetensors", Kind.STUDENT)
MODEL_CARD = File("student/MODEL_CARD.md", Kind.STUDENT)
TRIAL = File("trials/*/trial.json", Kind.RECORD)
ALIVE = File("trials/*/alive.json", Kind.RECORD)
HISTORY = File("trials/*/history.jsonl", Kind.SERIES)
DEPTHS = File("trials/*/depths.npy", Kind.DEPTHS)
RAW_DEPTHS = File("trials/*/depths_raw.npy", Kind.DEPTHS)
CANDIDATE = File("trials/*/candidates/*", Kind.CANDIDATES)
CHECKPOINT = File("trials/*/checkpoint/*", Kind.STATE)
EVENTS = File("trials/*/tensorboard/*", Kind.EVENTS)
ERROR = File("trials/*/error.txt", Kind.OTHER)
MIRROR = File("mirror.json", Kind.NOTE)
LOCK = File("lock", Kind.LOCAL)
FETCHING = File(".fetching", Kind.LOCAL)  # only a part of the run was fetched; holds the run's mark
PHASE = File("phase.json", Kind.LOCAL)  # what the driver does after training
STOP = File(".stop", Kind.LOCAL)  # its presence asks every running trial to save its state and return
TRIAL_LOCK = File("trials/*/.lock", Kind.LOCAL)
UNFINISHED = File(".*.tmp", Kind.LOCAL)  # of an atomic write
UNFINISHED_BELOW = File("*/.*.tmp", Kind.LOCAL)

FILES = tuple(value for value in list(globals().values()) if isinstance(value, File))
SMALL = (Kind.RECORD, Kind.NOTE)  # what every command gets
HEAVY = (Kind.STATE, Kind.DEPTHS)  # large files that change all the time while a trial runs
ASKS: dict[str, tuple[Kind, ...]] = {  # the bulky kinds that a command reads besides; others get everything
    "status": (),
    "summary": (Kind.SERIES, Kind.JOURNAL),
    "compare": (Kind.SERIES, Kind.JOURNAL),
    "audit": (Kind.SERIES,),
    "monitor": (Kind.EVENTS,),
    "select": (Kind.SERIES, Kind.DEPTHS, Kind.CANDIDATES),
    "scorecard": (Kind.SERIES, Kind.DEPTHS),
    "evaluate": (Kind.SERIES, Kind.JOURNAL, Kind.DEPTHS, Kind.CANDIDATES, Kind.STUDENT),
    "report": (Kind.SERIES, Kind.JOURNAL, Kind.DEPTHS, Kind.CANDIDATES, Kind.STUDENT, Kind.OTHER),
}


def needs(command: str) -> tuple[str, ...]:
    """Patterns of the files that a command reads of a run folder, relative to it; everything for a command unknown."""
    if command not in ASKS:
        return ("*",)
    return tuple(file.pattern for file in FILES if file.kind in (*SMALL, *ASKS[command]))


def kind_of(name: str) -> Kind:
    """The kind of a file, by its path relative to the run folder; ``OTHER`` for one that we do not know."""
    for file in reversed(FILES):  # what is local comes first, whatever folder it lies in
        if fnmatch.fnmatchcase(name, file.pattern):
            return file.kind
    return Kind.OTHER


def known(name: str) -> bool:
    """Whether a file, by its path relative to the run folder, is one of the layout."""
    return any(fnmatch.fnmatchcase(name, file.pattern) and name.count("/") == file.pattern.count("/") for file in FILES)


def copied(name: str) -> bool:
    """Whether the mirror copies a file at all."""
    return kind_of(name) is not Kind.LOCAL


def order(name: str) -> tuple[int, str]:
    """Sorts files so that a copy cut off anywhere is a state that a killed study might have left behind."""
    return int(kind_of(name)), name


def trial_folder(run: Path, trial: str) -> Path:
    """The folder of one trial."""
    return run / TRIALS / trial


def candidate_name(seed: int, step: int) -> str:
    """The file name of a candidate's weights, in the trial's folder ``candidates``."""
    return f"seed{seed}-step{step}.safetensors"


def candidate_file(trial: str, seed: int, step: int) -> str:
    """A candidate's weights, relative to the run folder."""
    return f"{TRIALS}/{trial}/candidates/{candidate_name(seed, step)}"


def checkpoint_name(step: int) -> str:
    """The file name of a resumable state, in the trial's folder ``checkpoint``."""
    return f"step-{step:09d}.safetensors"
