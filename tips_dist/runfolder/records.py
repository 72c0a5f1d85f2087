"""What a study *is* on disk, typed: one class for each JSON record, as :mod:`tips_dist.runfolder.record` reads them.

========================  =================================  ==================================================
file                      class                              written by -> read by
========================  =================================  ==================================================
study.json                :class:`StudyRecord`               study/folder.py -> everybody
trials/*/trial.json       :class:`Trial`                     study/search.py, trainable.py, tuning.py -> everybody
trials/*/alive.json       :class:`Alive`                     study/trainable.py -> status, the driver's watch
trials/*/history.jsonl    :class:`.history.History`          training/records.py -> audit, report, evaluation
trials/*/checkpoint/*     :class:`CheckpointRecord`          training/checkpoint.py (metadata of safetensors)
trials/*/candidates/*     :class:`WeightsRecord`             training/records.py (metadata of safetensors)
trials/*/frozen/*         :class:`FrozenRecord`              training/records.py (metadata of safetensors)
selection.json            :class:`.choices.Selection`        selection.py -> distillation, dependence, evaluation …
dependence.json           :class:`.choices.Dependence`       dependence.py -> report
student/student.json      :class:`.choices.StudentRecord`    distillation.py -> model card, status, report
evaluation.json           :class:`.results.Evaluation`       evaluation -> summary, report, model card
curves.npz                :class:`.curves.Curves`            evaluation -> report
summary.json              :class:`.results.Summary`          report/summary.py -> people, scripts
phase.json                :class:`PhaseRecord`               study/status.py -> status
times.json                :class:`.spent.Times`              study/sessions.py -> summary
mirror.json               :class:`MirrorNote`                mirror.py -> status of a copy
lock                      :class:`Holder`                    study/records.py -> status
========================  =================================  ==================================================

Changes of these classes are noted here:

- 1 -> 2 of the checkpoint: bound to the values themselves instead of their digest, so that a new knob orphans no run.
- 1 -> 2 of selection.json: ranks are those of a second look, where there was one; several teachers of one seed.
- 1 -> 2 of evaluation.json: the errors of every evaluation step moved to ``curves.npz``.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator

from tips_dist.config import Configuration, Study
from tips_dist.runfolder import layout
from tips_dist.runfolder.record import Json, Part, Record, Recorded
from tips_dist.runfolder.spent import Spent
from tips_dist.sections import digest, with_unset
from tips_dist.skeleton import REPRESENTATIONS

MOST_WIDTH, MOST_BLOCKS = 2 * 8192, 64  # of a study file; matching parameters may double a width
Parameter = bool | int | float | str  # a value of the search space


# --- study.json ------------------------------------------------------------------------------------------------------


class Extension(Part):
    """Every representation was given so many more trials."""

    trials: int
    at: str
    freed: bool = False  # by itself, with steps that stopping had saved


class DataRecord(Part):
    """The 2D data that a study was started with."""

    digest: str  # of the content (Poses.digest)
    path: str | None  # of the pose file, or its address; None: procedural
    scale: float  # px per ten mean root-to-head distances, see normalisation_scale
    counts: dict[str, int] = {}  # split -> rows


class PluginRecord(Part):
    """A plug-in that decided the numbers of a study."""

    name: str
    version: str = ""
    digest: str  # SHA-256 of its source
    where: str = ""  # its file or distribution
    installed: bool = False  # as a package; else given with --plugin


class StudyRecord(Record):
    """``study.json``: what is studied, on which data, with what software; made once, only ever extended."""

    name: str
    digest: str  # of the resolved study
    resolved: Recorded[Study]
    overrides: list[str] = []  # key=value arguments
    extensions: list[Extension] = []
    data: DataRecord
    plugins: list[PluginRecord] = []
    versions: dict[str, str] = {}  # package -> version
    git: str | None = None
    host: str = ""
    command: list[str] = []
    created: str = ""
    mark: str = ""  # drawn when the run was made: by it a copy, a mirror, a folder is known to be this run's

    @property
    def identity(self) -> str:
        """The run's mark; of a run that was made before there were marks, what tells it from every other."""
        return self.mark or digest([self.name, self.digest, self.host, self.created])[:32]

    @property
    def study(self) -> Study:
        """The study with its budget extended as often as it was."""
        return self._extended(self.extensions)

    @property
    def asked(self) -> Study:
        """The same without the trials that saved steps were given to."""
        return self._extended([extension for extension in self.extensions if not extension.freed])

    def _extended(self, extensions: Sequence[Extension]) -> Study:
        added = sum(extension.trials for extension in extensions)
        search = self.resolved.search.model_copy(update={"trials": self.resolved.search.trials + added})
        return self.resolved.model_copy(update={"search": search})

    def asks_for(self, study: Study, own: Study) -> bool:
        """Whether a study that is asked for now is this one.

        Knobs that neither it nor the run's own study file set are as they were when the record was made, so that a new
        knob, or a new default, leaves every study the same.

        Args:
            study: the study asked for, as parsed from its file.
            own: what the run's own ``study.yaml`` with the record's overrides is parsed as.
        """
        return digest(with_unset(study, own, self.resolved)) == digest(self.resolved)


# --- trials ----------------------------------------------------------------------------------------------------------


class TrialState(enum.StrEnum):
    """Where a trial stands."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"  # by the search's scheduler

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in FINAL


FINAL = (TrialState.FINISHED, TrialState.FAILED, TrialState.STOPPED)


class CrossingSpan(Part):
    """A mirror crossing that a seed went through, or was in when it ended."""

    begin: int  # the first evaluation step inside
    end: int | None  # the first after it; None: it lasted
    mirrored: float  # the largest share of mirrored poses, 0 to 0.5


class SeedOutcome(Part):
    """How one seed of a trial ended."""

    seed: int
    verdict: str
    reason: str
    onset: int | None
    stopped_step: int
    best_risk: float | None
    best_step: int | None
    values: dict[str, float | None] = {}  # the signal values behind the verdict
    candidates: list[int] = []  # steps whose weights were kept, lowest risk first; empty: the lowest risk's alone
    frozen: int | None = None  # the step of its kept state, from which it can be thawed
    thawed: int | None = None  # the step from which it went on although a verdict had stopped it there
    crossings: list[CrossingSpan] = []  # in their order; nothing is chosen inside one,
    settled: int | None = None  # nor before this step, from which on it held one mirror solution; None: not so far


class Execution(Part):
    """How a trial was computed."""

    workers: int = 1
    matmul: str = "default"  # backend of float32 products
    precision: str = "float32"
    trials: int = 1  # that took their steps as one program, this one among them

    def fell_back(self, asked: str) -> bool:
        """Whether products ran in float32 although ``asked`` is lower (tf32 always does on a processor)."""
        return asked != "float32" and asked != (self.matmul if asked == "tf32" else self.precision)


class Outcome(Part):
    """How a trial ended: its seeds, seconds of training, numbers of parameters per seed."""

    seeds: list[SeedOutcome]
    training_seconds: float
    parameters: dict[str, int]  # network -> number
    execution: Execution = Execution()
    judged_on: str | None = None  # digest of the validation rows behind recorded depths; older runs kept none
    spent: Spent | None = None  # what its seconds went to; older runs kept no account


class Trial(Record):
    """``trial.json``: what was asked of a trial, where it stands, what came out."""

    id: str
    representation: str
    number: int
    parameters: dict[str, Parameter]  # dotted key -> value drawn
    configuration: Recorded[Configuration]
    seeds: list[int]
    state: TrialState = TrialState.PENDING
    error: str | None = None
    started: str | None = None
    ended: str | None = None
    wall_seconds: float = 0.0  # summed over attempts
    attempts: int = 0
    outcome: Outcome | None = None
    thaw: list[int] = []  # seeds that no verdict but non_finite stops: they were frozen and are to go on
    stopped_step: int | None = None  # at which the whole trial was stopped; thaw takes it up at its last checkpoint
    stopped_spent: Spent | None = None  # by then

    def folder(self, run: Path) -> Path:
        """Where this trial's files lie."""
        return layout.trial_folder(run, self.id)

    def write(self, run: Path) -> Trial:
        """Write the record atomically and return it."""
        return self.save(layout.TRIAL.at(run, self.id))

    def now(self, **changes: Any) -> Trial:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)

    @property
    def spent(self) -> Spent | None:
        """What its workers' time went to; None before it has ended, and of older runs."""
        return self.stopped_spent if self.outcome is None else self.outcome.spent

    @property
    def steps(self) -> int:
        """Training steps planned for each seed."""
        return self.configuration.training.steps

    @property
    def seed_outcomes(self) -> Sequence[SeedOutcome]:
        """How its seeds ended; none while it has not."""
        return self.outcome.seeds if self.outcome is not None else ()


class Alive(Record):
    """``alive.json``: a worker's sign of life (the file's time), with its last progress."""

    NUMBERED: ClassVar[bool] = False

    host: str
    pid: int
    node: str = ""  # Ray's id of the worker's node
    step: int = 0
    steps: int = 0
    risk: float | None = None
    verdicts: dict[str, int] = {}  # verdict -> seeds
    steps_per_second: float | None = None  # seed-steps
    active_seeds: int = 0
    message: str = ""
    time: str = ""


class Holder(Record):
    """``lock``: who works in a run folder."""

    NUMBERED: ClassVar[bool] = False

    host: str
    pid: int
    since: str | None = None


class PhaseRecord(Record):
    """``phase.json``: what the driver does after the last trial; gone when it has ended."""

    host: str
    pid: int
    words: str  # "distilling the student, 40%"


class MirrorNote(Record):
    """``mirror.json``: where a run is copied to, by whom, and when last."""

    NUMBERED: ClassVar[bool] = False

    url: str
    host: str
    pid: int
    time: float  # seconds since 1970
    interval_seconds: float
    ended: bool = False


# --- weights and states (metadata of safetensors) --------------------------------------------------------------------


class Candidate(Part):
    """A checkpoint kept because its risk was low."""

    step: int
    risk: float
    part_signs: list[int]  # one for each lifter of the representation, told without truth
    sign_confidence: list[float]
    mixed: float | None = None  # estimated share of mirrored poses (mirror/mixed)


class Network(Part):
    """What is needed to build a lifter again."""

    lifter: str = "packed"  # its registered name
    representation: str
    width: int
    blocks: int
    batch_norm: bool
    spread: bool = False


class WeightsRecord(Record):
    """Metadata of a lifter's or student's weights."""

    NUMBER: ClassVar[str] = "format"

    kind: Literal["lifter", "student"] = "lifter"
    lifter: str = "packed"  # the registered name of its architecture
    representation: str
    width: Annotated[int, Field(ge=1, le=MOST_WIDTH)]
    blocks: Annotated[int, Field(ge=0, le=MOST_BLOCKS)]
    batch_norm: bool
    scale: Annotated[float, Field(gt=0, lt=1e9)]  # px per ten mean root-to-head distances of the training data
    data_digest: str | None = None
    configuration: str | None = None  # digest
    seed: int | None = None
    step: int | None = None
    risk: float | None = None
    part_signs: list[int] | None = None
    sign_confidence: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    study: str | None = None  # of a student: the study's name
    source: str | None = None  # and of its data
    spread: bool = False  # whether it predicts its teachers' spread too
    average: float | None = None  # decay of the averaged weights that these are; None: raw

    @model_validator(mode="after")
    def _of_this_program(self) -> WeightsRecord:
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"representation {self.representation!r:.60} is unknown to this program")
        parts = len(REPRESENTATIONS[self.representation].lifters)
        if self.part_signs is not None and (len(self.part_signs) != parts or {*self.part_signs} - {-1, 1}):
            raise ValueError(f"part_signs: expected {parts} of +1 or -1, got {self.part_signs!r:.60}")
        if self.sign_confidence is not None and len(self.sign_confidence) != parts:
            raise ValueError(f"sign_confidence: expected {parts} numbers, got {len(self.sign_confidence)}")
        return self


class Identity(Part):
    """The values that a checkpoint's numbers come from; it goes on with the very same alone."""

    configuration: Recorded[Configuration] | None  # None: written before its values were, known by digest alone
    configuration_digest: str
    per_seed: dict[str, list[float]] = {}  # of earlier versions, whose seeds could have values of their own
    data_digest: str
    scale: float


class StateRecord(Record):
    """Everything of a run's state that is no tensor."""

    SCHEMA: ClassVar[int] = 2
    NUMBERED: ClassVar[bool] = False

    seeds: list[int]
    active: list[int]  # seeds that still train
    step: int
    seconds: float
    spent: Spent = Spent()  # what they went to
    matmul: str
    stopped: dict[int, int]  # seed -> step at which a verdict ended it
    frozen: dict[int, int] = {}  # seed -> step of its kept state (FrozenRecord), from which it can go on
    thawed: dict[int, int] = {}  # seed -> step from which it went on although a verdict had ended it
    round: int = 0  # how often the steps began again, for seeds that were thawed
    best: dict[int, tuple[float, int]]  # seed -> (lowest risk, its step)
    average_since: dict[int, int] = {}  # seed -> step at which the average of its weights began
    opposed: dict[int, float] = {}  # seed -> how opposed that average was to the weights, see training/averaging.py
    judges: dict[int, dict[str, JsonValue]]  # seed -> state of its detectors, theirs to read
    candidates: dict[int, list[Candidate]]


class CheckpointRecord(StateRecord):
    """A run's state and what it belongs to: the metadata of a checkpoint."""

    identity: Identity

    @staticmethod
    def _bound_to_values(old: Json) -> Json:
        identity = old["identity"]
        assert isinstance(identity, dict)
        digest = identity["configuration"]
        return {**old, "identity": {**identity, "configuration": None, "configuration_digest": digest}}

    MIGRATIONS = {1: _bound_to_values}


class FrozenRecord(Record):
    """A seed that a verdict stopped, with its whole state: the metadata of ``frozen/seed<k>.safetensors``."""

    seed: int
    step: int  # at which it stopped
    verdict: str
    reason: str
    onset: int | None
    judge: dict[str, JsonValue]  # state of its detectors, theirs to read
    average_since: int  # see StateRecord
    opposed: float | None = None
    identity: Identity


def changed(first: BaseModel, second: BaseModel) -> list[str]:
    """Dotted keys at which two groups of knobs differ."""
    found = []
    for name in type(first).model_fields:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, BaseModel) and type(one) is type(other):
            found += [f"{name}.{key}" for key in changed(one, other)]
        elif one != other:
            found.append(name)
    return found
