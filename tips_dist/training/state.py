"""A run's state: packed networks, optimisers and judges; created, compacted, dumped and restored here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tips_dist import counters
from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.models import BaseLifter, Discriminator, Lifter, initialise
from tips_dist.models.base import check_lifter
from tips_dist.models.blocks import PackedBatchNorm, PackedDropout, ResidualBlock
from tips_dist.registry import BUILT_IN, entry
from tips_dist.runfolder import Candidate
from tips_dist.runfolder.records import StateRecord
from tips_dist.runfolder.spent import Spent
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.tensors import on_host, rows_of
from tips_dist.training import precision
from tips_dist.training.adam import PackedAdam
from tips_dist.training.averaging import CROSSED, Average
from tips_dist.training.group import ALONE, Group
from tips_dist.training.sampling import stream
from tips_dist.training.values import Values

ALL = slice(None)
FIRST_ITERATIONS = 15  # of the power method at the start; afterwards one a step keeps up with the weights


@dataclass
class Kept:
    """A candidate with its weights: one seed's lifter; None where they could not be read back."""

    about: Candidate
    tensors: dict[str, Tensor] | None = field(repr=False)


@dataclass
class State:
    """Everything that changes while a run trains; row i of the packed networks belongs to ``active[i]``."""

    configuration: Configuration
    seeds: tuple[int, ...]
    device: torch.device
    own: Mapping[str, Sequence[float]] = field(default_factory=dict)  # hyperparameters of single seeds, see values.py
    group: Group = ALONE  # the workers that share this trial
    active: list[int] = field(init=False)
    matmul: precision.Backend = "default"  # the backend of float32 products that the run uses, see precision.py
    precision: precision.Precision = "float32"  # of matrix products: what was asked for, or float32 where that is slow
    note: str = ""  # why it is not what was asked for
    step: int = 0
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)  # what they went to
    judges: dict[int, Judge] = field(init=False)
    stopped: dict[int, int] = field(default_factory=dict)  # seed -> step at which a verdict ended it
    frozen: dict[int, int] = field(default_factory=dict)  # seed -> step of its kept state, see freezing.py
    thawed: dict[int, int] = field(default_factory=dict)  # seed -> step from which it went on all the same
    round: int = 0  # how often the steps began again, for seeds that were thawed
    best: dict[int, tuple[float, int]] = field(default_factory=dict)  # seed -> (lowest risk, its step)
    candidates: dict[int, list[Kept]] = field(init=False)
    sums: dict[str, Tensor] = field(default_factory=dict)  # losses summed since the last evaluation step
    lifter: BaseLifter = field(init=False)
    discriminator: Discriminator = field(init=False)
    optimisers: dict[str, PackedAdam] = field(init=False)
    averaging: Average | None = field(init=False)  # None without averaging, and on the workers other than rank 0
    average_since: dict[int, int] = field(init=False)  # seed -> the step at which its average began
    opposed: dict[int, float] = field(default_factory=dict)  # seed -> how opposed its average was to the raw weights

    def __post_init__(self) -> None:
        training, losses = self.configuration.training, self.configuration.losses
        self.precision, self.note = precision.effective(training.precision, self.device)
        self.matmul = precision.choose(self.precision, self.configuration.model.width, self.device)
        recipe = Recipe(losses.adversarial_kind, losses.label_swap, losses.real_label)
        self.values = Values(self.configuration, self.seeds, self.own)
        self.active = list(self.seeds)
        stopping = self.configuration.stopping
        self.judges = {seed: Judge.of(training.steps, recipe, stopping) for seed in self.seeds}
        self.candidates = {seed: [] for seed in self.seeds}
        self.average_since = dict.fromkeys(self.seeds, 0)
        self._build()
        self.lifter.draw([stream(seed, "lifter") for seed in self.seeds])
        initialise(self.discriminator, [stream(seed, "discriminator") for seed in self.seeds])
        if self.configuration.model.spectral_norm:
            self.discriminator.iterate(FIRST_ITERATIONS)
        if self.averaging is not None:
            self.averaging.restart(range(len(self.active)))

    def _build(self) -> None:
        """Networks and optimisers for the active seeds, weights not yet set."""
        model, training = self.configuration.model, self.configuration.training
        seeds = len(self.active)
        self.lifter = self._lifter()
        self._random = self.lifter.is_random
        self.discriminator = Discriminator(
            model.width, model.discriminator_blocks, seeds, spectral=model.spectral_norm
        ).to(self.device)
        averages = training.average > 0 and training.judge != "raw" and self.group.rank == 0
        self.averaging = Average(self._lifter(), self.lifter, training.average) if averages else None
        for network in (*self.networks.values(), *([self.averaged] if self.averaged else [])):
            for layer in network.modules():
                if isinstance(layer, ResidualBlock) and self.precision == "bf16":
                    layer.dtype = torch.bfloat16
        for network in self.networks.values():
            for layer in network.modules():
                if isinstance(layer, PackedBatchNorm):
                    layer.average = self.group.mean
                elif isinstance(layer, PackedDropout):
                    layer.share = (self.group.rank, self.group.size, training.batch_size // self.group.size)
            if training.compile:
                network.compile(mode="reduce-overhead" if self.device.type == "cuda" else None)
        self.optimisers = {
            name: PackedAdam(network.parameters(), seeds, training.beta1, training.beta2, training.weight_decay)
            for name, network in self.networks.items()
        }
        self.weights = self.values.weights(self.active, self.device)
        self.clock = torch.full((), self.step, device=self.device)
        self.keys = counters.keys(self.active, "dropout", self.device)
        crossed = [self.opposed.get(seed, 0.0) > CROSSED for seed in self.active]
        self._crossed = torch.tensor(crossed, device=self.device)

    def _lifter(self) -> BaseLifter:
        """A pack of lifters for the active seeds, weights not yet set."""
        model, name = self.configuration.model, self.configuration.representation
        found = entry("lifters", model.lifter)
        options = {"batch_norm": model.batch_norm, "dropout": model.dropout}
        try:
            multiple = [model.width_multiple] if issubclass(found.value, Lifter) else []
            width = found.value.width_for(name, model.width, *multiple)
            made: BaseLifter = found.value(REPRESENTATIONS[name], width, len(self.active), **options).to(self.device)
            if found.source is not BUILT_IN:
                check_lifter(made)
        except Exception as error:
            if found.source is BUILT_IN:
                raise
            said = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(f"{found}: {said}") from error
        return made

    @property
    def averaged(self) -> BaseLifter | None:
        """The averaged lifters, in evaluation mode, where an average is kept."""
        return self.averaging.lifter if self.averaging is not None else None

    @property
    def judged(self) -> BaseLifter:
        """The lifters that are judged, kept and taught: averaged, or raw where no average is kept."""
        return self.averaged or self.lifter

    def update_average(self) -> None:
        """Take the weights after a step into the averages."""
        if self.averaging is not None:
            self.averaging.update([self.step - 1 - self.average_since[seed] for seed in self.active])

    def compare_averages(self, opposed: Tensor, behind: Tensor) -> Tensor:
        """Restart the averages that a crossing left behind, given how each active seed's compares with raw weights.

        Returns:
            Which began anew (S,); :meth:`note_averages` is to be told of them once they are known to the host.
        """
        late = (behind.double() > CROSSED) & self._crossed
        if self.averaging is not None:
            self.averaging.restart_where(late)
        self._crossed = (opposed.double() > CROSSED) & opposed.isfinite() & ~late
        return late

    def note_averages(self, opposed: Sequence[float], late: Sequence[float]) -> None:
        """Remember what :meth:`compare_averages` did."""
        self.average_since |= {seed: self.step for seed, began in zip(self.active, late, strict=True) if began}
        shares = zip(self.active, opposed, strict=True)
        self.opposed = {s: share for s, share in shares if math.isfinite(share) and self.average_since[s] < self.step}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both players by name."""
        return {"lifter": self.lifter, "discriminator": self.discriminator}

    def seed_dropout(self, rows: slice = ALL) -> None:
        """Give the lifter one random stream per seed for this step: a key on the device, or a generator of the CPU."""
        if not self._random:
            return
        counted = self.configuration.training.random == "counted"
        if not (counted and self.lifter.take_keys(counters.at(self.keys[rows], self.clock))):
            self.lifter.take_generators([stream(seed, "dropout", self.step) for seed in self.active[rows]])

    def advance(self) -> None:
        """A step is done."""
        self.step += 1
        self.clock += 1

    def norms(self) -> dict[str, Tensor]:
        """Per seed, (S,): each player's gradient norm and its last update relative to its weights."""
        found, rates = {}, self.values.rates(self.active, self.step - 1)
        for player, optimiser in self.optimisers.items():
            found[f"gradients/{player}"], found[f"updates/{player}"] = optimiser.norms(self.step, rates[player])
        return found

    def compact(self, ended: Sequence[int]) -> None:
        """Take the rows of ended seeds out of parameters and optimiser state, so that the others train faster."""
        if not ended:
            return
        rows = [row for row, seed in enumerate(self.active) if seed not in ended]
        tensors = self._tensors()
        before = len(self.active)
        self.active = [self.active[row] for row in rows]
        if self.active:
            self._build()
            self._set_tensors({name: rows_of(tensor, rows, before) for name, tensor in tensors.items()})

    def take(self, seed: int) -> dict[str, Tensor]:
        """Copies of one active seed's tensors, as a pack of one."""
        row, seeds = self.active.index(seed), len(self.active)
        return on_host({name: rows_of(tensor, [row], seeds) for name, tensor in self._tensors().items()})

    def join(self, step: int, given: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Let seeds train on from ``step``, with what :meth:`take` gave; where the others have not ended: with them.

        Theirs is the place in the pack that they had, so that the order of seeds is always that of ``seeds``.
        """
        alone = step != self.step or not self.active
        rows = {**({} if alone else {seed: self.take(seed) for seed in self.active}), **given}
        self.round += step < self.step
        self.step, self.active = step, [seed for seed in self.seeds if seed in rows]
        self._build()
        names = next(iter(given.values()))
        self._set_tensors({name: torch.cat([rows[seed][name] for seed in self.active]) for name in names})

    def reached(self, seed: int) -> int:
        """The step up to which a seed has trained."""
        if seed in self.active:
            return self.step
        return self.stopped.get(seed, self.configuration.training.steps)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of both players, each with a leading axis of (a multiple of) the active seeds."""
        tensors = {f"sums/{name}": value for name, value in self.sums.items()}
        if self.averaged is not None:
            tensors |= {f"averaged/{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for player, network in self.networks.items():
            tensors |= {f"{player}/{name}": tensor.detach() for name, tensor in network.state_dict().items()}
            for name, mean, square in self._moments(player):
                tensors |= {f"{player}.exp_avg/{name}": mean, f"{player}.exp_avg_sq/{name}": square}
        return tensors

    def _moments(self, player: str) -> list[tuple[str, Tensor, Tensor]]:
        """Each parameter's name and Adam's two moments of it, in place."""
        names = [name for name, _ in self.networks[player].named_parameters()]
        optimiser = self.optimisers[player]
        return list(zip(names, optimiser.means, optimiser.squares, strict=True))

    def _set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.sums = {name: value.to(self.device) for name, value in _below("sums/", tensors).items()}
        for player, network in self.networks.items():
            network.load_state_dict(_below(f"{player}/", tensors))
            for name, mean, square in self._moments(player):
                mean.copy_(tensors[f"{player}.exp_avg/{name}"])
                square.copy_(tensors[f"{player}.exp_avg_sq/{name}"])
        if self.averaged is not None:
            self.averaged.load_state_dict(_below("averaged/", tensors))

    def dump(self) -> tuple[dict[str, Tensor], StateRecord]:
        """Copies of all tensors, and a record, from which :meth:`restore` goes on exactly."""
        record = StateRecord(
            seeds=list(self.seeds),
            active=self.active,
            step=self.step,
            seconds=self.seconds,
            spent=self.spent,
            matmul=self.matmul,
            stopped=self.stopped,
            frozen=self.frozen,
            thawed=self.thawed,
            round=self.round,
            best=self.best,
            average_since=self.average_since,
            opposed=self.opposed,
            judges={seed: judge.dump() for seed, judge in self.judges.items()},
            candidates={seed: [one.about for one in kept] for seed, kept in self.candidates.items()},
        )
        tensors = self._tensors() if self.active else {"none": torch.zeros(1)}
        return on_host({n: t.clone() if t.device.type == "cpu" else t for n, t in tensors.items()}), record

    def restore(self, tensors: Mapping[str, Tensor], record: StateRecord) -> None:
        """Go on where :meth:`dump` left off; candidates' tensors are read back by the caller.

        Raises:
            UserError: the state belongs to other seeds.
        """
        if tuple(record.seeds) != self.seeds:
            raise UserError(f"checkpoint: belongs to seeds {record.seeds}, not to {list(self.seeds)}")
        self.matmul = precision.known(record.matmul, self.matmul)
        self.active = list(record.active)
        self.step, self.seconds, self.spent = record.step, record.seconds, record.spent
        self.stopped, self.best = dict(record.stopped), dict(record.best)
        self.frozen, self.thawed, self.round = dict(record.frozen), dict(record.thawed), record.round
        self.average_since |= record.average_since
        self.opposed = dict(record.opposed)
        for seed, judge in record.judges.items():
            self.judges[seed].load(judge)
        if self.active:
            self._build()
            self._set_tensors(tensors)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, named by the rest."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
