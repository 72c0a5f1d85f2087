"""Every file of a run folder, once: its name, what kind it is, who needs it.

Readers and writers take names from here. What a command needs of a run folder at an address (:func:`needs`), what the
mirror copies, in which order and how often (:func:`copied`), follow from a file's kind, so that a file added here
reaches everyone.
"""

from __future__ import annotations

import enum
import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path


class FileKind(enum.IntEnum):
    """What a file is; the number is its place in the order of copying, see :func:`order`."""

    JOURNAL = 0  # the search's: trials without an entry do not exist, entries without trials do
    SERIES = 1  # histories and curves: read by whatever shows how things went
    DEPTHS = 2  # of the validation poses, large
    CANDIDATES = 3  # weights, large in sum
    FROZEN = 4  # states of seeds that were stopped: before the checkpoint that has them no more
    STUDENT = 5
    EVENTS = 6  # TensorBoard's
    OTHER = 7  # for people: the report, error texts
    STATE = 8  # checkpoints: history beyond one is cut, one beyond its history would be lost work
    RECORD = 9  # small, typed (records.py), read by every command
    NOTE = 10  # the mirror's, after everything it vouches for
    LOCAL = 11  # means something on this machine alone, never copied


@dataclass(frozen=True)
class File:
    """A file, or all files that fit a pattern (``*`` stands for a trial's id, a seed, a step)."""

    pattern: str
    kind: FileKind

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
STUDY_TEXT = File("study.yaml", FileKind.RECORD)  # as given
STUDY = File("study.json", FileKind.RECORD)
SELECTION = File("selection.json", FileKind.RECORD)
DEPENDENCE = File("dependence.json", FileKind.RECORD)
EVALUATION = File("evaluation.json", FileKind.RECORD)
CURVES = File("curves.npz", FileKind.SERIES)
SUMMARY = File("summary.json", FileKind.RECORD)
REPORT = File("report.html", FileKind.OTHER)
JOURNAL = File("optuna.journal", FileKind.JOURNAL)
ARTIFACTS = File("artifacts/*", FileKind.OTHER)  # pictures for Optuna's dashboard, named by Optuna
STUDENT = File("student/student.json", FileKind.RECORD)
STUDENT_WEIGHTS = File("student/student.safetensors", FileKind.STUDENT)
MODEL_CARD = File("student/MODEL_CARD.md", FileKind.STUDENT)
TRIAL = File("trials/*/trial.json", FileKind.RECORD)
ALIVE = File("trials/*/alive.json", FileKind.RECORD)
HISTORY = File("trials/*/history.jsonl", FileKind.SERIES)
DEPTHS = File("trials/*/depths.npy", FileKind.DEPTHS)
RAW_DEPTHS = File("trials/*/depths_raw.npy", FileKind.DEPTHS)
CANDIDATE = File("trials/*/candidates/*", FileKind.CANDIDATES)
FROZEN = File("trials/*/frozen/*", FileKind.FROZEN)
CHECKPOINT = File("trials/*/checkpoint/*", FileKind.STATE)
EVENTS = File("trials/*/tensorboard/*", FileKind.EVENTS)
SEED_EVENTS = File("trials/*/tensorboard/*/*", FileKind.EVENTS)
ERROR = File("trials/*/error.txt", FileKind.OTHER)
MIRROR = File("mirror.json", FileKind.NOTE)
LOCK = File("lock", FileKind.LOCAL)
FETCHING = File(".fetching", FileKind.LOCAL)  # only a part of the run was fetched; holds the run's mark
TIMES = File("times.json", FileKind.RECORD)  # what each driver did, and how long
PHASE = File("phase.json", FileKind.LOCAL)  # what the driver does after training
STOP = File(".stop", FileKind.LOCAL)  # its presence asks every running trial to save its state and return
DRIVER = File(".driver", FileKind.LOCAL)  # drawn anew by each driver: by it a node knows that it sees this very folder
TRIAL_LOCK = File("trials/*/.lock", FileKind.LOCAL)
UNFINISHED = File(".*.tmp", FileKind.LOCAL)  # of an atomic write
UNFINISHED_BELOW = File("*/.*.tmp", FileKind.LOCAL)

FILES = tuple(value for value in list(globals().values()) if isinstance(value, File))
SMALL = (FileKind.RECORD, FileKind.NOTE)  # what every command gets
HEAVY = (FileKind.STATE, FileKind.DEPTHS)  # large files that change all the time while a trial runs
ASKS: dict[str, tuple[FileKind, ...]] = {  # the bulky kinds that a command reads besides; others get everything
    "status": (),
    "summary": (FileKind.SERIES, FileKind.JOURNAL),
    "compare": (FileKind.SERIES, FileKind.JOURNAL),
    "audit": (FileKind.SERIES,),
    "track": (FileKind.SERIES,),
    "monitor": (FileKind.EVENTS, FileKind.SERIES),
    "select": (FileKind.SERIES, FileKind.DEPTHS, FileKind.CANDIDATES),
    "scorecard": (FileKind.SERIES, FileKind.DEPTHS),
    "evaluate": (FileKind.SERIES, FileKind.JOURNAL, FileKind.DEPTHS, FileKind.CANDIDATES, FileKind.STUDENT),
    "report": (
        FileKind.SERIES,
        FileKind.JOURNAL,
        FileKind.DEPTHS,
        FileKind.CANDIDATES,
        FileKind.STUDENT,
        FileKind.OTHER,
    ),
}


def needs(command: str) -> tuple[str, ...]:
    """Patterns of the files that a command reads of a run folder, relative to it; everything for a command unknown."""
    if command not in ASKS:
        return ("*",)
    return tuple(file.pattern for file in FILES if file.kind in (*SMALL, *ASKS[command]))


# One expression for all patterns, since a run of 10,000 trials has hundreds of thousands of names to look at. What is
# local comes first, whatever folder it lies in.
_KINDS = re.compile(
    "|".join(f"(?P<f{index}>{fnmatch.translate(FILES[index].pattern)})" for index in range(len(FILES))[::-1])
)
_PLACES = re.compile("|".join("[^/]*".join(map(re.escape, file.pattern.split("*"))) for file in FILES))


def file_kind(name: str) -> FileKind:
    """The kind of a file, by its path relative to the run folder; ``OTHER`` for one that we do not know."""
    found = _KINDS.match(name)
    return FileKind.OTHER if found is None else FILES[int(str(found.lastgroup)[1:])].kind


def in_layout(name: str) -> bool:
    """Whether a file, by its path relative to the run folder, is one of the layout."""
    return _PLACES.fullmatch(name) is not None


def copied(name: str) -> bool:
    """Whether the mirror copies a file at all."""
    return file_kind(name) is not FileKind.LOCAL


def order(name: str) -> tuple[int, str]:
    """Sorts files so that a copy cut off anywhere is a state that a killed study might have left behind."""
    return int(file_kind(name)), name


def trial_folder(run: Path, trial: str) -> Path:
    """The folder of one trial."""
    return run / TRIALS / trial


def candidate_name(seed: int, step: int) -> str:
    """The file name of a candidate's weights, in the trial's folder ``candidates``."""
    return f"seed{seed}-step{step}.safetensors"


def candidate_file(trial: str, seed: int, step: int) -> str:
    """A candidate's weights, relative to the run folder."""
    return f"{TRIALS}/{trial}/candidates/{candidate_name(seed, step)}"


def frozen_name(seed: int) -> str:
    """The file name of a stopped seed's state, in the trial's folder ``frozen``."""
    return f"seed{seed}.safetensors"


def checkpoint_name(step: int, again: int = 0) -> str:
    """The file name of a resumable state, in the trial's folder ``checkpoint``; names sort by age.

    ``again`` counts how often the steps began anew, for seeds that were thawed.
    """
    return f"step-{step:09d}.safetensors" if not again else f"thaw-{again:03d}-step-{step:09d}.safetensors"
