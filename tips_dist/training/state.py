"""A run's state: packed networks, optimisers and judges; created, compacted, dumped and restored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.models import Discriminator, Lifter, initialise, matched_width
from tips_dist.models.blocks import PackedDropout
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.training.sampling import stream


@dataclass
class Candidate:
    """A checkpoint kept because its risk was low: one seed's lifter weights."""

    step: int
    risk: float
    part_signs: list[int]
    sign_confidence: list[float]
    tensors: dict[str, Tensor] = field(repr=False)

    def record(self) -> dict[str, Any]:
        """All but the tensors, as plain data."""
        return {
            "step": self.step,
            "risk": self.risk,
            "part_signs": self.part_signs,
            "sign_confidence": self.sign_confidence,
        }


@dataclass
class State:
    """Everything that changes while a run trains; row i of the packed networks belongs to ``active[i]``."""

    configuration: Configuration
    seeds: tuple[int, ...]
    device: torch.device
    active: list[int] = field(init=False)
    step: int = 0
    seconds: float = 0.0
    judges: dict[int, Judge] = field(init=False)
    stopped: dict[int, int] = field(default_factory=dict)  # seed -> step at which a verdict ended it
    best: dict[int, tuple[float, int]] = field(default_factory=dict)  # seed -> (lowest risk, its step)
    candidates: dict[int, list[Candidate]] = field(init=False)
    sums: dict[str, Tensor] = field(default_factory=dict)  # losses summed since the last evaluation step
    lifter: Lifter = field(init=False)
    discriminator: Discriminator = field(init=False)
    optimisers: dict[str, torch.optim.Adam] = field(init=False)

    def __post_init__(self) -> None:
        training, losses = self.configuration.training, self.configuration.losses
        recipe = Recipe(losses.adversarial_kind, losses.label_swap, losses.real_label)
        self.active = list(self.seeds)
        self.judges = {seed: Judge(training.steps, recipe, self.configuration.stopping.policy) for seed in self.seeds}
        self.candidates = {seed: [] for seed in self.seeds}
        self._build()
        initialise(self.lifter, [stream(seed, "lifter") for seed in self.seeds])
        initialise(self.discriminator, [stream(seed, "discriminator") for seed in self.seeds])

    def _build(self) -> None:
        """Networks and optimisers for the active seeds, weights not yet set."""
        model, name = self.configuration.model, self.configuration.representation
        seeds = len(self.active)
        self.lifter = Lifter(
            REPRESENTATIONS[name],
            matched_width(name, model.width),
            seeds,
            batch_norm=model.batch_norm,
            dropout=model.dropout,
        ).to(self.device)
        self.discriminator = Discriminator(model.width, model.discriminator_blocks, seeds).to(self.device)
        training = self.configuration.training
        rates = {"lifter": training.generator_lr, "discriminator": training.discriminator_lr}
        self.optimisers = {
            name: torch.optim.Adam(
                network.parameters(),
                lr=rates[name],
                betas=(training.beta1, training.beta2),
                weight_decay=training.weight_decay,
                fused=True,
            )
            for name, network in self.networks.items()
        }

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both players by name."""
        return {"lifter": self.lifter, "discriminator": self.discriminator}

    def set_rates(self) -> None:
        """Decay both learning rates exponentially to ``final_lr_factor`` at the last step."""
        training = self.configuration.training
        factor = training.final_lr_factor ** (self.step / training.steps)
        for name, rate in (("lifter", training.generator_lr), ("discriminator", training.discriminator_lr)):
            self.optimisers[name].param_groups[0]["lr"] = rate * factor

    def seed_dropout(self) -> None:
        """Give every dropout layer one random stream per seed for this step (drawn on the CPU)."""
        if self.configuration.model.dropout:
            layers = [layer for layer in self.lifter.modules() if isinstance(layer, PackedDropout)]
            generators = [stream(seed, "dropout", self.step) for seed in self.active]
            for layer in layers:
                layer.generators = generators

    @torch.no_grad()
    def norms(self) -> dict[str, Tensor]:
        """Per seed, (S,): each player's gradient norm and its last update relative to its weights.

        The update is Adam's own step, recomputed from its moments, so nothing has to be remembered.
        """
        seeds, found = len(self.active), {}
        for player, network in self.networks.items():
            gradient, update, weight = (torch.zeros(seeds, device=self.device) for _ in range(3))
            group = self.optimisers[player].param_groups[0]
            (beta1, beta2), rate = group["betas"], group["lr"]
            for parameter, moments in zip(network.parameters(), self._moments(player), strict=True):
                mean = moments["exp_avg"] / (1 - beta1**self.step)
                deviation = (moments["exp_avg_sq"] / (1 - beta2**self.step)).sqrt()
                update += (rate * mean / (deviation + group["eps"])).square().view(seeds, -1).sum(-1)
                weight += parameter.square().view(seeds, -1).sum(-1)
                if parameter.grad is not None:
                    gradient += parameter.grad.square().view(seeds, -1).sum(-1)
            found[f"gradients/{player}"] = gradient.sqrt()
            found[f"updates/{player}"] = (update / weight.clamp_min(1e-12)).sqrt()
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
            self._set_tensors({name: _take_rows(tensor, rows, before) for name, tensor in tensors.items()})

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of both players, each with a leading axis of (a multiple of) the active seeds."""
        tensors = {f"sums/{name}": value for name, value in self.sums.items()}
        for player, network in self.networks.items():
            tensors |= {f"{player}/{name}": tensor.detach() for name, tensor in network.state_dict().items()}
            for (name, _), moments in zip(network.named_parameters(), self._moments(player), strict=True):
                tensors |= {f"{player}.{key}/{name}": moment for key, moment in moments.items()}
        return tensors

    def _moments(self, player: str) -> list[dict[str, Tensor]]:
        optimiser = self.optimisers[player]
        names = ("exp_avg", "exp_avg_sq")
        parameters = optimiser.param_groups[0]["params"]
        return [
            {name: optimiser.state[p][name] if p in optimiser.state else torch.zeros_like(p) for name in names}
            for p in parameters
        ]

    def _set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.sums = {name[5:]: value.to(self.device) for name, value in tensors.items() if name.startswith("sums/")}
        for player, network in self.networks.items():
            prefix = f"{player}/"
            network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
            optimiser = self.optimisers[player]
            for name, parameter in network.named_parameters():
                optimiser.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=self.device),
                    "exp_avg": tensors[f"{player}.exp_avg/{name}"].to(self.device).clone(),
                    "exp_avg_sq": tensors[f"{player}.exp_avg_sq/{name}"].to(self.device).clone(),
                }

    def dump(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON record from which :meth:`restore` goes on exactly."""
        record = {
            "seeds": list(self.seeds),
            "active": self.active,
            "step": self.step,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "best": self.best,
            "judges": {seed: judge.dump() for seed, judge in self.judges.items()},
            "candidates": {seed: [one.record() for one in kept] for seed, kept in self.candidates.items()},
        }
        return (self._tensors() if self.active else {"none": torch.zeros(1)}), record

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Go on where :meth:`dump` left off; candidates' tensors are read back by the caller.

        Raises:
            UserError: the state belongs to other seeds.
        """
        if tuple(record["seeds"]) != self.seeds:
            raise UserError(f"checkpoint: belongs to seeds {record['seeds']}, not to {list(self.seeds)}")
        self.active = list(record["active"])
        self.step, self.seconds = int(record["step"]), float(record["seconds"])
        self.stopped = {int(seed): int(step) for seed, step in record["stopped"].items()}
        self.best = {int(seed): (float(risk), int(step)) for seed, (risk, step) in record["best"].items()}
        for seed, judge in record["judges"].items():
            self.judges[int(seed)].load(judge)
        if self.active:
            self._build()
            self._set_tensors(tensors)


def _take_rows(tensor: Tensor, rows: Sequence[int], seeds: int) -> Tensor:
    """Rows of some seeds from a tensor whose leading axis is seeds, or seeds x parts."""
    return tensor.view(seeds, -1, *tensor.shape[1:])[list(rows)].flatten(0, 1)
