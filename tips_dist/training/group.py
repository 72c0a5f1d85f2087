"""The workers that train one trial together: one process, or several that each take a share of every batch.

Gradients are averaged with gloo (CPU) or nccl (CUDA). Everything else that must agree is told by rank 0 as JSON and
plain tensors over gloo; nothing is pickled. Collectives end with an error when a worker dies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

PATIENCE = timedelta(minutes=30)  # how long a worker waits for the others, rank 0's evaluation steps included


@dataclass(frozen=True)
class Group:
    """One worker's place among ``size``; rank 0 judges, records and reports."""

    rank: int = 0
    size: int = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the workers, in place; bit-identical on every worker."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the workers; gradients flow through it."""
        if self.size == 1:
            return value
        found: Tensor = _Mean.apply(value, self.size)  # type: ignore[no-untyped-call]
        return found

    def tell(self, message: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Rank 0's ``message`` (plain data), on every worker."""
        if self.size == 1:
            return dict(message or {})
        text = json.dumps(message).encode()
        length = torch.tensor([len(text)])
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
        dist.broadcast(content, 0)
        return dict(json.loads(content.numpy().tobytes()))

    def give(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Rank 0's named tensors (on the CPU), on every worker."""
        described = self.tell(
            {name: [list(tensor.shape), str(tensor.dtype)[6:]] for name, tensor in (tensors or {}).items()}
        )
        found = {}
        for name, (shape, dtype) in described.items():
            source = torch.empty(shape, dtype=getattr(torch, dtype)) if tensors is None else tensors[name].contiguous()
            if source.numel():
                dist.broadcast(source, 0)
            found[name] = source
        return found


class _Mean(torch.autograd.Function):
    """Mean over the workers, (...) -> (...). What each worker gets back is the mean of all workers' gradients.

    So the mean of the workers' parameter gradients is the gradient of the mean of their losses.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, size: int) -> Tensor:
        ctx.size = size
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Mean.forward(ctx, gradient, ctx.size), None


ALONE = Group()


def join(store: TCPStore, rank: int, size: int, device: torch.device) -> Group:
    """Meet the other workers at ``store``."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return Group(rank, size)
