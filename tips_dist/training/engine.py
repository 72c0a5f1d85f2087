"""The moving part of the loop: batches in, one step of both players, the same on one worker or several.

Also where a trial's state is measured at an evaluation step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tips_dist import losses
from tips_dist.devices import settle
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.training import precision
from tips_dist.training.averaging import COMPARED, FLAT, behind
from tips_dist.training.memory import keep_freed
from tips_dist.training.pieces import Piece, batch_rows, cut, joined, weights_rows
from tips_dist.training.players import Players
from tips_dist.training.sampling import Batch, Sampler
from tips_dist.training.state import State
from tips_dist.training.step import adversarial_step

# Losses whose means stand in the history, as far as they are on.
RECORDED = ("generator/adversarial", "generator/loss", "generator/bend", "discriminator/loss", "discriminator/r1")


def sampler_for(players: Players, poses: NDArray[np.float32], present: NDArray[np.bool_] | None = None) -> Sampler:
    """Batches for players, and for all that run the same program, from normalised training ``poses`` (N, 17, 2).

    ``present`` (N, 17) says which joints are there, where not all are.
    """
    mask, group = None if present is None else torch.from_numpy(present), players.group
    return Sampler(torch.from_numpy(poses), players.configuration, players.device, group.rank, group.size, mask)


class Stepper:
    """Steps :class:`~tips_dist.training.players.Players` through training poses, which stay on the device."""

    def __init__(self, players: Players, sampler: Sampler, pieces: int = 1) -> None:
        """Take batches from ``sampler``; a pack takes its steps in so many ``pieces``, which needs less memory."""
        keep_freed()
        representation = REPRESENTATIONS[players.configuration.representation]
        self.players, self.sampler, self.pieces = players, sampler, pieces
        self.joints = losses.joint_weights(representation).to(players.device)
        self.shares = losses.adversarial_shares(representation).to(players.device)

    def batches(self) -> Iterator[Batch]:
        """This worker's share of the batches up to the next evaluation step."""
        players = self.players
        return self.sampler.batches([row.seed for row in players.rows], players.step, players.values)

    def advance(self, should_stop: Callable[[], bool] | None = None) -> bool:
        """Take all steps up to the next evaluation step; False where ``should_stop``, asked before each, ended them."""
        with precision.applied(self.players.matmul):
            for batch in self.batches():
                if should_stop is not None and should_stop():
                    return False
                self.step(batch)
            settle(self.players.device)  # so that who asks how long it took is told
        return True

    def step(self, batch: Batch) -> None:
        """Both players move once; losses are summed in ``sums`` without waiting for the device."""
        players, configuration = self.players, self.players.configuration
        moments = players.values.moments(players.step)
        if configuration.model.spectral_norm:
            players.discriminator.iterate()
        for optimiser in players.optimisers.values():
            optimiser.zero_grad()
        terms = self._losses(batch)
        gradients = [gradient for optimiser in players.optimisers.values() for gradient in optimiser.gradients]
        players.group.average([*gradients, *terms.values()])
        players.advance()
        for player, optimiser in players.optimisers.items():
            if configuration.training.gradient_clip:
                optimiser.clip(players.longest)
            optimiser.step(players.step, moments[player])
        players.update_average()
        players.sums = {name: players.sums[name] + value if players.sums else value for name, value in terms.items()}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """Every loss, (S,) each, and all gradients; of all rows at once, or piece by piece."""
        of = self.players
        if self.pieces == 1:
            of.seed_dropout()
            return adversarial_step(of.lifter, of.discriminator, batch, of.weights, self.joints, self.shares)
        count = len(of.rows)

        def step(rows: slice) -> dict[str, Tensor]:
            of.seed_dropout(rows)
            lifter, discriminator = (Piece(net, rows, count) for net in (of.lifter, of.discriminator))
            parts = batch_rows(batch, rows), weights_rows(of.weights, rows)
            return adversarial_step(lifter, discriminator, *parts, self.joints, self.shares)

        return joined(step, cut(count, self.pieces))


class Engine(Stepper):
    """Steps a trial's :class:`State` and measures it."""

    def __init__(self, state: State, sampler: Sampler, pieces: int = 1) -> None:
        super().__init__(state, sampler, pieces)
        self.state = state

    def measure(self, validation: signals.ValidationSet) -> signals.Measured:
        """Every signal of every active seed, of its averaged lifter where there is one; losses and gradients are raw.

        Losses are means since the last evaluation step. All is found on the device and told to the host at once.
        """
        with precision.applied(self.state.matmul):
            return self._measure(validation)

    def _measure(self, validation: signals.ValidationSet) -> signals.Measured:
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
        state.sums = {}
        if apart is None:
            return measured.told()
        measured.signals["average/opposed"], late = apart
        found = replace(measured, late=late, raw=self._raw_depths(validation)).told()
        if found.late is not None:
            state.note_averages(found.signals["average/opposed"].tolist(), found.late.tolist())
        return found

    @torch.no_grad()
    def _compare_averages(self, validation: signals.ValidationSet) -> tuple[Tensor, Tensor] | None:
        """Restart the averages that a mirror crossing left behind, before they are judged; how opposed, and which."""
        state = self.state
        if state.averaged is None:
            return None
        some = validation.poses[:: max(1, len(validation.poses) // COMPARED)].expand(len(state.active), -1, -1, -1)
        depths = state.averaged(some), self._raw(some)
        opposed, late = (behind(*depths, state.lifter.representation, least) for least in (0.0, FLAT))
        return opposed, state.compare_averages(opposed, late)

    def _raw(self, poses: Tensor) -> Tensor:
        """What the raw lifters say of poses (S, V, 17, 2), in evaluation mode."""
        self.state.lifter.eval()
        depths: Tensor = self.state.lifter(poses)
        self.state.lifter.train()
        return depths

    @torch.no_grad()
    def _raw_depths(self, validation: signals.ValidationSet) -> Tensor | None:
        """Offsets (S, V, 17) of the raw lifters, where they are to be judged beside the averaged ones."""
        state = self.state
        if state.configuration.training.judge != "both" or state.averaged is None:
            return None
        return self._raw(validation.poses.expand(len(state.active), -1, -1, -1))
