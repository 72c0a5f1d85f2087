"""Procedural bodies with their truth, seen by four cameras and in motion; only tests may know it."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import numpy as np
import torch

from tests.training.worlds import world
from tips_dist import geometry
from tips_dist.data.procedural import generate
from tips_dist.data.store import Poses

BODIES = 60


@cache
def _truth() -> torch.Tensor:
    """(N, 17, 3) root-relative bodies of unit size (root to head)."""
    joints = torch.from_numpy(generate(1500, 0)[1])
    joints = joints - joints[:, :1]
    unit: torch.Tensor = joints / joints[:, 10].norm(dim=-1).mean()
    return unit


def _turned(bodies: torch.Tensor, cameras: int) -> torch.Tensor:
    """Each body from ``cameras`` sides, a body's views one after the other: (n, 17, 3) -> (n * cameras, 17, 3)."""
    azimuth = torch.arange(cameras) * 2 * math.pi / cameras + 0.3
    turns = geometry.rotation(azimuth, torch.full((cameras,), 0.1))
    return torch.stack([geometry.rotate(bodies, turn) for turn in turns], dim=1).flatten(0, 1)


PROCEDURAL = _turned(_truth()[:: len(_truth()) // BODIES][:BODIES], 4)  # (240, 17, 3)
FOUR = torch.arange(len(PROCEDURAL)).view(-1, 4)


def seen(bodies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2D poses and the true offsets of bodies (..., 17, 3)."""
    return geometry.project(bodies), bodies[..., 2].clone()


def mirrored(bodies: torch.Tensor, share: float, noise: float = 0.15) -> torch.Tensor:
    """Lifts of imperfect depth, ``share`` of them mirrored, whichever view."""
    poses, depths = seen(bodies)
    generator = torch.Generator().manual_seed(3)
    wrong = noise * depths.std() * torch.randn(depths.shape, generator=generator)
    wrong[:, 0] = 0
    signs = torch.ones(len(bodies))
    signs[torch.randperm(len(bodies), generator=generator)[: round(share * len(bodies))]] = -1
    return geometry.lift(poses, (depths + wrong) * signs[:, None])


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (K, 2, 17, 2) of one rigid body before and after a turn, and the true offsets (K, 2, 17)."""
    before = PROCEDURAL[::3]
    turn = geometry.rotation(torch.full((len(before),), 0.2), torch.full((len(before),), 0.05))
    return seen(torch.stack((before, geometry.rotate(before, turn)), dim=1))


def steady(stretches: int, frames: int) -> Poses:
    """The tests' world with stretches of ``frames`` neighbouring frames, two cameras each, at 60 Hz."""
    poses = world()
    count = stretches * frames * 2
    stretch = np.full(len(poses), -1, np.int32)
    frame, camera = poses.frame.copy(), poses.camera.copy()
    index = np.arange(count)
    stretch[:count], camera[:count], frame[:count] = index // (2 * frames), index // frames % 2, index % frames
    return dataclasses.replace(poses, stretch=stretch, frame=frame, camera=camera, frame_rate_hz=60.0)
