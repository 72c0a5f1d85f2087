"""A pack of seeds that takes a step in pieces, where memory does not take all of it at once; the numbers stay.

The seeds of a pack never mix (module ``step``), so some of them can go forward and back before the others do. Weights,
gradients and moments of all stay where they are; what shrinks is what a step keeps between its way forward and back,
which is most of the memory.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tips_dist.files import UserError
from tips_dist.training.sampling import Batch
from tips_dist.training.values import Weights


class Piece:
    """Seeds ``first`` to ``last`` of a pack of ``seeds`` networks: called as the network is, with its parameters."""

    def __init__(self, network: nn.Module, rows: slice, seeds: int) -> None:
        self.network = network
        names = set(network.state_dict())  # all of which lead with rows of the seeds (models/base.py)
        self.tensors = {
            name: tensor.view(seeds, -1, *tensor.shape[1:])[rows].flatten(0, 1)
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]
            if name in names
        }

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Forward; what it changes in place (running statistics) changes in the pack."""
        return functional_call(self.network, self.tensors, args, options)

    forward = __call__

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the whole pack, in which gradients of its pieces add up."""
        return self.network.parameters()


def cut(seeds: int, pieces: int) -> list[slice]:
    """So many seeds in so many pieces of about one size."""
    ends = [seeds * piece // pieces for piece in range(pieces + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(ends) if last > first]


def batch_rows(batch: Batch, rows: slice) -> Batch:
    """The batch of these seeds."""
    there: dict[str, Tensor] = {name: value for name, value in vars(batch).items() if value is not None}
    return Batch(**{name: value[rows] for name, value in there.items()})


def weights_rows(weights: Weights, rows: slice) -> Weights:
    """The losses' weights of these seeds."""
    values = {name: value[rows] for name, value in weights.values.items()}
    label, margin = weights.real_label[rows], weights.bend_margin[rows]
    return dataclasses.replace(weights, values=values, real_label=label, bend_margin=margin)


def joined(step: Callable[[slice], dict[str, Tensor]], rows: list[slice]) -> dict[str, Tensor]:
    """Take a step piece by piece; each loss of all seeds, (S,)."""
    found = [step(one) for one in rows]
    return {name: torch.cat([losses[name] for losses in found]) for name in found[0]}


def in_more(pieces: int, seeds: int, error: RuntimeError) -> int:
    """Into how many pieces to cut a pack that ran out of memory in ``pieces``.

    Raises:
        UserError: there is nothing left to cut; the message says what else helps.
        RuntimeError: the ``error`` given, if it is another one.
    """
    if not out_of_memory(error):
        raise error
    if pieces >= seeds:
        said = str(error).splitlines()[0][:160]
        raise UserError(
            f"out of memory, one seed at a time as well: lower training.batch_size, model.width or seeds ({said})"
        ) from error
    return min(2 * pieces, seeds)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a card or in the host."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
