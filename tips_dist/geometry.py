"""Lift, rotate, project, and tell the sign of depth; every function takes any leading axes.

Shapes: ``(..., 17, 2)`` normalised 2D poses (root-centred, divided by 10 x the data set's mean root-to-head distance),
``(..., 17, 3)`` root-relative 3D poses in the camera's frame (x right, y down, z away), where one unit is the mean
root-to-head distance. The camera looks at the root from distance 10 (ElePose, CVPR 2022; LInKs, WACV 2024).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from tips_dist.skeleton import PARENT, J, Representation
from tips_dist.tensors import kept, places

CAMERA_DISTANCE = 10.0
MINIMUM_DEPTH = 1.0
_NEWTON_STEPS = 16


def lift(poses: Tensor, offsets: Tensor) -> Tensor:
    """Put keypoints at depth ``max(1, 10 + offset)`` on their viewing rays: (..., 17, 2), (..., 17) -> (..., 17, 3)."""
    depth = (CAMERA_DISTANCE + offsets).clamp_min(MINIMUM_DEPTH)
    return torch.cat((poses * depth.unsqueeze(-1), (depth - CAMERA_DISTANCE).unsqueeze(-1)), dim=-1)


def project(poses: Tensor) -> Tensor:
    """See a root-relative 3D pose from the camera at distance 10: (..., 17, 3) -> (..., 17, 2)."""
    depth = (poses[..., 2:] + CAMERA_DISTANCE).clamp_min(MINIMUM_DEPTH)
    return poses[..., :2] / depth


def rotation(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Turn about the vertical axis, then tilt about the camera's x axis: angles in radians (...) -> (..., 3, 3)."""
    ca, sa, ce, se = azimuth.cos(), azimuth.sin(), elevation.cos(), elevation.sin()
    zero = torch.zeros_like(ca)
    rows = (ca, zero, sa, se * sa, ce, -se * ca, -ce * sa, se, ce * ca)
    return torch.stack(rows, dim=-1).view(*azimuth.shape, 3, 3)


def rotate(poses: Tensor, rotations: Tensor) -> Tensor:
    """Rotate root-relative poses about the root: (..., 17, 3), (..., 3, 3) -> (..., 17, 3)."""
    return poses @ rotations.transpose(-1, -2)


def overlap(products: Tensor) -> tuple[Tensor, Tensor]:
    """Largest inner product of two poses over all rotations about the root, without and with a mirrored depth.

    For poses of norm 1, ``sqrt(2 - 2 * overlap)`` is the distance that is left after the best rotation (Procrustes
    without reflection); the second result is that of a pose and the mirror image of the other.

    The inner product is the largest root of a quartic with four real roots (Horn 1987; Theobald 2005), found by
    Newton's method from above: no singular value decomposition, no branch, no synchronisation with the device.

    Args:
        products: (..., 3, 3), the root-relative poses (J, 3) multiplied: ``first.T @ second``.

    Returns:
        (...) and (...), float64.
    """
    product = products.double()
    square = product.square().sum((-1, -2))
    size = square.sqrt().clamp_min(1e-30)
    product = product / size[..., None, None]
    a, b, c = product.unbind(-1)
    determinant = (torch.linalg.cross(a, b, dim=-1) * c).sum(-1)
    constant = 2 * (product.transpose(-1, -2) @ product).square().sum((-1, -2)) - 1
    slope = 8 * torch.stack((determinant, -determinant))
    root = torch.full_like(slope, 3**0.5)  # no inner product of unit norm is larger
    for _ in range(_NEWTON_STEPS):
        squared = root * root
        value = (squared - 2) * squared - slope * root + constant
        root = root - value / (4 * (squared - 1) * root - slope).clamp_min(1e-9)
    return root[0] * size, root[1] * size


def collapse(poses: Tensor, present: Tensor | None) -> Tensor:
    """Put the joints that are not there where their parents are: (..., 17, D), (..., 17) -> (..., 17, D).

    A limb without its end then has no extent, so that it neither bends nor recedes; the data has them there, too.
    """
    if present is None:
        return poses
    joints = list(poses.unbind(-2))
    for child, parent in enumerate(PARENT):  # a parent comes before its children
        if parent >= 0:
            joints[child] = torch.where(present[..., child, None], joints[child], joints[parent])
    return torch.stack(joints, dim=-2)


def mirror_depth(poses: Tensor, signs: Tensor) -> Tensor:
    """Multiply the depth of each joint by its sign: (..., 17, 3), (17,) or (..., 17) -> (..., 17, 3)."""
    return torch.cat((poses[..., :2], (poses[..., 2] * signs).unsqueeze(-1)), dim=-1)


def limb_bend(poses: Tensor, least: float = 1e-12) -> Tensor:
    """How far knees bend forward and elbows backward, in limb lengths: (..., 17, 3) -> (..., 4).

    Knees (left, right), then elbows. Positive is anatomically right. Forward is the cross product of the hip (or
    shoulder) axis, right to left, with the upward direction of the trunk. The upward direction is taken in the image
    plane, so that mirroring the depth of a limb's own girdle and limb flips the value exactly. Where that cross product
    is shorter than ``least`` nobody can tell forward, and the value shrinks to 0.
    """
    up = poses[..., J["thorax"], :] - poses[..., J["hip"], :]
    up = torch.cat((up[..., :2], torch.zeros_like(up[..., 2:])), dim=-1)
    values = []
    for girdle, middle, end, direction in (
        ("hip", "knee", "ankle", 1.0),
        ("shoulder", "elbow", "wrist", -1.0),
    ):
        axis = poses[..., J[f"left_{girdle}"], :] - poses[..., J[f"right_{girdle}"], :]
        forward = torch.nn.functional.normalize(torch.cross(axis, up, dim=-1), dim=-1, eps=least)
        for side in ("left", "right"):
            start = poses[..., J[f"{side}_{girdle}"], :]
            limb = poses[..., J[f"{side}_{end}"], :] - start
            joint = poses[..., J[f"{side}_{middle}"], :] - start
            along = (joint * limb).sum(-1, keepdim=True) / (limb * limb).sum(-1, keepdim=True).clamp_min(1e-9)
            out = ((joint - along.clamp(0, 1) * limb) * forward).sum(-1)
            values.append(direction * out / limb.norm(dim=-1).clamp_min(1e-6))
    return torch.stack(values, dim=-1)


def plausibility(poses: Tensor) -> Tensor:
    """How human the signs of depth look, averaged over poses: (..., V, 17, 3) -> (...).

    The sum of four means, each in about [-1, 1]: knees bend forward; elbows bend backward; the hip and shoulder axes
    recede together; the two hips lie on opposite sides of the root. The first two flip with a mirrored depth (the
    depth ambiguity that arXiv 2205.05980's metric hides), the last two when only some parts are mirrored.
    """
    bends = limb_bend(poses)
    share = bends.sum(-2) / bends.abs().sum(-2).clamp_min(1e-9)  # (..., 4): 1 when every pose agrees
    knees, elbows = share[..., :2].mean(-1), share[..., 2:].mean(-1)
    z = poses[..., 2]
    axes = _correlation(
        z[..., J["left_hip"]] - z[..., J["right_hip"]],
        z[..., J["left_shoulder"]] - z[..., J["right_shoulder"]],
    )
    hips = _correlation(z[..., J["left_hip"]], -z[..., J["right_hip"]])
    shoulders = _correlation(
        z[..., J["left_shoulder"]] - z[..., J["thorax"]], z[..., J["thorax"]] - z[..., J["right_shoulder"]]
    )
    return knees + 0.5 * elbows + axes + hips + shoulders


def resolve_signs(
    poses: Tensor, offsets: Tensor, representation: Representation, present: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Tell the depth sign of each independent lifter without ground truth.

    Tries every combination of signs (32 at most) and keeps the most plausible.

    Args:
        poses: (V, 17, 2) normalised 2D poses.
        offsets: (S, V, 17) depth offsets as predicted.
        representation: says which joints were lifted together.
        present: (V, 17) which joints are there; ``None`` for all.

    Returns:
        Signs (S, P) of +1 or -1 for each entry of ``representation.lifters``, and confidences (S, P): the loss of
        plausibility if that sign alone were flipped, and 0 when it is not worse.
    """
    count = len(representation.lifters)
    combinations = _combinations(count, offsets.device)
    tried = [collapse(lift(poses, offsets * joint_signs(signs, representation)), present) for signs in combinations]
    scores = torch.stack([plausibility(lifted) for lifted in tried])  # (2^P, S)
    scores = torch.where(scores.isfinite(), scores, torch.full_like(scores, -1e9))
    best = scores.argmax(0)
    signs = combinations[best]
    flipped = torch.stack([best ^ (1 << (count - 1 - part)) for part in range(count)], dim=-1)  # (S, P)
    margin = scores.gather(0, best[None])[0][:, None] - scores.gather(0, flipped.T).T
    return signs, (margin / 2).clamp(0, 1)


def joint_signs(signs: Tensor, representation: Representation) -> Tensor:
    """Spread one sign per independent lifter over the joints: (..., P) -> (..., 17).

    A joint that several lifters predict takes the sign of the first (``Representation.lifter_of``).
    """
    return signs[..., places(representation.lifter_of, signs.device)]


@kept
def _combinations(count: int, device: torch.device) -> Tensor:
    """Every combination of ``count`` signs, (2^count, count)."""
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=count)), device=device)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity over the last axis (poses): 1 when they move together, -1 when they oppose."""
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)
