"""Distances between reprojected lifts and held-out real 2D poses, per seed.

All compare *bone vectors* (16 bones x 2, in units of the root-to-head distance) of the same number of poses, seen in
the image plane. They see implausible views; none can see a mirrored depth, whose reprojections look almost alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.skeleton import BONES, LEGS, PARENT, TORSO
from tips_dist.tensors import places

_PARENTS, _CHILDREN = zip(*BONES, strict=True)
SAMPLES = 256  # of each kind: the pairwise distances are quadratic in it


def bone_vectors(poses: Tensor) -> Tensor:
    """(..., V, 17, 2) -> (..., V, 32), in units of the root-to-head distance."""
    parents, children = (places(ends, poses.device) for ends in (_PARENTS, _CHILDREN))
    return (poses[..., children, :] - poses[..., parents, :]).flatten(-2) * CAMERA_DISTANCE


@dataclass(frozen=True)
class Reference:
    """Held-out real poses with what can be known about them beforehand."""

    vectors: Tensor  # (V, 32)
    distances: Tensor  # (V, V), infinite on the diagonal
    radius: Tensor  # (V,) distance to the fifth neighbour among real poses
    bandwidths: Tensor  # (3,) half, once and twice the median distance

    def to(self, device: torch.device) -> Reference:
        """Move all tensors to ``device``."""
        return Reference(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    @classmethod
    def build(cls, poses: Tensor) -> Reference:
        """From (V, 17, 2) normalised real poses, of which the first ``SAMPLES`` (evenly spaced) are used."""
        vectors = bone_vectors(poses[places(_even(len(poses)), poses.device)])
        distances = torch.cdist(vectors, vectors)
        median = distances[~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)].median()
        distances = distances + torch.diag(torch.full((len(vectors),), torch.inf, device=vectors.device))
        neighbours = min(5, len(vectors) - 1)
        radius = distances.sort(dim=-1).values[:, neighbours - 1]
        return cls(vectors, distances, radius, median * torch.tensor([0.5, 1.0, 2.0], device=vectors.device))


@dataclass(frozen=True)
class Projections:
    """Held-out real poses along fixed directions, sorted: what sliced Wasserstein distances are measured against.

    Whole poses along all D directions; torso and legs, the other joints at the root, along the first half of them.
    """

    directions: Tensor  # (34, 2 D): whole, then torso, then legs
    ordered: Tensor  # (2 D, V) ascending

    def to(self, device: torch.device) -> Projections:
        """Move all tensors to ``device``."""
        return Projections(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    @classmethod
    def build(cls, poses: Tensor, directions: Tensor) -> Projections:
        """From (V, 17, 2) normalised real poses and unit vectors (34, D), D even."""
        half, joints = (
            directions[:, : directions.shape[1] // 2],
            torch.arange(len(PARENT)).repeat_interleave(2)[:, None],
        )
        parts = [half * ((joints >= part[0]) & (joints <= part[-1])) for part in (TORSO, LEGS)]
        found = torch.cat((directions, *parts), dim=1).to(poses)
        return cls(found, _ascending(_along(poses, found)))

    def distances(self, views: Tensor) -> dict[str, Tensor]:
        """Mean over directions of the 1D Wasserstein-1 distance (Rabin et al. 2011): (S, V, 17, 2) -> (S,) each.

        Of whole poses, torso and legs, in units of the root-to-head distance. Equal sample sizes, so it is a mean over
        sorted pairs.
        """
        apart = (_ascending(_along(views, self.directions)) - self.ordered).abs().mean(-1)  # (S, 2 D)
        whole, torso, legs = apart.tensor_split((apart.shape[-1] // 2, 3 * apart.shape[-1] // 4), dim=-1)
        return {"": whole.mean(-1), "_torso": torso.mean(-1), "_legs": legs.mean(-1)}


def _ascending(values: Tensor) -> Tensor:
    """Sorted along the last axis; on a CPU by NumPy, which is several times faster at it."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values


def _along(poses: Tensor, directions: Tensor) -> Tensor:
    """(..., V, 17, 2), (34, D) -> (..., D, V) in units of the root-to-head distance."""
    return directions.T @ (poses * CAMERA_DISTANCE).flatten(-2).transpose(-1, -2)


def two_sample(views: Tensor, reference: Reference) -> dict[str, Tensor]:
    """Three two-sample statistics of reprojections (S, V, 17, 2) against the reference, (S,) each.

    - ``mmd``: maximum mean discrepancy with a sum of three Gaussian kernels (Gretton et al. 2012), its square root.
    - ``nearest_neighbour``: leave-one-out 1-NN accuracy in telling real from reprojected (Lopez-Paz and Oquab 2017);
      0.5 when they cannot be told apart, 1 when they can.
    - ``coverage``: share of real poses with a reprojection within the distance of their fifth real neighbour
      (Naeem et al. 2020); falls when the lifter forgets some kinds of poses.
    """
    vectors = bone_vectors(views[:, places(_even(views.shape[1]), views.device)])  # (S, V, 32)
    own = torch.cdist(vectors, vectors)
    cross = torch.cdist(vectors, reference.vectors.expand(len(vectors), -1, -1))  # (S, fake, real)
    count, real = vectors.shape[1], len(reference.vectors)
    eye = torch.eye(count, dtype=torch.bool, device=views.device)

    def kernel(distances: Tensor) -> Tensor:
        bandwidths = reference.bandwidths
        return torch.stack([torch.exp(-0.5 * (distances / width).square()) for width in bandwidths]).mean(0)

    within_fake = kernel(own).masked_fill(eye, 0).sum((-1, -2)) / (count * (count - 1))
    within_real = kernel(reference.distances).sum() / (real * (real - 1))
    discrepancy = within_fake + within_real - 2 * kernel(cross).mean((-1, -2))
    nearest_fake = own.masked_fill(eye, torch.inf).amin(-1) < cross.amin(-1)
    nearest_real = reference.distances.amin(-1) < cross.amin(-2)
    return {
        "mmd": discrepancy.clamp_min(0).sqrt(),
        "nearest_neighbour": (nearest_fake.float().mean(-1) + nearest_real.float().mean(-1)) / 2,
        "coverage": (cross.amin(-2) <= reference.radius).float().mean(-1),
    }


def _even(count: int) -> tuple[int, ...]:
    kept = min(count, SAMPLES)
    return tuple(index * count // kept for index in range(kept))
