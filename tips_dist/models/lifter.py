"""One lifter class for all representations: parts are one more packed axis."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tips_dist.files import UserError
from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.models.base import BaseLifter
from tips_dist.models.blocks import PackedDropout, PackedLinear, Trunk, initialise
from tips_dist.registry import built_in, register
from tips_dist.skeleton import JOINTS, REPRESENTATIONS, ROOT, Representation


class Lifter(BaseLifter):
    """S lifters of one representation: normalised 2D poses (S, B, 17, 2) -> depth offsets (S, B, 17), root 0.

    Each part's joints go through an input layer of their own and then through the part's residual blocks; the blocks
    of all parts have one shape, so they run as one batched product over S x P rows. With shared blocks, the parts'
    features are summed (scaled to keep their variance) and one head predicts every joint (arXiv 2209.00618, fig. 2).
    """

    def __init__(
        self,
        representation: Representation,
        width: int,
        seeds: int = 1,
        *,
        blocks: int | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
        spread: bool = False,
    ) -> None:
        super().__init__(representation, width, seeds)
        parts = representation.parts
        depth = representation.blocks if blocks is None else blocks
        self.inputs = nn.ModuleList(PackedLinear(seeds, 2 * len(part.joints), width) for part in parts)
        self.blocks = Trunk(depth, seeds * len(parts), width, batch_norm=batch_norm, dropout=dropout)
        self.shared = Trunk(representation.shared_blocks, seeds, width, batch_norm=batch_norm, dropout=dropout)
        heads = [len(part.joints) for part in parts] if representation.independent else [len(JOINTS)]
        self.heads = nn.ModuleList(PackedLinear(seeds, width, joints) for joints in heads)
        # A second output of a student: the logarithm of how far its teachers were apart.
        self.spread = PackedLinear(seeds, width, len(JOINTS)) if spread else None
        # (heads' outputs, 17): which outputs are averaged into which joint; the root's column stays empty.
        self.gather: Tensor
        self.register_buffer("gather", _gather_matrix(representation), persistent=False)

    def forward(self, poses: Tensor) -> Tensor:
        """Predict depth offsets; (S, B, 17, 2) -> (S, B, 17)."""
        return self._depths(self._features(poses))

    def with_spread(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Depth offsets and the logarithm of their spread, (S, B, 17) each; learning the spread leaves depths alone."""
        assert self.spread is not None
        features = self._features(poses)
        return self._depths(features), self.spread(features[0].detach())

    def _depths(self, features: tuple[Tensor, ...]) -> Tensor:
        outputs = torch.cat([head(trunk) for head, trunk in zip(self.heads, features, strict=True)], dim=-1)
        return outputs @ self.gather

    def _features(self, poses: Tensor) -> tuple[Tensor, ...]:
        """The last features (S, B, width) of each independent part."""
        seeds, batch = poses.shape[:2]
        poses = poses * CAMERA_DISTANCE  # networks see poses of unit size
        parts = self.representation.parts
        first = [layer(_take(poses, part.joints).flatten(-2)) for layer, part in zip(self.inputs, parts, strict=True)]
        features = first[0] if len(first) == 1 else torch.stack(first, dim=1).flatten(0, 1)  # (S * P, B, width)
        features = self.blocks(features)
        if self.representation.independent:
            return tuple(features.view(seeds, len(parts), batch, self.width)[:, part] for part in range(len(parts)))
        return (self.shared(features.view(seeds, len(parts), batch, self.width).sum(1) / len(parts) ** 0.5),)

    @classmethod
    def width_for(cls, representation: str, width: int) -> int:
        """See :func:`matched_width`."""
        return matched_width(representation, width)

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """See :func:`tips_dist.models.blocks.initialise`."""
        initialise(self, generators)

    def take_generators(self, generators: Sequence[torch.Generator]) -> None:
        """Give them to every dropout layer."""
        for layer in self.modules():
            if isinstance(layer, PackedDropout):
                layer.generators = generators

    @property
    def is_random(self) -> bool:
        """Whether there is dropout."""
        return any(isinstance(layer, PackedDropout) for layer in self.modules())


def _check(name: str, value: object) -> None:
    if not (isinstance(value, type) and issubclass(value, BaseLifter)):
        raise UserError(
            f"expected a subclass of tips_dist.models.base.BaseLifter, or per_seed(a plain module), got {value!r:.80}"
        )


with built_in("lifters", _check):
    register("lifters", "packed", Lifter)


def _take(poses: Tensor, joints: tuple[int, ...]) -> Tensor:
    if joints == tuple(range(joints[0], joints[-1] + 1)):
        return poses[:, :, joints[0] : joints[-1] + 1]  # a view
    return poses[:, :, list(joints)]


def _gather_matrix(representation: Representation) -> Tensor:
    joints = [joint for part in representation.lifters for joint in part.joints]
    matrix = torch.zeros(len(joints), len(JOINTS))
    for row, joint in enumerate(joints):
        if joint != ROOT:
            matrix[row, joint] = 1 / joints.count(joint)
    return matrix


@functools.cache
def matched_width(name: str, width: int) -> int:
    """The width at which a representation has the parameters of a solo lifter of ``width`` (within 2 %).

    Equal capacity is what makes representations comparable (arXiv 2209.00618, section 3).
    """
    target = lifter_parameters("solo", width)
    candidates = range(max(1, width // 2), 2 * width + 1)
    return min(candidates, key=lambda candidate: (abs(lifter_parameters(name, candidate) - target), candidate))


def lifter_parameters(name: str, width: int) -> int:
    """Trainable numbers of one lifter, counted analytically; batch norm adds one per feature that it normalises."""
    representation = REPRESENTATIONS[name]
    parts = representation.parts
    inputs = sum(2 * len(part.joints) + 1 for part in parts) * width
    blocks = (len(parts) * representation.blocks + representation.shared_blocks) * 2 * (width + 1) * width
    outputs = sum(len(part.joints) for part in representation.lifters) * (width + 1)
    return inputs + blocks + outputs
