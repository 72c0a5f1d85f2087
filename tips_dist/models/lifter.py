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

WITHIN = 0.02  # of the parameters: what counts as equal capacity


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
        for number, part in enumerate(parts):  # which joints a part sees, where they do not follow each other
            joints = None if _follow(part.joints) else torch.tensor(part.joints)
            self.register_buffer(f"joints_{number}", joints, persistent=False)
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
        first = [layer(self._seen(poses, number).flatten(-2)) for number, layer in enumerate(self.inputs)]
        features = first[0] if len(first) == 1 else torch.stack(first, dim=1).flatten(0, 1)  # (S * P, B, width)
        features = self.blocks(features)
        if self.representation.independent:
            return tuple(features.view(seeds, len(parts), batch, self.width)[:, part] for part in range(len(parts)))
        return (self.shared(features.view(seeds, len(parts), batch, self.width).sum(1) / len(parts) ** 0.5),)

    def _seen(self, poses: Tensor, part: int) -> Tensor:
        """The keypoints that a part sees."""
        joints, buffer = self.representation.parts[part].joints, getattr(self, f"joints_{part}")
        return poses[:, :, joints[0] : joints[-1] + 1] if buffer is None else poses[:, :, buffer]

    @classmethod
    def width_for(cls, representation: str, width: int, multiple: int = 1) -> int:
        """See :func:`matched_width`."""
        return matched_width(representation, width, multiple)

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """See :func:`tips_dist.models.blocks.initialise`."""
        initialise(self, generators)

    def take_generators(self, generators: Sequence[torch.Generator]) -> None:
        """Give them to every dropout layer."""
        for layer in self._dropouts():
            layer.generators = generators

    def take_keys(self, keys: Tensor) -> bool:
        """Give them to every dropout layer."""
        for number, layer in enumerate(self._dropouts()):
            layer.keys, layer.calls, layer.number = keys, 0, number
        return True

    def _dropouts(self) -> list[PackedDropout]:
        return [layer for layer in self.modules() if isinstance(layer, PackedDropout)]

    @property
    def is_random(self) -> bool:
        """Whether there is dropout."""
        return bool(self._dropouts())


def _check(name: str, value: object) -> None:
    if not (isinstance(value, type) and issubclass(value, BaseLifter)):
        raise UserError(
            f"expected a subclass of tips_dist.models.base.BaseLifter, or per_seed(a plain module), got {value!r:.80}"
        )


with built_in("lifters", _check):
    register("lifters", "packed", Lifter)


def _follow(joints: tuple[int, ...]) -> bool:
    return joints == tuple(range(joints[0], joints[-1] + 1))


def _gather_matrix(representation: Representation) -> Tensor:
    joints = [joint for part in representation.lifters for joint in part.joints]
    matrix = torch.zeros(len(joints), len(JOINTS))
    for row, joint in enumerate(joints):
        if joint != ROOT:
            matrix[row, joint] = 1 / joints.count(joint)
    return matrix


@functools.cache
def matched_width(name: str, width: int, multiple: int = 1) -> int:
    """The width at which a representation has the parameters of a solo lifter of ``width`` (within 2 %).

    Equal capacity is what makes representations comparable (arXiv 2209.00618, section 3). Matrix products are up to a
    tenth slower at odd widths, so a multiple of ``multiple`` is taken, or of half of it, and so on, if it is within
    2 % as well; else the nearest width.
    """
    target = lifter_parameters("solo", width)

    def apart(candidate: int) -> tuple[float, int]:
        return abs(lifter_parameters(name, candidate) / target - 1), candidate

    candidates = range(max(1, width // 2), 2 * width + 1)
    while multiple > 1:
        nearest = min((one for one in candidates if one % multiple == 0), key=apart, default=1)
        if apart(nearest)[0] < WITHIN:
            return nearest
        multiple //= 2
    return min(candidates, key=apart)


def lifter_parameters(name: str, width: int) -> int:
    """Trainable numbers of one lifter, counted analytically; batch norm adds one per feature that it normalises."""
    representation = REPRESENTATIONS[name]
    parts = representation.parts
    inputs = sum(2 * len(part.joints) + 1 for part in parts) * width
    blocks = (len(parts) * representation.blocks + representation.shared_blocks) * 2 * (width + 1) * width
    outputs = sum(len(part.joints) for part in representation.lifters) * (width + 1)
    return inputs + blocks + outputs
