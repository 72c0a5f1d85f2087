"""The discriminator: tells reprojected lifts from real 2D poses."""

from __future__ import annotations

from torch import Tensor, nn

from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.models.blocks import PackedLinear, Trunk


class Discriminator(nn.Module):
    """S discriminators on the whole pose, whatever the lifter: (S, B, 17, 2) -> (S, B), linear output.

    ``spectral`` keeps every layer's largest singular value at 1 (arXiv 1802.05957), so that scores cannot be steep.
    """

    def __init__(self, width: int, blocks: int, seeds: int = 1, *, spectral: bool = False) -> None:
        super().__init__()
        self.input = PackedLinear(seeds, 34, width, spectral=spectral)
        self.blocks = Trunk(blocks, seeds, width, spectral=spectral)
        self.head = PackedLinear(seeds, width, 1, spectral=spectral)

    def forward(self, poses: Tensor, twice: bool = False) -> Tensor:
        """Score poses: near the real label for real ones, near 0 for reprojected lifts.

        ``twice``: so that the gradient of the scores can be differentiated again.
        """
        features = self.input((poses * CAMERA_DISTANCE).flatten(-2))
        scores: Tensor = self.head(self.blocks(features, twice)).squeeze(-1)
        return scores

    def iterate(self, times: int = 1) -> None:
        """Bring the spectral norms up to the present weights by so many power iterations."""
        for layer in self.modules():
            if isinstance(layer, PackedLinear) and layer.spectral:
                for _ in range(times):
                    layer.iterate()
