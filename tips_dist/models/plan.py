"""A student's lifter as a plain list of matrix products, for speed in use.

The same numbers as ``Lifter`` up to rounding: scale and gathering are folded into the first and last layer, buffers
are reused, nothing is packed. About a tenth faster per core, since little but the products is left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.models.base import BaseLifter
from tips_dist.models.blocks import PackedLinear
from tips_dist.models.lifter import Lifter

Layer = tuple[Tensor, Tensor]  # weight (in, out), bias (out)


class PlainLifter:
    """Depth offsets (B, 17) of normalised poses (B, 17, 2), by one whole-pose lifter of one seed."""

    def __init__(self, lifter: BaseLifter) -> None:
        assert isinstance(lifter, Lifter)
        weight, bias = _layer(lifter.inputs[0])
        self.first: Layer = (weight * CAMERA_DISTANCE, bias)
        self.blocks = [
            [_layer(layer) for layer in block.modules() if isinstance(layer, PackedLinear)] for block in lifter.blocks
        ]
        weight, bias = _layer(lifter.heads[0])
        self.last: Layer = (weight @ lifter.gather, bias @ lifter.gather)

    @staticmethod
    def fits(lifter: BaseLifter) -> bool:
        """Whether a lifter is of the kind that this covers: packed, one part, one seed, no batch norm."""
        if not isinstance(lifter, Lifter):
            return False
        plain = not any("variance" in name for name, _ in lifter.named_buffers())
        return plain and lifter.seeds == 1 and len(lifter.representation.parts) == 1 and not lifter.shared

    def __call__(self, poses: Tensor) -> Tensor:
        """Predict offsets; call it in inference mode."""
        features = torch.addmm(self.first[1], poses.flatten(1), self.first[0])
        middle, out = torch.empty_like(features), torch.empty_like(features)
        for (weight, bias), (weight2, bias2) in self.blocks:
            torch.addmm(bias, features, weight, out=middle).relu_()
            torch.addmm(bias2, middle, weight2, out=out).relu_()
            features.add_(out)
        return torch.addmm(self.last[1], features, self.last[0])


def _layer(layer: nn.Module) -> Layer:
    assert isinstance(layer, PackedLinear)
    assert layer.bias is not None
    return layer.weight[0].detach().clone(), layer.bias[0, 0].detach().clone()
