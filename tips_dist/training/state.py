"""A trial's state: its players and judges; created, compacted, dumped and restored here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.models import BaseLifter, initialise
from tips_dist.runfolder import Candidate
from tips_dist.runfolder.records import StateRecord
from tips_dist.runfolder.spent import Spent
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.tensors import on_host, rows_of
from tips_dist.training import precision
from tips_dist.training.averaging import CROSSED
from tips_dist.training.group import ALONE, Group
from tips_dist.training.players import Players, Row
from tips_dist.training.sampling import stream

FIRST_ITERATIONS = 15  # of the power method at the start; afterwards one a step keeps up with the weights


@dataclass
class Kept:
    """A candidate with its weights: one seed's lifter; None where they could not be read back."""

    about: Candidate
    tensors: dict[str, Tensor] | None = field(repr=False)


class State(Players):
    """Everything that changes while a trial trains; row i of the players belongs to ``active[i]``."""

    def __init__(
        self, configuration: Configuration, seeds: tuple[int, ...], device: torch.device, group: Group = ALONE
    ) -> None:
        """Begin at step 0 with every seed, its weights drawn from its own stream; ``group``: who shares this trial."""
        training, losses = configuration.training, configuration.losses
        kind, self.note = precision.effective(training.precision, device)  # the note says why it is not the one asked
        self.seeds = seeds
        self.active = list(seeds)
        self.seconds = 0.0
        self.spent = Spent()  # what they went to
        self.stopped: dict[int, int] = {}  # seed -> step at which a verdict ended it
        self.frozen: dict[int, int] = {}  # seed -> step of its kept state, see freezing.py
        self.thawed: dict[int, int] = {}  # seed -> step from which it went on all the same
        self.round = 0  # how often the steps began again, for seeds that were thawed
        self.best: dict[int, tuple[float, int]] = {}  # seed -> (lowest risk, its step)
        recipe = Recipe(losses.adversarial_kind, losses.label_swap, losses.real_label)
        self.judges = {seed: Judge.of(training.steps, recipe, configuration.stopping) for seed in seeds}
        self.candidates: dict[int, list[Kept]] = {seed: [] for seed in seeds}
        self.average_since = dict.fromkeys(seeds, 0)  # seed -> the step at which its average began
        self.opposed: dict[int, float] = {}  # seed -> how opposed its average was to the raw weights
        matmul = precision.choose(kind, configuration.model.width, device)
        super().__init__([Row(seed, configuration) for seed in seeds], device, group, kind, matmul)
        self._note()
        self.lifter.draw([stream(seed, "lifter") for seed in self.seeds])
        initialise(self.discriminator, [stream(seed, "discriminator") for seed in self.seeds])
        if self.configuration.model.spectral_norm:
            self.discriminator.iterate(FIRST_ITERATIONS)
        if self.averaging is not None:
            self.averaging.restart(range(len(self.active)))

    def _build(self) -> None:
        """Networks and optimisers for the active seeds, weights not yet set."""
        self.build([Row(seed, self.configuration) for seed in self.active])
        self._note()

    def _note(self) -> None:
        """Tell the players what is known of each active seed's average."""
        self.since = [self.average_since[seed] for seed in self.active]
        crossed = [self.opposed.get(seed, 0.0) > CROSSED for seed in self.active]
        self._crossed = torch.tensor(crossed, device=self.device)

    @property
    def judged(self) -> BaseLifter:
        """The lifters that are judged, kept and taught: averaged, or raw where no average is kept."""
        return self.averaged or self.lifter

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
        self.since = [self.average_since[seed] for seed in self.active]

    def compact(self, ended: Sequence[int]) -> None:
        """Take the rows of ended seeds out of parameters and optimiser state, so that the others train faster."""
        if not ended:
            return
        rows = [row for row, seed in enumerate(self.active) if seed not in ended]
        tensors = self.tensors()
        before = len(self.active)
        self.active = [self.active[row] for row in rows]
        if self.active:
            self._build()
            self.set_tensors({name: rows_of(tensor, rows, before) for name, tensor in tensors.items()})

    def take(self, seed: int) -> dict[str, Tensor]:
        """Copies of one active seed's tensors, as a pack of one."""
        row, seeds = self.active.index(seed), len(self.active)
        return on_host({name: rows_of(tensor, [row], seeds) for name, tensor in self.tensors().items()})

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
        self.set_tensors({name: torch.cat([rows[seed][name] for seed in self.active]) for name in names})

    def reached(self, seed: int) -> int:
        """The step up to which a seed has trained."""
        if seed in self.active:
            return self.step
        return self.stopped.get(seed, self.configuration.training.steps)

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
        tensors = self.tensors() if self.active else {"none": torch.zeros(1)}
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
            self.set_tensors(tensors)
