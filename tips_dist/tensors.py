"""Constants that lie on a device, and tensors that leave it: what would otherwise make the host wait for a card.

A list of joints as an index, or ``torch.tensor(…, device=…)`` in the middle of a step, is a copy from host memory each
time, and the host waits for it. So constants are copied once per device (:func:`kept`), and what the host wants to know
goes back together in one copy (:func:`on_host`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_FORGET: list[Callable[[], None]] = []


def kept(make: Callable[P, R]) -> Callable[P, R]:
    """Make once what depends on hashable arguments alone, the device among them."""

    def ordinary(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False):  # a tensor made in inference mode cannot take part in training later
            return make(*args, **kwargs)

    cached = functools.cache(functools.wraps(make)(ordinary))
    _FORGET.append(cached.cache_clear)
    return cast("Callable[P, R]", cached)


def forget() -> None:
    """Make everything anew when it is next asked for."""
    for clear in _FORGET:
        clear()


@kept
def places(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices (N,) on a device, to index other tensors with."""
    return torch.tensor(indices, dtype=torch.int64, device=device)


@kept
def numbers(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Float32 constants (N,) on a device."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in host memory; from a card they come together, in one copy for each type of number."""
    there = {name: tensor for name, tensor in tensors.items() if tensor.device.type != "cpu"}
    found = {name: tensor.detach() for name, tensor in tensors.items() if name not in there}
    for kind in dict.fromkeys(tensor.dtype for tensor in there.values()):
        some = {name: tensor.detach() for name, tensor in there.items() if tensor.dtype == kind}
        flat = torch.cat([tensor.reshape(-1) for tensor in some.values()]).cpu()
        parts = torch.split(flat, [tensor.numel() for tensor in some.values()])
        found |= {name: part.view(some[name].shape) for name, part in zip(some, parts, strict=True)}
    return {name: found[name] for name in tensors}


def rows_of(tensor: Tensor, rows: Sequence[int], seeds: int) -> Tensor:
    """Rows of some seeds, copied, from a tensor whose leading axis is seeds, or seeds x parts."""
    chosen = places(tuple(rows), tensor.device)
    return tensor.view(seeds, -1, *tensor.shape[1:]).index_select(0, chosen).flatten(0, 1)
