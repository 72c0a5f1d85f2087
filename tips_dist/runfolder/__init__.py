"""What a study *is* on disk, typed. Imports neither torch nor Ray, so that anything may read a run.

- ``layout``: every file name of a run folder, once, and what each command needs of it.
- ``record``: what records have in common: schema number, migration, errors in one line.
- ``records``: a class for each JSON record; its docstring is the table of who writes and who reads which.
- ``choices``: the records of what was chosen and taught: selection, dependence, student.
- ``results``: the records of what was found: evaluation, audit, summary.
- ``history``, ``curves``: the series, by evaluation step and seed.
- ``folder``: :class:`RunFolder`, all of it as one object.
- ``poses``: the one way from a run or a study to its 2D data.
- ``example``: builds a whole run folder, for tests and documentation.
"""

from tips_dist.runfolder.choices import Choice, Dependence, Selection, StudentRecord, Teacher
from tips_dist.runfolder.curves import Curve, Curves
from tips_dist.runfolder.folder import RunFolder, read_trial, read_trials
from tips_dist.runfolder.history import History, HistoryRow
from tips_dist.runfolder.records import (
    FINAL,
    Alive,
    Candidate,
    CheckpointRecord,
    Outcome,
    SeedOutcome,
    StudyRecord,
    Trial,
    TrialState,
    WeightsRecord,
)
from tips_dist.runfolder.results import Audit, Evaluation, Metrics, Summary

__all__ = [
    "FINAL",
    "Alive",
    "Audit",
    "Candidate",
    "CheckpointRecord",
    "Choice",
    "Curve",
    "Curves",
    "Dependence",
    "Evaluation",
    "History",
    "HistoryRow",
    "Metrics",
    "Outcome",
    "RunFolder",
    "SeedOutcome",
    "Selection",
    "StudentRecord",
    "StudyRecord",
    "Summary",
    "Teacher",
    "Trial",
    "TrialState",
    "WeightsRecord",
    "read_trial",
    "read_trials",
]
