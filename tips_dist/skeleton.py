"""Joints, bones and representations as data (joint order: Human3.6M, 17 joints)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tips_dist.files import UserError
from tips_dist.registry import Registered, built_in, register

JOINTS: tuple[str, ...] = (
    "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax", "neck",
    "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
J: dict[str, int] = {name: index for index, name in enumerate(JOINTS)}
ROOT = 0
HEAD = J["head"]

# PARENT[j] is the joint that bone j hangs from; the root has none.
PARENT: tuple[int, ...] = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
# (parent, child), 16 bones.
BONES: tuple[tuple[int, int], ...] = tuple((parent, child) for child, parent in enumerate(PARENT) if parent >= 0)
# MIRROR[j] is the joint on the other side of the body.
MIRROR: tuple[int, ...] = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
# Pairs of indices into BONES: the same bone on the left and on the right.
SYMMETRIC_BONES: tuple[tuple[int, int], ...] = tuple(
    (index, BONES.index((MIRROR[parent], MIRROR[child])))
    for index, (parent, child) in enumerate(BONES)
    if JOINTS[child].startswith("left_")
)

LEGS = tuple(range(7))
TORSO = tuple(range(7, 17))
LEFT_LEG, RIGHT_LEG = (4, 5, 6), (1, 2, 3)
LEFT_ARM, RIGHT_ARM = (11, 12, 13), (14, 15, 16)
TRUNK = (0, 7, 8, 9, 10)


@dataclass(frozen=True)
class BodyPart:
    """A group of joints that one trunk sees and predicts the depths of."""

    name: str
    joints: tuple[int, ...]


@dataclass(frozen=True)
class Representation:
    """How the 2D pose is cut up for lifting (second paper, arXiv 2209.00618, section 3).

    ``blocks`` residual blocks belong to each part; ``shared_blocks`` follow on the summed features of all parts.
    Without shared blocks the parts are independent lifters, and each gets the share of the adversarial loss that
    its joints are of the pose.
    """

    name: str
    parts: tuple[BodyPart, ...]
    blocks: int
    shared_blocks: int = 0

    @property
    def independent(self) -> bool:
        """Whether the parts are lifters of their own (no shared blocks)."""
        return self.shared_blocks == 0

    @property
    def lifters(self) -> tuple[BodyPart, ...]:
        """The groups of joints whose depths are decided independently: the parts, or the whole pose."""
        if self.independent:
            return self.parts
        return (BodyPart("whole", tuple(range(len(JOINTS)))),)

    @cached_property
    def lifter_of(self) -> tuple[int, ...]:
        """Of each of the 17 joints, the index of the lifter whose depth sign it takes: the first that predicts it."""
        return tuple(
            next((index for index, part in enumerate(self.lifters) if joint in part.joints), 0)
            for joint in range(len(JOINTS))
        )


_TORSO_HEAD = (7, 8, 9, 10)
_SIDE = {"left": (0, *LEFT_LEG, 7, 8, 9, 10, *LEFT_ARM), "right": (0, *RIGHT_LEG, 7, 8, 9, 10, *RIGHT_ARM)}
_TORSO_LEGS = (BodyPart("torso", TORSO), BodyPart("legs", LEGS))
_FIVE = (
    BodyPart("torso_head", (0, *_TORSO_HEAD)),
    BodyPart("left_arm", LEFT_ARM),
    BodyPart("right_arm", RIGHT_ARM),
    BodyPart("left_leg", LEFT_LEG),
    BodyPart("right_leg", RIGHT_LEG),
)

REPRESENTATIONS: Registered[Representation] = Registered("representations")
"""Every registered representation by its name, those of plug-ins too."""


def _check(name: str, value: object) -> None:
    if not isinstance(value, Representation) or value.name != name:
        raise UserError(f"expected a Representation named '{name}', got {value!r:.80}")
    every = sorted({joint for part in value.lifters for joint in part.joints} - {ROOT})
    if every != list(range(1, len(JOINTS))):
        raise UserError("its parts must cover the joints 1 to 16, and no others")


with built_in("representations", _check):
    for _representation in (
        Representation("solo", (BodyPart("whole", tuple(range(17))),), blocks=6),
        Representation("torso_legs", _TORSO_LEGS, blocks=3),
        Representation("torso_legs_shared", _TORSO_LEGS, blocks=2, shared_blocks=2),
        Representation("five_parts", _FIVE, blocks=1),
        Representation("five_parts_shared", _FIVE, blocks=1, shared_blocks=1),
        Representation("left_right", tuple(BodyPart(side, joints) for side, joints in _SIDE.items()), blocks=3),
    ):
        register("representations", _representation.name, _representation)
