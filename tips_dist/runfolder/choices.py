"""What a study chose and taught, typed: selection.json, dependence.json and student.json, all made without truth."""

from __future__ import annotations

from typing import ClassVar

from tips_dist.config import Distillation
from tips_dist.runfolder.record import Json, Part, Record, Recorded


class Teacher(Part):
    """A candidate chosen for distillation."""

    trial: str
    representation: str
    seed: int
    step: int
    risk: float
    file: str  # relative to the run folder
    part_signs: list[int]
    sign_confidence: list[float]
    second_risk: float | None = None  # what the second look thought of it
    disagreement: float | None = None  # with its trial's other seeds, see selection.py


class CandidateLook(Part):
    """What each stage thought of one candidate."""

    step: int
    risk: float | None  # as trained
    second_risk: float | None = None  # on many more validation poses; None: no second look
    mixed: float | None = None  # share of mirrored poses that the second look told
    note: str | None = None  # why it cannot be chosen


class SecondLook(Part):
    """What the second look looked at."""

    poses: int  # of the validation split
    instants: int  # seen by two or more cameras
    regime: str | None  # of the risk
    plus_minus: float | None = None  # the risk's 90 % interval: 0.2 is an error of at most 1.2 times the risk


class Choice(Part):
    """What was chosen of one seed, and why; ``file`` is None where there is nothing to choose."""

    trial: str
    representation: str
    seed: int
    verdict: str
    step: int | None
    risk: float | None
    file: str | None
    chosen: bool  # as a teacher
    rank: int | None = None
    why: str
    part_signs: list[int] | None = None
    sign_confidence: list[float] | None = None
    second_risk: float | None = None
    disagreement: float | None = None
    looks: list[CandidateLook] = []  # at all candidates of the seed, the chosen first


class Selection(Record):
    """``selection.json``: the checkpoint kept of each seed, and the teachers, chosen without truth."""

    SCHEMA: ClassVar[int] = 2

    rule: str
    teachers: list[Teacher]
    seeds: list[Choice]
    second_look: SecondLook | None = None

    @staticmethod
    def _one_stage(old: Json) -> Json:
        """Schema 1 knew one stage: ranks were by the risk as trained, and a seed gave one teacher at most."""
        return {**old, "second_look": None}

    MIGRATIONS = {1: _one_stage}


class RepresentationDependence(Part):
    """What the depths of one representation's lowest-risk lifter depend on."""

    trial: str
    seed: int
    step: int
    file: str
    input_gradient: list[list[float]]  # (17, 17): depth of row joint by keypoint of column joint
    output_correlation: list[list[float]]  # (17, 17)
    long_range: float  # share of the gradient between joints more than near_bones apart


class Dependence(Record):
    """``dependence.json``: the study of correlations, without truth (arXiv 2209.00618, section 5)."""

    joints: list[str]
    near_bones: int
    representations: dict[str, RepresentationDependence]


class StudentModel(Part):
    """The student's network."""

    representation: str
    width: int
    blocks: int


class Disagreement(Part):
    """How far the teachers are apart, in units of the root-to-head distance."""

    mean: float
    relative_to_depth_spread: float
    per_joint: dict[str, float]
    weights: dict[str, list[float]] = {}  # part of the body -> weight of each teacher


class StudentLoss(Part):
    """Mean squared errors of depth offsets at each look."""

    steps: list[int]
    train: list[float]
    held_out: list[float]


class StudentRecord(Record):
    """``student.json``: how the student was taught."""

    digest: str  # SHA-256 of its weights file
    data_digest: str
    scale: float
    settings: Recorded[Distillation]
    model: StudentModel
    teachers: list[Teacher]
    disagreement: Disagreement
    loss: StudentLoss
    best_step: int
    stopped_step: int
    counts: dict[str, int]
