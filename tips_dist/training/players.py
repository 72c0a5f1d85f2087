"""Both players of the rows of a pack, and all that moves with them in a step: optimisers, averages, values, sums.

A row is one network of each player: one seed of one configuration. Rows never mix, so which rows are together changes
no number: a trial's seeds (:class:`~tips_dist.training.state.State`), or the seeds of several trials
(:mod:`~tips_dist.training.together`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tips_dist import counters
from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.models import BaseLifter, Discriminator, Lifter
from tips_dist.models.base import check_lifter
from tips_dist.models.blocks import PackedBatchNorm, PackedDropout, ResidualBlock
from tips_dist.registry import BUILT_IN, entry
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training import precision
from tips_dist.training.adam import PackedAdam
from tips_dist.training.averaging import Average
from tips_dist.training.group import ALONE, Group
from tips_dist.training.job import averages
from tips_dist.training.sampling import stream
from tips_dist.training.values import Values

ALL = slice(None)


@dataclass(frozen=True)
class Row:
    """One network of each player: a seed of a configuration."""

    seed: int
    configuration: Configuration


class Players:
    """The packed networks of some rows and all that a step moves; ``step`` counts the steps taken.

    All rows have the same :func:`~tips_dist.training.job.program`.
    """

    lifter: BaseLifter
    discriminator: Discriminator
    optimisers: dict[str, PackedAdam]
    averaging: Average | None  # None without averaging, and on the workers other than rank 0

    def __init__(
        self,
        rows: Sequence[Row],
        device: torch.device,
        group: Group = ALONE,
        kind: precision.Precision = "float32",
        matmul: precision.Backend = "default",
        step: int = 0,
    ) -> None:
        """Make networks for ``rows``, weights not yet set; ``kind`` and ``matmul``: see module ``precision``."""
        self.device, self.group, self.precision, self.matmul, self.step = device, group, kind, matmul, step
        self.sums: dict[str, Tensor] = {}  # losses summed since the last evaluation step
        self.build(rows)

    def build(self, rows: Sequence[Row]) -> None:
        """Networks and optimisers for these rows, weights not yet set."""
        self.rows = tuple(rows)
        self.since = [0] * len(rows)  # the step at which the average of each row's weights began
        self.values = Values(tuple(row.configuration for row in rows))
        model, training, count = self.configuration.model, self.configuration.training, len(rows)
        self.lifter = self._lifter()
        self._random = self.lifter.is_random
        self.discriminator = Discriminator(
            model.width, model.discriminator_blocks, count, spectral=model.spectral_norm
        ).to(self.device)
        keeps = averages(self.configuration) and self.group.rank == 0
        decays = self.values.of("training.average")
        self.averaging = Average(self._lifter(), self.lifter, decays) if keeps else None
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
        self.optimisers = {name: PackedAdam(network.parameters(), count) for name, network in self.networks.items()}
        self.weights = self.values.weights(self.device)
        self.longest = self.values.on(self.device, "training.gradient_clip")
        self.clock = torch.full((), self.step, device=self.device)
        self.keys = counters.keys([row.seed for row in rows], "dropout", self.device)

    def _lifter(self) -> BaseLifter:
        """A pack of lifters for the rows, weights not yet set."""
        model, name = self.configuration.model, self.configuration.representation
        found = entry("lifters", model.lifter)
        options = {"batch_norm": model.batch_norm, "dropout": model.dropout}
        try:
            multiple = [model.width_multiple] if issubclass(found.value, Lifter) else []
            width = found.value.width_for(name, model.width, *multiple)
            made: BaseLifter = found.value(REPRESENTATIONS[name], width, len(self.rows), **options).to(self.device)
            if found.source is not BUILT_IN:
                check_lifter(made)
        except Exception as error:
            if found.source is BUILT_IN:
                raise
            said = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(f"{found}: {said}") from error
        return made

    @property
    def configuration(self) -> Configuration:
        """What the rows share of their configurations stands in the first one's."""
        return self.rows[0].configuration

    @property
    def averaged(self) -> BaseLifter | None:
        """The averaged lifters, in evaluation mode, where an average is kept."""
        return self.averaging.lifter if self.averaging is not None else None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both players by name."""
        return {"lifter": self.lifter, "discriminator": self.discriminator}

    def seed_dropout(self, rows: slice = ALL) -> None:
        """Give the lifter one random stream per row for this step: a key on the device, or a generator of the CPU."""
        if not self._random:
            return
        counted = self.configuration.training.random == "counted"
        if not (counted and self.lifter.take_keys(counters.at(self.keys[rows], self.clock))):
            self.lifter.take_generators([stream(row.seed, "dropout", self.step) for row in self.rows[rows]])

    def advance(self) -> None:
        """A step is done."""
        self.step += 1
        self.clock += 1

    def update_average(self) -> None:
        """Take the weights after a step into the averages."""
        if self.averaging is not None:
            self.averaging.update([self.step - 1 - since for since in self.since])

    def norms(self) -> dict[str, Tensor]:
        """Per row, (S,): each player's gradient norm and its last update relative to its weights."""
        found, moments = {}, self.values.moments(self.step - 1)
        for player, optimiser in self.optimisers.items():
            found[f"gradients/{player}"], found[f"updates/{player}"] = optimiser.norms(self.step, moments[player])
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, in place, each with a leading axis of (a multiple of) the rows."""
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

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy in what :meth:`tensors` gave."""
        self.sums = {name: value.to(self.device) for name, value in _below("sums/", tensors).items()}
        for player, network in self.networks.items():
            network.load_state_dict(_below(f"{player}/", tensors))
            for name, mean, square in self._moments(player):
                mean.copy_(tensors[f"{player}.exp_avg/{name}"])
                square.copy_(tensors[f"{player}.exp_avg_sq/{name}"])
        if self.averaged is not None:
            self.averaged.load_state_dict(_below("averaged/", tensors))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, named by the rest."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
