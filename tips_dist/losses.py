"""Losses as pure tensor functions: one value per seed, (S, B, ...) -> (S,).

Distances are in units of the mean root-to-head distance. ``weights`` (17,) says how much each joint counts: 1/17 for
a whole pose; for independent parts one over the part's joints, so that each part's loss is its own mean, as if it
were trained alone (arXiv 2205.05980, section 3). Where poses lack joints, weights are (S, B, 17) and 0 for those; the
sum is not scaled up again, so that the loss of a batch stays the mean of the losses of its shares.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tips_dist import geometry
from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.skeleton import BONES, JOINTS, SYMMETRIC_BONES, J, Representation
from tips_dist.tensors import numbers, places

_PARENTS, _CHILDREN = zip(*BONES, strict=True)
_LEFT, _RIGHT = zip(*SYMMETRIC_BONES, strict=True)


def joint_weights(representation: Representation) -> Tensor:
    """How much each joint counts in a loss, (17,): every independent part's joints sum to 1."""
    counts = torch.zeros(len(JOINTS))
    for part in representation.lifters:
        for joint in part.joints:
            counts[joint] = max(float(counts[joint]), 1 / len(part.joints))
    return counts


def adversarial_shares(representation: Representation) -> Tensor:
    """The share of the adversarial loss that reaches each joint's depth, (17,).

    A whole-pose lifter gets all of it; an independent part the share of keypoints it holds (torso 10/17, legs 7/17;
    the papers round to 0.625 and 0.375 of 16).
    """
    shares = torch.ones(len(JOINTS))
    if len(representation.lifters) > 1:
        for part in representation.lifters:
            shares[list(part.joints)] = len(part.joints) / len(JOINTS)
    return shares


def label_loss(scores: Tensor, labels: Tensor, kind: str) -> Tensor:
    """The loss of each discriminator score against its label, elementwise (least squares, or sigmoid cross-entropy)."""
    if kind == "least_squares":
        return (scores - labels).square()
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="none")


def discriminator_loss(scores: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Mean over real and fake: (S, 2B), (S, 2B) -> (S,). At the balanced least-squares game (all 0.5) it is 0.25."""
    return label_loss(scores, labels, kind).mean(-1)


def adversarial_loss(fake_scores: Tensor, real_label: Tensor, kind: str) -> Tensor:
    """How far the discriminator is from calling the fakes real: (S, B), (S, 1) -> (S,)."""
    return label_loss(fake_scores, real_label.expand_as(fake_scores), kind).mean(-1)


def pose_loss(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Mean squared distance of two sets of poses: (S, B, 17, D) twice, (17,) -> (S,); the 2D and the 3D cycle loss."""
    return _weighed((first - second).square().mean(-1), weights)


def cycle_2d(returned: Tensor, poses: Tensor, weights: Tensor) -> Tensor:
    """2D cycle: lift, rotate, project, lift, rotate back, project, compare with the input (arXiv 2205.05980, eq. 3)."""
    return pose_loss(returned * CAMERA_DISTANCE, poses * CAMERA_DISTANCE, weights)


def turn_consistency(offsets: Tensor, depths: Tensor, weights: Tensor) -> Tensor:
    """90° consistency: the depth lifted from a turned view against the depth that the turn gives it.

    A quarter turn about the vertical axis turns x into depth, so the target of ±90° is known from the input itself;
    a half turn negates the depth (arXiv 2205.05980, section 3). (S, B, 17) twice -> (S,).
    """
    return _weighed((offsets - depths).square(), weights)


def _weighed(errors: Tensor, weights: Tensor) -> Tensor:
    """Sum over joints, mean over poses: (S, B, 17), (17,) or (S, B, 17) -> (S,)."""
    return ((errors @ weights) if weights.dim() == 1 else (errors * weights).sum(-1)).mean(-1)


def bone_lengths(poses: Tensor) -> Tensor:
    """Lengths of the 16 bones: (..., 17, 3) -> (..., 16)."""
    parents, children = (places(ends, poses.device) for ends in (_PARENTS, _CHILDREN))
    lengths: Tensor = (poses[..., children, :] - poses[..., parents, :]).norm(dim=-1)
    return lengths


def bones_present(present: Tensor) -> Tensor:
    """Which of the 16 bones have both ends: (..., 17) -> (..., 16), bool."""
    parents, children = (places(ends, present.device) for ends in (_PARENTS, _CHILDREN))
    both: Tensor = present[..., children] & present[..., parents]
    return both


def bone_ratios(poses: Tensor) -> Tensor:
    """Bone lengths over their mean, so that the person's size and distance drop out: (..., 17, 3) -> (..., 16)."""
    lengths = bone_lengths(poses)
    return lengths / lengths.mean(-1, keepdim=True).clamp_min(1e-9)


# Mean human bone ratios of BONES, from segment lengths in Winter, Biomechanics and Motor Control of Human Movement.
HUMAN_RATIOS = (0.41, 1.54, 1.54, 0.41, 1.54, 1.54, 0.82, 0.86, 0.41, 0.40, 0.54, 1.05, 0.94, 0.54, 1.05, 0.94)


def bone_prior(poses: Tensor, present: Tensor | None = None) -> Tensor:
    """Squared distance of bone ratios from a mean human's: (S, B, 17, 3) -> (S,). Weak supervision; off by default.

    ``present`` (S, B, 17): of the bones that are there, over their own mean.
    """
    target = numbers(HUMAN_RATIOS, poses.device).to(poses.dtype)
    if present is None:
        return (bone_ratios(poses) - target / target.mean()).square().mean((-1, -2))
    there = bones_present(present).to(poses.dtype)
    lengths, target = bone_lengths(poses) * there, target * there
    means = (values.sum(-1, keepdim=True).clamp_min(1e-9) for values in (lengths, target))
    ratios, expected = (v / m for v, m in zip((lengths, target), means, strict=True))
    return ((ratios - expected) * there.sum(-1, keepdim=True)).square().mean((-1, -2))


ELBOW_SHARE = 0.5  # elbows say less than knees: shoulders turn the plane in which an arm bends
# The joints that geometry.bend's values are made of: both sides of the girdle, middle, end, the trunk's upper end.
BENDING = tuple(
    tuple(J[name] for name in (f"left_{girdle}", f"right_{girdle}", f"{side}_{middle}", f"{side}_{end}", "thorax"))
    for girdle, middle, end in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
    for side in ("left", "right")
)
LEAST_FORWARD = 0.01  # a tenth of a body's hip axis x trunk: below, forward is unsure and its gradient without bound


def bend(poses: Tensor, margin: Tensor | float = 0.0, present: Tensor | None = None) -> Tensor:
    """How far knees bend backward and elbows forward, past ``margin`` (one, or (S, 1, 1)): (S, B, 17, 3) -> (S,).

    An anatomical prior, not a statistic: it breaks the mirror symmetry of depth. In limb lengths, see
    :func:`geometry.limb_bend`; the mean over both sides. Beyond one limb length it grows as the logarithm, since a limb
    folded onto itself has next to no length to measure in and would drown all other poses. ``present`` (S, B, 17): a
    limb that lacks a joint, or whose forward direction does, counts as right.
    """
    wrong = F.relu(margin - geometry.limb_bend(poses, LEAST_FORWARD))
    if present is not None:
        there = [present[..., places(joints, present.device)].all(-1) for joints in BENDING]
        wrong = wrong * torch.stack(there, dim=-1)
    wrong = (wrong.clamp_max(1) + wrong.clamp_min(1).log()).mean(1)
    return wrong[:, :2].mean(-1) + ELBOW_SHARE * wrong[:, 2:].mean(-1)


def bone_asymmetry(poses: Tensor) -> Tensor:
    """Mean relative difference between left and right bones: (..., 17, 3) -> (...)."""
    lengths = bone_lengths(poses)
    left, right = (lengths[..., places(side, poses.device)] for side in (_LEFT, _RIGHT))
    return ((left - right).abs() / (left + right).clamp_min(1e-9)).mean(-1)
