"""Records of what was found: evaluation.json (against truth), summary.json, and what an audit answers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import JsonValue

from tips_dist.bootstrap import Statistic
from tips_dist.config import Policy
from tips_dist.runfolder.choices import Teacher
from tips_dist.runfolder.curves import METRICS
from tips_dist.runfolder.record import Json, Part, Record, Recorded
from tips_dist.runfolder.records import Parameter, TrialState
from tips_dist.runfolder.spent import TimeSpent

CHECKPOINTS = ("selected", "best", "last", "random")


# --- evaluation.json -------------------------------------------------------------------------------------------------


class TruthReference(Part):
    """The truth that was measured against."""

    path: str
    digest: str


class Errors(Part):
    """Mean errors of one checkpoint on the validation poses, mm; None where they are not finite.

    As predicted, and ``_resolved`` with depth signs told without truth.
    """

    step: int | None = None  # None for the mean over checkpoints
    n_mpjpe: float | None
    n_mpjpe_resolved: float | None
    pa_mpjpe: float | None
    pa_mpjpe_resolved: float | None

    def of(self, metric: str) -> float | None:
        """One metric by name."""
        value: float | None = getattr(self, metric)
        return value


class SeedErrors(Part):
    """One seed's checkpoints: as selected without truth, the oracle's, the last, and one drawn at random (a mean)."""

    selected: Errors | None
    best: Errors | None
    last: Errors | None
    random: Errors | None
    non_finite_steps: int = 0

    def of(self, checkpoint: str) -> Errors | None:
        """One of :data:`CHECKPOINTS` by name."""
        value: Errors | None = getattr(self, checkpoint)
        return value


class TrialErrors(Part):
    """The seeds of one trial; ``why`` says why there are none."""

    representation: str
    seeds: dict[int, SeedErrors]
    raw: dict[int, SeedErrors] = {}  # of the raw weights, where both were judged; selected: at the same step
    why: str | None = None


class SpreadCheck(Part):
    """How a student's spread compares with its errors of depth, over joints but the root; mm.

    Of errors that were normally distributed with that deviation 68 % would lie within one spread, 95 % within two.
    """

    within_1: float  # share of joints whose error of depth is at most one spread
    within_2: float
    mean_spread: float  # mm
    mean_error: float  # mm, of depth
    spearman: float | None  # of the mean spread and the mean error of poses


class Metrics(Part):
    """All metrics of one network on one split; distances in mm, pck and auc in percent."""

    poses: int
    mpjpe: float | None
    mpjpe_resolved: float | None
    n_mpjpe: float | None
    n_mpjpe_resolved: float | None
    pa_mpjpe: float | None
    pa_mpjpe_resolved: float | None
    pa_mpjpe_reflected: float | None
    pck_150: float | None
    pck_150_resolved: float | None
    auc_150: float | None
    auc_150_resolved: float | None
    part_signs: list[int] = []  # used for _resolved: those recorded with the weights, else those told here
    part_signs_told_here: list[int] = []
    sign_confidence: list[float | None] = []
    interval: dict[str, list[float] | None] = {}  # metric -> (low, high), 95 % bootstrap over sequences
    spread: SpreadCheck | None = None  # how well it knows its own uncertainty
    by: dict[str, dict[str, dict[str, float | None]]] | None = None  # joint, part, action, camera -> name -> metric

    def of(self, metric: str) -> float | None:
        """One metric by name."""
        value: float | None = getattr(self, metric)
        return value


class CandidateMetrics(Metrics):
    """A selected candidate on the test poses."""

    trial: str
    file: str
    seed: int
    step: int
    risk: float | None
    representation: str


class Evaluation(Record):
    """``evaluation.json``: what truth says of a run; errors of every evaluation step lie in ``curves.npz``."""

    SCHEMA: ClassVar[int] = 2

    truth: TruthReference
    data_digest: str
    conventions: dict[str, str] = {}
    counts: dict[str, int] = {}  # split -> poses
    split_errors: dict[str, str] = {}  # split -> why nothing was measured on it
    trials: dict[str, TrialErrors]
    selected_test: list[CandidateMetrics] = []
    student: dict[str, Metrics] | None = None  # split -> metrics
    student_digest: str | None = None

    @staticmethod
    def _curves_moved(old: Json) -> Json:
        """Schema 1 held the curves: every seed had lists ``steps`` and one of each metric (curves.npz has them now)."""
        return {name: value for name, value in old.items() if name != "curves"}

    MIGRATIONS = {1: _curves_moved}

    def errors(self, trial: str, seed: int, *, raw: bool = False) -> SeedErrors | None:
        """What was measured of one run; ``raw`` of its raw weights, where both were judged."""
        found = self.trials.get(trial)
        return None if found is None else (found.raw if raw else found.seeds).get(seed)


# --- audit -----------------------------------------------------------------------------------------------------------


class AuditSeed(Part):
    """What a stopping policy would have done to one seed."""

    trial: str
    seed: int
    verdict: str
    reason: str
    onset: int | None
    stop_step: int | None  # None: never
    last_step: int
    cut: bool  # its history was cut by stopping when it was made
    best_risk: float | None  # of the whole history
    best_step: int | None
    kept_risk: float | None  # up to the stop
    kept_step: int | None
    steps: int  # planned


class AuditBest(Part):
    """The seed with the lowest risk of all."""

    trial: str
    seed: int
    risk: float


class AuditTotals(Part):
    """The audit over all seeds whose history is whole."""

    seeds: int
    cut: int
    stopped: int
    steps_saved: float | None  # share of the planned steps
    best: AuditBest | None
    best_killed: bool | None
    best_risk_lost: float | None  # relative


class Audit(Record):
    """What ``audit`` answers: would this policy have killed the best?"""

    policy: Recorded[Policy]
    seeds: list[AuditSeed]
    totals: AuditTotals


# --- summary.json ----------------------------------------------------------------------------------------------------


class GroupErrors(Part):
    """Errors of a group of runs against truth, mm."""

    metrics: dict[str, Statistic | None]  # of the selected checkpoints
    checkpoints: dict[str, Statistic | None]  # n_mpjpe_resolved of selected, best, last, random
    against: dict[str, Statistic | None]  # the same of best, last, random minus selected, run by run
    raw: dict[str, Statistic | None] = {}  # n_mpjpe_resolved of the raw weights' checkpoints, where both were judged


class GroupSummary(Part):
    """What a group of runs did."""

    runs: int
    verdicts: dict[str, int]
    stopped_step: float | None  # median
    steps_saved: float | None  # share of planned seed-steps that stopping left untrained
    risk: Statistic | None  # see stability/statistic.py
    errors: GroupErrors | None


class RepresentationSummary(GroupSummary):
    """All runs of a representation."""

    representation: str
    trials: int


class TrialSummary(GroupSummary):
    """All runs of a trial."""

    trial: str
    representation: str
    state: TrialState
    error: str | None
    parameters: dict[str, Parameter]
    wall_seconds: float | None
    teachers: int


class Difference(Part):
    """Two representations compared by one metric: first minus second."""

    metric: str
    first: str
    second: str
    difference: Statistic
    cliffs_delta: float | None


class BestConfiguration(Part):
    """The trial of lowest risk of one representation: what a user of it would train."""

    representation: str
    trial: str
    parameters: dict[str, Parameter]
    tried: int  # trials of the representation that have a risk
    seeds: int
    broken: int  # of the seeds
    risk: Statistic
    errors: dict[str, Statistic]  # split -> sign-resolved N-MPJPE of the checkpoints that its seeds keep, mm


class MeasuredAnswer(Part):
    """Sign-resolved N-MPJPE of one network, mm, with its interval over sequences where there are several."""

    value: float
    low: float | None
    high: float | None
    poses: int


class Recommendation(Part):
    """The network to use: the student, or (before one was taught) the candidate of lowest risk."""

    kind: Literal["student", "candidate"]
    file: str  # relative to the run folder
    teachers: list[str]  # "trial seed step" of each
    errors: dict[str, MeasuredAnswer]  # split -> error; empty unless evaluated
    lift: str  # the command that lifts with it


class Comparison(Difference):
    """Two representations compared by their best configurations, or (``pooled``) by all runs: first minus second."""

    pooled: bool
    split: str | None  # of errors; None: the metric is the risk
    first_trial: str | None = None
    second_trial: str | None = None

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0


class Broken(Part):
    """How many runs of a representation broke, and why."""

    representation: str
    runs: int
    broken: int
    verdicts: dict[str, int]  # of the broken ones
    reasons: dict[str, int]  # with numbers left out -> runs, the most frequent first


class Choosing(Part):
    """What choosing checkpoints without truth cost, over all runs of a representation, validation, mm."""

    representation: str
    selected: Statistic
    best: Statistic  # the oracle's minus the selected one's, run by run
    last: Statistic
    random: Statistic


class NextStep(Part):
    """What to do next, and the command that does it."""

    text: str
    command: str | None = None


class Answer(Part):
    """What a study found, for somebody who reads nothing else; the same in every command, page and format."""

    best: list[BestConfiguration]
    recommended: Recommendation | None
    chosen: list[Comparison]  # of the best configurations
    pooled: list[Comparison]  # of all runs
    broken: list[Broken]
    choosing: list[Choosing]
    steps: list[NextStep]
    plus_minus: float | None = None  # the 90 % interval of a true error about its risk, as a share


class Budget(Part):
    """What training took, in seed-steps (one step of one seed), of the trials that have ended."""

    planned: int
    trained: int
    frozen: int  # seeds that were stopped and can be thawed
    revived: int  # seeds that went on although a verdict, or the end of their trial, had stopped them
    stopped_trials: int  # stopped as a whole

    @property
    def saved(self) -> int:
        """Seed-steps that stopping left untrained."""
        return self.planned - self.trained


class StudySummary(Part):
    """Which study was summarised."""

    name: str
    digest: str
    folder: str
    created: str
    steps: int
    seeds: int


class Summary(Record):
    """``summary.json``: the numbers of a study, by representation and by trial."""

    study: StudySummary
    trial_states: dict[str, int]
    evaluated: bool
    representations: list[RepresentationSummary]
    differences: list[Difference]
    trials: list[TrialSummary]
    teachers: list[Teacher]
    rule: str | None
    student: dict[str, Metrics] | None
    answer: Answer | None = None  # None: written before there was one
    budget: Budget | None = None  # likewise
    time: TimeSpent | None = None  # where it went; None: no account was kept
    fallbacks: dict[str, int] = {}  # precision asked for -> finished trials that ran in float32 for want of units


def embedded_curves(seed: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """The lists of one seed in an ``evaluation.json`` of schema 1: steps, and one list for each metric."""
    return {name: seed[name] for name in ("steps", *METRICS)} if "steps" in seed else None
