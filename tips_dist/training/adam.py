"""Adam for packed parameters: one fused call for neighbouring rows with the same rates, as all rows of a trial are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tips_dist.training.values import Moments

EPSILON = 1e-8
VECTOR = 16  # floats in the widest vector of a CPU


class PackedAdam:
    """Adam (Kingma and Ba 2015) on parameters whose leading axis is seeds, or seeds x parts.

    Its state has the parameters' shapes, so a seed's rows can be taken out. Same numbers as ``torch.optim.Adam``.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], seeds: int) -> None:
        self.parameters = list(parameters)
        self.seeds = seeds
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.count = torch.zeros((), device=self.parameters[0].device)  # steps taken; on the device, so that none waits
        self.taken = 0  # the same

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients that the last backward pass left."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, number: int, moments: Sequence[Moments]) -> None:
        """Take step ``number`` (from 1) with one set of rates per seed; neighbours with equal ones cost one call."""
        if number != self.taken + 1:  # at the start, and in a state that was restored
            self.count.fill_(number - 1)
        self.count += 1
        self.taken = number
        whole = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]  # None: not used
        packed: list[list[Tensor]] = [[*self.parameters], whole, self.means, self.squares]
        first = 0
        for own, alike in itertools.groupby(moments):
            last = first + len(list(alike))
            if last - first == self.seeds:
                self._alike(packed, own)
            else:
                self._alike([[tensor.reshape(self.seeds, -1)[first:last] for tensor in of] for of in packed], own)
            first = last

    def _alike(self, packed: list[list[Tensor]], own: Moments) -> None:
        """The fused call, so that no element's rounding depends on its place, and no seed's numbers on its pack.

        A CPU's kernel rounds the last elements of a tensor, those that fill no vector, otherwise than the rest: they
        are done once more as whole vectors.
        """
        lasts = [
            index for index, tensor in enumerate(packed[0]) if tensor.device.type == "cpu" and tensor.numel() % VECTOR
        ]
        ends = [[_end(tensors[index]) for index in lasts] for tensors in packed]
        again = [
            [F.pad(end, (0, VECTOR - len(end))) if len(end) < VECTOR else end.clone() for end in of] for of in ends
        ]
        self._fused(packed, own)
        if lasts:
            self._fused(again, own)
            for index in (0, 2, 3):  # all but the gradients
                for end, done in zip(ends[index], again[index], strict=True):
                    end.copy_(done[: len(end)])

    def _fused(self, packed: list[list[Tensor]], own: Moments) -> None:
        parameters, gradients, means, squares = packed
        torch._fused_adam_(
            parameters, gradients, means, squares, [], [self.count] * len(parameters), lr=own.rate, beta1=own.beta1,
            beta2=own.beta2, weight_decay=own.decay, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip

    @torch.no_grad()
    def clip(self, longest: Tensor | float) -> None:
        """Scale each seed's gradient down to norm ``longest`` (S,) where it is longer (Pascanu et al., 1211.5063)."""
        scale = (longest / self._total(self.gradients).sqrt().clamp_min(1e-12)).clamp_max(1)
        for gradient in self.gradients:
            gradient.view(self.seeds, -1).mul_(scale[:, None])

    def _total(self, tensors: Iterable[Tensor]) -> Tensor:
        """Sum of squares of each seed's rows, (S,)."""
        return torch.stack([tensor.square().reshape(self.seeds, -1).sum(-1) for tensor in tensors], dim=-1).sum(-1)

    @torch.no_grad()
    def norms(self, number: int, moments: Sequence[Moments]) -> tuple[Tensor, Tensor]:
        """Per seed (S,): the gradient's norm, and that of the last update relative to the weights.

        The update is recomputed from the moments after step ``number``, so nothing has to be remembered.
        """
        bias1 = self._each([1 - own.beta1**number for own in moments])
        bias2 = self._each([1 - own.beta2**number for own in moments])
        moved = self._total(
            mean.view(self.seeds, -1) / bias1 / ((square.view(self.seeds, -1) / bias2).sqrt() + EPSILON)
            for mean, square in zip(self.means, self.squares, strict=True)
        )
        gradient = self._total(self.gradients) if self.gradients else torch.zeros_like(moved)
        rates = self._each([own.rate for own in moments])[:, 0]
        update = moved * rates.square() / self._total(self.parameters).clamp_min(1e-12)
        return gradient.sqrt(), update.sqrt()

    def _each(self, values: Sequence[float]) -> Tensor:
        """One number per seed, (S, 1), on the device; filled there, as a list would be copied."""
        return torch.stack([self.means[0].new_full((1,), value) for value in values])


def _end(tensor: Tensor) -> Tensor:
    """The last elements, as many as fill a vector; a view."""
    return tensor.view(-1)[-VECTOR:]
