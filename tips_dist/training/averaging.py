"""The moving average of a lifter's weights: what is judged, kept and taught, while the weights themselves train.

Adversarial play circles around its solution; the average of the weights sits near the middle (Yazici et al. 2018,
arXiv 1806.04498). Training never sees it, so raw weights are the same with and without.

A lifter may cross over from one mirror solution to the other. The average of two mirror solutions is neither: first it
points the other way, then it is flat, for as long as it remembers. So an average that is *opposed* to the raw lifter at
one evaluation step and still *behind* it at the next begins anew (:func:`behind`, more than :data:`CROSSED`). Raw
weights that only stumble for an evaluation step (errors half as large again) keep their signs and restart nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from tips_dist.models import BaseLifter
from tips_dist.skeleton import Representation
from tips_dist.tensors import places

CROSSED = 0.07  # share of the raw depth
FLAT = 0.2
COMPARED = 256  # poses, at most, that are lifted by both
WARM_UP = 10  # an average of age t spans about the last ninth of its life until it is long enough for its own decay


def decay_at(decay: float, age: int) -> float:
    """The share of itself that an average keeps in the update ``age`` steps after its start."""
    return min(decay, (1 + age) / (WARM_UP + age))


class Average:
    """The moving averages of S packed lifters, batch norm's running statistics included."""

    def __init__(self, lifter: BaseLifter, raw: BaseLifter, decays: Sequence[float]) -> None:
        """Keep in ``lifter`` the average of ``raw``, a pack of the same shape; both stay where they are in memory.

        ``decays``: one per row.
        """
        self.lifter = lifter.requires_grad_(False).eval()
        self.decays = decays
        names = list(raw.state_dict())
        self._pairs = [(lifter.state_dict()[name], raw.state_dict()[name].detach()) for name in names]

    @torch.no_grad()
    def update(self, ages: Sequence[int]) -> None:
        """Take in the raw weights after a step, given each average's age in steps; equal decays cost one call."""
        weights = [1 - decay_at(decay, age) for decay, age in zip(self.decays, ages, strict=True)]
        first, pairs, shares = 0, list[tuple[Tensor, Tensor]](), list[float]()
        for weight, alike in itertools.groupby(weights):
            last = first + len(list(alike))
            pairs += self._pairs if last - first == len(weights) else self._rows(slice(first, last))
            shares += [weight] * len(self._pairs)
            first = last
        averaged, raw = zip(*pairs, strict=True)
        if len(set(shares)) == 1:
            torch._foreach_lerp_(averaged, raw, shares[0])
        else:
            torch._foreach_lerp_(averaged, raw, shares)

    @torch.no_grad()
    def restart(self, rows: Sequence[int]) -> None:
        """Begin anew from the raw weights of these rows of the pack."""
        for row in rows:
            for averaged, raw in self._rows(slice(row, row + 1)):
                averaged.copy_(raw)

    @torch.no_grad()
    def restart_where(self, late: Tensor) -> None:
        """Begin anew from the raw weights of the rows (S,) that are true, without asking a card which they are."""
        if late.device.type == "cpu" and not late.any():
            return
        for averaged, raw in self._pairs:
            rows = averaged.view(self.lifter.seeds, -1)
            rows.copy_(torch.where(late[:, None], raw.view(self.lifter.seeds, -1), rows))

    def _rows(self, rows: slice) -> list[tuple[Tensor, Tensor]]:
        """These seeds' part of every tensor, averaged and raw; views."""
        seeds = self.lifter.seeds
        return [(one.view(seeds, -1)[rows], other.view(seeds, -1)[rows]) for one, other in self._pairs]


def behind(averaged: Tensor, raw: Tensor, representation: Representation, least: float) -> Tensor:
    """The share of the raw depth in poses of which the average has less than ``least``, (S, V, 17) twice -> (S,).

    With ``least`` 0: the share that points the other way. Of independent lifters the worst counts.
    """
    shares = []
    for part in representation.lifters:
        joints = places(part.joints, raw.device)
        mine, theirs = averaged[..., joints], raw[..., joints]
        size = theirs.square().sum(-1)
        shares.append((size * ((mine * theirs).sum(-1) < least * size)).sum(-1) / size.sum(-1).clamp_min(1e-12))
    return torch.stack(shares).amax(0)
