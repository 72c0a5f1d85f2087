"""The discriminator: tells reprojected lifts from real 2D poses."""

from __future__ import annotations

from torch import Tensor, nn

from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.models.blocks import PackedLinear, Trunk


class Discriminator(nn.Module):
    """S discriminators on the whole pose, whatever the lifter: (S, B, 17, 2) -> (S, B), linear output."""

    def __init__(self, width: int, blocks: int, seeds: int = 1) -> None:
        super().__init__()
        self.input = PackedLinear(seeds, 34, width)
        self.blocks = Trunk(blocks, seeds, width)
        self.head = PackedLinear(seeds, width, 1)

    def forward(self, poses: Tensor) -> Tensor:
        """Score poses: near the real label for real ones, near 0 for reprojected lifts."""
        features = self.input((poses * CAMERA_DISTANCE).flatten(-2))
        scores: Tensor = self.head(self.blocks(features)).squeeze(-1)
        return scores
