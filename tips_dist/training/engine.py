"""The moving part of the loop: batches in, one step of both players, the same on one worker or several."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tips_dist import losses
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.training.averaging import COMPARED, FLAT, behind
from tips_dist.training.memory import keep_freed
from tips_dist.training.sampling import Batch, Sampler
from tips_dist.training.state import State
from tips_dist.training.step import adversarial_step

# Losses whose means stand in the history, as far as they are on.
RECORDED = ("generator/adversarial", "generator/loss", "generator/bend", "discriminator/loss", "discriminator/r1")


class Engine:
    """Steps a :class:`State` through its training poses, which stay on the device."""

    def __init__(self, state: State, poses: NDArray[np.float32], present: NDArray[np.bool_] | None = None) -> None:
        """Keep normalised training ``poses`` (N, 17, 2) and what the losses need of the representation.

        ``present`` (N, 17) says which joints are there, where not all are.
        """
        keep_freed()
        configuration, group = state.configuration, state.group
        representation = REPRESENTATIONS[configuration.representation]
        self.state = state
        self.joints = losses.joint_weights(representation).to(state.device)
        self.shares = losses.adversarial_shares(representation).to(state.device)
        mask = None if present is None else torch.from_numpy(present)
        self.sampler = Sampler(torch.from_numpy(poses), configuration, state.device, group.rank, group.size, mask)

    def batches(self) -> Iterator[Batch]:
        """This worker's share of the batches up to the next evaluation step."""
        return self.sampler.batches(self.state.active, self.state.step)

    def step(self, batch: Batch) -> None:
        """Both players move once; losses are summed in ``state.sums`` without waiting for the device."""
        state, configuration = self.state, self.state.configuration
        rates = state.values.rates(state.active, state.step)
        state.seed_dropout()
        if configuration.model.spectral_norm:
            state.discriminator.iterate()
        for optimiser in state.optimisers.values():
            optimiser.zero_grad()
        terms = adversarial_step(state.lifter, state.discriminator, batch, state.weights, self.joints, self.shares)
        gradients = [gradient for optimiser in state.optimisers.values() for gradient in optimiser.gradients]
        state.group.average([*gradients, *terms.values()])
        state.step += 1
        for player, optimiser in state.optimisers.items():
            if configuration.training.gradient_clip:
                optimiser.clip(configuration.training.gradient_clip)
            optimiser.step(state.step, rates[player])
        state.update_average()
        state.sums = {name: state.sums[name] + value if state.sums else value for name, value in terms.items()}

    def measure(self, validation: signals.ValidationSet) -> signals.Measured:
        """Every signal of every active seed, of its averaged lifter where there is one; losses and gradients are raw.

        Losses are means since the last evaluation step.
        """
        state, configuration = self.state, self.state.configuration
        apart = self._compare_averages(validation)
        lifter, label = state.judged, configuration.losses.real_label
        lifter.eval()
        measured = signals.measure(lifter, state.discriminator, validation, label, self.joints)
        state.lifter.train()
        for name in (*RECORDED, *(f"generator/{term}" for term in configuration.losses.extra)):
            if name in state.sums:
                measured.signals[name] = state.sums[name] / configuration.training.evaluate_every
        further = configuration.training.signals
        measured.signals.update(signals.further(further, validation, measured, lifter.representation))
        measured.signals.update(state.norms())
        if apart is not None:
            measured.signals["average/opposed"] = apart
        state.sums = {}
        return measured

    @torch.no_grad()
    def _compare_averages(self, validation: signals.ValidationSet) -> Tensor | None:
        """Restart the averages that a mirror crossing left behind: before they are judged."""
        state = self.state
        if state.averaged is None:
            return None
        some = validation.poses[:: max(1, len(validation.poses) // COMPARED)].expand(len(state.active), -1, -1, -1)
        depths = state.averaged(some), self._raw(some)
        opposed, late = (behind(*depths, state.lifter.representation, least) for least in (0.0, FLAT))
        state.compare_averages(opposed.tolist(), late.tolist())
        return opposed

    def _raw(self, poses: Tensor) -> Tensor:
        """What the raw lifters say of poses (S, V, 17, 2), in evaluation mode."""
        self.state.lifter.eval()
        depths: Tensor = self.state.lifter(poses)
        self.state.lifter.train()
        return depths

    @torch.no_grad()
    def raw_depths(self, validation: signals.ValidationSet) -> Tensor | None:
        """Offsets (S, V, 17) of the raw lifters, where they are to be judged beside the averaged ones."""
        state = self.state
        if state.configuration.training.judge != "both" or state.averaged is None:
            return None
        return self._raw(validation.poses.expand(len(state.active), -1, -1, -1))
