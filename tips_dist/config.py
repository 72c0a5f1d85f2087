"""The typed study configuration: the only list of knobs, strict, with a digest of the fully resolved values.

A study file (YAML) maps onto :class:`Study`. A trial's :class:`Configuration` is the study's shared values with one
point of the search space applied. Unknown keys are errors that suggest the nearest known key.
"""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tips_dist.addresses import check_address, is_address
from tips_dist.files import UserError
from tips_dist.sections import Before, Section, set_dotted, validate

Count = Annotated[int, Field(ge=1, le=10**9)]
SeedNumber = Annotated[int, Field(ge=0, le=2**53)]  # what every JSON reader takes exactly
Blocks = Annotated[int, Field(ge=1, le=64)]
BatchSize = Annotated[int, Field(ge=1, le=2**20)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Procedural(Section):
    """Poses made by the embedded generator instead of read from a file."""

    poses: Annotated[int, Field(ge=1, le=10_000_000)] = 20_000  # how many; they are made in memory
    seed: SeedNumber = 0  # random start of the generator
    cameras: Annotated[int, Field(ge=1, le=64)] = 2  # that see each sequence at the same moments


class Data(Section):
    """Where the 2D poses come from: a pose2d file, or (the default) the procedural generator."""

    poses: str | None = None  # path of NAME.pose2d.h5, relative to the study file, or its address (s3://…, gs://…)
    digest: Annotated[str | None, Field(pattern=r"^[0-9a-f]{8,64}$")] = None  # of the poses' content: refuse others
    procedural: Procedural = Procedural()  # what is made where `poses` is not set

    @field_validator("poses")
    @classmethod
    def _without_secrets(cls, poses: str | None) -> str | None:
        try:
            if poses is not None and is_address(poses):
                check_address(poses)
        except UserError as error:
            raise ValueError(str(error)) from None
        return poses


class Model(Section):
    """Network sizes, shared by lifter, discriminator and student."""

    width: Annotated[int, Field(ge=8, le=8192)] = 256  # features of a solo lifter; others match its parameters
    discriminator_blocks: Blocks = 3  # residual blocks of the discriminator
    student_blocks: Blocks = 3  # residual blocks of the student
    batch_norm: bool = False  # lifter only; the authors' recipe has it on (docs/recipe.md says why it is off)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # lifter only; the authors use 0.5
    width_multiple: Annotated[int, Field(ge=1, le=64), Before(1)] = 8  # of matched widths, where parameters allow it
    lifter: str = "packed"  # the lifter's architecture: packed, or one that a plug-in registered (docs/doors.md)
    spectral_norm: bool = False  # discriminator only: its layers' largest singular values are 1 (arXiv 1802.05957)


class Training(Section):
    """How one run trains."""

    steps: Count = 6000  # each a batch of every seed; a multiple of evaluate_every
    batch_size: BatchSize = 64  # poses per step and seed
    evaluate_every: Count = 50  # steps between evaluation steps
    checkpoint_every: Count = 10  # evaluation steps between resumable checkpoints
    validation_poses: Annotated[int, Field(ge=32)] = 512  # on which signals are measured and checkpoints judged
    generator_lr: Positive = 1e-3  # Adam's learning rate of the lifter
    discriminator_lr: Positive = 1e-3  # Adam's learning rate of the discriminator
    weight_decay: NonNegative = 0.0  # of both players: share of the weights added to the gradient
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Adam's memory of the gradient
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999  # Adam's memory of its square
    final_lr_factor: Annotated[float, Field(gt=0, le=1)] = 1.0  # exponential decay of both rates to this share
    average: Annotated[float, Field(ge=0, lt=1), Before(0.0)] = 0.998  # decay of the lifter's moving average; 0: off
    judge: Literal["averaged", "raw", "both"] = "averaged"  # which weights; both: raw depths in depths_raw.npy
    random: Annotated[Literal["counted", "streams"], Before("streams")] = "counted"  # dropout, noise: docs/gpu.md
    instance_noise: NonNegative = 0.0  # on all that the discriminator sees, in root-to-head distances; 0 at the end
    gradient_clip: NonNegative = 0.0  # longest gradient, per seed and player (arXiv 1211.5063); 0: any
    flip_probability: Share = 0.5  # mirror a pose left to right (sides relabelled)
    rotation: Literal["per_sample", "batch"] = "per_sample"  # a random view for each pose, or one for a batch
    azimuth_degrees: Annotated[float, Field(gt=0, le=180)] = 160.0  # views are turned by at most this, either way
    elevation_degrees: Annotated[float, Field(ge=0, le=90)] = 10.0  # views are tilted by at most this, up or down
    precision: Literal["float32", "tf32", "bf16"] = "float32"  # of matrix products; tf32 is float32 on a CPU
    compile: bool = False  # torch.compile both networks (with CUDA graphs on a card)
    turns: Literal["sampled", "all"] = "sampled"  # 90° consistency: one of ±90°, 180° per pose and step, or all
    turned_every: Count = 1  # 90° consistency is asked of every n-th pose of a batch; a divisor of batch_size
    candidates: Annotated[Count, Before(2)] = 8  # checkpoints kept per seed, by risk, spread over the good stretch
    record_depths: bool = True  # keep the validation depths of every evaluation step, for audits and evaluation
    signals: list[str] = []  # further signals to measure, registered by plug-ins

    @model_validator(mode="after")
    def _whole_stretches(self) -> Training:
        if self.steps % self.evaluate_every:
            nearest = max(1, round(self.steps / self.evaluate_every)) * self.evaluate_every
            raise ValueError(
                f"steps: {self.steps} is not a multiple of evaluate_every ({self.evaluate_every}); try {nearest}"
            )
        if self.batch_size % self.turned_every:
            raise ValueError(f"turned_every: {self.turned_every} does not divide batch_size ({self.batch_size})")
        return self


class Losses(Section):
    """Weights of the generator's losses and the recipe of the adversarial game."""

    adversarial: NonNegative = 1.0  # what the discriminator says of the pose seen from elsewhere
    cycle_2d: NonNegative = 10.0  # lift, turn, project, lift, turn back: is it the input again?
    cycle_3d: NonNegative = 0.0  # is the second lift the first one, turned?
    consistency_90: NonNegative = 3.0  # is the depth lifted from a quarter or half turn the known one?
    bone_prior: NonNegative = 0.0  # mean human bone ratios: needs 3D statistics, so this is weak supervision
    bend: NonNegative = 0.0  # anatomical prior: knees bend forward, elbows backward
    bend_margin: NonNegative = 0.0  # how far knees and elbows should bend at least, in limb lengths
    r1: NonNegative = 0.0  # penalty on the discriminator's slope at real poses (arXiv 1801.04406)
    adversarial_kind: Literal["least_squares", "cross_entropy"] = "least_squares"  # the game's loss
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0  # what real poses are to score; below 1: soft labels
    label_swap: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # probability that a pose's real/fake label is swapped
    extra: dict[str, NonNegative] = {}  # weights of further terms, registered by plug-ins


ByGoal = NonNegative | None  # what follows from ``stopping.goal`` where it is not set


class Policy(Section):
    """Every threshold of the detectors; counts are evaluation steps unless named otherwise.

    The defaults were calibrated on procedural motion (``benchmarks/stability``).
    """

    warm_up: Share = 0.2  # share of the budget before any verdict but non_finite
    patience: Count = 6  # evaluation steps in a row that a fixed threshold must be crossed
    dominance: NonNegative = 0.1  # discriminator loss, 0 = perfect and 1 = balanced, below which it dominates
    dominance_accuracy: NonNegative = 0.98  # and accuracy on held-out poses, above which it dominates
    failure: NonNegative = 1.6  # discriminator loss on the same scale, above which it has failed
    flat: NonNegative = 0.1  # depth spread over x spread below which poses are flat
    deep: NonNegative = 4.0  # and above which they are stretched beyond any human
    drift_slack: Annotated[NonNegative, Before(0.12)] = 0.1  # log risk above the best that is forgiven
    drift_alarm: Annotated[NonNegative, Before(0.4)] = 0.4  # accumulated excess of log risk that raises the alarm
    drifting_slack: Annotated[NonNegative, Before(10.0)] = 0.035  # the same of a slow rise
    drifting_alarm: Annotated[ByGoal, Before(10.0)] = None  # and the same; null: by the goal
    crossing: Annotated[Share, Before(1.0)] = 0.05  # share of mirrored poses from which a seed is in a crossing
    plateau_share: Annotated[ByGoal, Before(0.4)] = None  # share of the budget without progress; null: by the goal
    plateau_wait: Annotated[NonNegative, Before(0.0)] = 0.3  # and of the steps before, that make a plateau,
    plateau_patience: Annotated[Count, Before(12)] = 6  # and evaluation steps without progress,
    plateau_learnt: Annotated[NonNegative, Before(0.8)] = 0.8  # once the best risk is below this share of the first
    plateau_progress: Annotated[ByGoal, Before(0.01)] = None  # what counts as progress; null: by the goal
    smoothing: NonNegative = 0.4  # weight of the newest value in the smoothed risk


def _percent(value: Any) -> Any:
    """``1 %`` is 0.01."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


class Goal(Section):
    """What stopping may cost: the thresholds that are not set in ``stopping.policy`` follow from it."""

    loss: Annotated[float, BeforeValidator(_percent), Field(ge=0.005, le=0.05)] = 0.01  # of the error: 0.01, or "1 %"


class Stopping(Section):
    """Which verdicts end a seed's run (``non_finite`` always does), and the thresholds behind them."""

    divergence: Literal["default", "off"] = "default"  # end seeds that diverged or collapsed
    plateau: Literal["default", "off"] = "default"  # end seeds that plateaued or drift: more training buys nothing
    goal: Goal = Goal()  # how much error may be risked by it
    freed: Literal["speed", "thaw", "trials"] = "speed"  # who gets the steps saved: running seeds, frozen, new trials
    trials: Literal["off", "test"] = "off"  # test: end trials that are surely worse than the best
    detectors: list[str] = []  # further detectors, registered by plug-ins
    policy: Policy = Policy()  # the thresholds behind the verdicts; those that are null follow from the goal


SEARCH_STORAGE = "TIPS_DIST_SEARCH_STORAGE"  # environment variable: the Optuna storage of `search.storage: environment`


class Search(Section):
    """How many trials each representation gets, and who proposes their configurations."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 1  # for each representation: equal budgets
    sampler: str = "tpe"  # who proposes: tpe, gp, nsga2, cmaes, qmc, random, grid, or one that a plug-in registered
    objectives: Annotated[list[Literal["risk", "instability"]], Field(min_length=1)] = ["risk"]  # minimised
    scheduler: Literal["none", "asha", "median"] = "none"  # stops whole trials early, on their risk
    storage: Literal["environment"] | None = None  # None: optuna.journal in the run folder; else see SEARCH_STORAGE
    enqueue: Annotated[
        list[dict[str, float | int | str | bool]], Field(max_length=10_000)
    ] = []  # known-good points to try first

    @field_validator("storage", mode="before")
    @classmethod
    def _no_address(cls, storage: Any) -> Any:
        if isinstance(storage, str) and storage != "environment":
            raise ValueError(
                f"an address does not belong into a study file; write 'environment' and set {SEARCH_STORAGE}"
            )
        return storage


class Resources(Section):
    """What one trial occupies."""

    cpus: Annotated[float, Field(gt=0)] = 1  # cores; threads follow them
    gpus: NonNegative | Literal["auto"] = "auto"  # cards, or a fraction of one; auto: one a worker where there are any
    workers: Count = 1  # processes that train the trial together and share its cpus and gpus
    max_concurrent: Annotated[int, Field(ge=0)] = 0  # trials at a time; 0: as many as fit
    pack: Annotated[Count | Literal["auto"], Before(1)] = "auto"  # trials at most that train as one program
    max_failures: Annotated[int, Field(ge=0)] = 3  # deaths of a trial's worker before the trial counts as failed
    heartbeat_seconds: Positive = 60.0  # a worker without a sign of life for this long is killed and replaced


class Distillation(Section):
    """How the student learns from the teachers."""

    teachers: Annotated[Count, Before(3)] = 10  # checkpoints in all, of all seeds, that teach the student
    steps: Count = 2000  # of the student's training
    batch_size: BatchSize = 256  # poses per step
    lr: Positive = 1e-3  # Adam's learning rate
    noise: NonNegative = 0.0  # added to every input joint: its deviation as a share of the mean root-head distance
    joint_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of joints put where their parent is


class Dimension(Section):
    """One searched key; ``only`` limits it to some representations (none listed: all of them)."""

    only: list[str] = []  # representations whose trials have this dimension; empty: all


class Uniform(Dimension):
    """A float, uniform over ``[low, high]``."""

    uniform: tuple[float, float]  # [low, high]


class LogUniform(Dimension):
    """A float, uniform in its logarithm."""

    log_uniform: tuple[Positive, Positive]  # [low, high], both above 0


class Integer(Dimension):
    """An integer from ``low`` to ``high``, both included."""

    int: tuple[int, int]  # [low, high]


class OneOf(Dimension):
    """One of the values listed."""

    choice: Annotated[list[bool | int | float | str], Field(min_length=1, max_length=128)]  # the values


Distribution = Uniform | LogUniform | Integer | OneOf


def _contains(distribution: Distribution, value: Any) -> bool:
    match distribution:
        case OneOf(choice=values):
            return value in values
        case Uniform(uniform=(low, high)) | LogUniform(log_uniform=(low, high)):
            return not isinstance(value, (str, bool)) and bool(low <= value <= high)
        case Integer(int=(low, high)):
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


class Configuration(Section):
    """Everything that decides a run's numbers except its seed."""

    representation: str = "solo"
    model: Model = Model()
    training: Training = Training()
    losses: Losses = Losses()
    stopping: Stopping = Stopping()


class Study(Section):
    """A whole study file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]  # run folders are called after it
    seed: SeedNumber = 0  # the one random start that all others of the study follow from
    data: Data = Data()  # the 2D poses
    representations: Annotated[list[str], Field(min_length=1)]  # how the 2D pose is cut up for lifting
    seeds: Annotated[int, Field(ge=1, le=4096)] = 4  # per configuration, packed into one program
    model: Model = Model()  # network sizes
    training: Training = Training()  # how one run trains
    losses: Losses = Losses()  # the generator's losses and the game
    stopping: Stopping = Stopping()  # which verdicts end a seed
    search: Search = Search()  # how many trials, and who proposes them
    space: Annotated[dict[str, Distribution], Field(max_length=64)] = {}  # what is searched: dotted key -> distribution
    resources: Resources = Resources()  # what one trial occupies
    distillation: Distillation = Distillation()  # how the student learns

    @model_validator(mode="after")
    def _check(self) -> Study:
        if len(set(self.representations)) != len(self.representations):
            raise ValueError("representations: a name stands twice")
        if self.search.trials > 1 and not self.space:
            raise ValueError(
                f"space: empty, so all {self.search.trials} trials of search.trials would be the same; "
                "add a dimension or set search.trials to 1"
            )
        for key, distribution in self.space.items():
            self._check_dimension(key, distribution)
        for index, point in enumerate(self.search.enqueue):
            for key, value in point.items():
                if key not in self.space:
                    raise ValueError(f"search.enqueue[{index}].{key}: not in the search space")
                if not _contains(self.space[key], value):
                    raise ValueError(f"search.enqueue[{index}].{key}: {value!r} lies outside the search space")
        if len(set(self.search.objectives)) != len(self.search.objectives):
            raise ValueError("search.objectives: a name stands twice")
        if len(self.search.objectives) > 1 and self.search.scheduler != "none":
            raise ValueError("search.scheduler: asha and median compare one objective; drop one of the two")
        if self.search.objectives != ["risk"] and self.stopping.trials == "test":
            raise ValueError(
                "stopping.trials: test compares the risk alone; set it to off, or search.objectives to [risk]"
            )
        if self.search.sampler == "grid":
            for key, distribution in self.space.items():
                if not isinstance(distribution, OneOf):
                    raise ValueError(f"space.{key}: the grid sampler needs a choice of values")
        return self

    def _check_dimension(self, key: str, distribution: Distribution) -> None:
        if key.split(".")[0] not in ("model", "training", "losses"):
            raise ValueError(f"space.{key}: only model, training and losses can be searched")
        for name in distribution.only:
            if name not in self.representations:
                raise ValueError(f"space.{key}.only: '{name}' is not among the study's representations")
        values: list[Any]
        match distribution:
            case OneOf(choice=values):
                pass
            case Uniform(uniform=(low, high)) | LogUniform(log_uniform=(low, high)) | Integer(int=(low, high)):
                values = [low, high]
                if not low < high:
                    raise ValueError(f"space.{key}: the lower end {low} is not below the upper end {high}")
        for value in values:
            try:
                self.configuration(self.representations[0], {key: value})
            except UserError as error:
                raise ValueError(f"space.{key}: value {value!r} does not fit: {error}") from None

    def configuration(
        self, representation: str, parameters: typing.Mapping[str, Any] = types.MappingProxyType({})
    ) -> Configuration:
        """Apply one point of the search space (dotted keys) to the shared values.

        Raises:
            UserError: a key is unknown or a value does not fit its type.
        """
        values: dict[str, object] = {
            "representation": representation,
            "model": self.model.model_dump(),
            "training": self.training.model_dump(),
            "losses": self.losses.model_dump(),
            "stopping": self.stopping.model_dump(),
        }
        for key, value in parameters.items():
            set_dotted(values, key, value)
        return validate(Configuration, values, where="parameters")
