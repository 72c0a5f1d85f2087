"""Agreement: what lifts of one body must have in common, between the views of an instant and from frame to frame.

``views`` (per seed; whole, torso, legs): the lifts of one instant's views are one body seen from elsewhere, so a
rotation must bring one onto the other. What is left over (1 - overlap, the mean over pairs of views) is divided by what
a mirrored view leaves over, but by no more than a body's mirror image does. A flat pose fits its mirror image as well
as itself, so it scores 1 or more, as lifts with nothing in common do; bodies that agree score towards 0. The square
root is taken. Without the division flat poses would agree best of all.

``time``: bones turn from frame to frame, and do not stretch. The change of bone lengths over a tenth of a second, as a
share of how far the bones move in the image: 0 for rigid bodies, and large for flat poses, whose bones stretch with
every turn. Indifferent to mirrored frames. (How smoothly depth itself moves, its second difference against that of x,
ranked checkpoints no better than chance and is not used.)

``mixed``: the share of poses that a network holds mirrored (module ``pose_signs``), 0 to 0.5, of torso and legs apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tips_dist import geometry, losses, pose_signs
from tips_dist.data.store import Poses
from tips_dist.skeleton import JOINTS, LEGS, REPRESENTATIONS, TORSO
from tips_dist.tensors import numbers

GROUPS: dict[str, tuple[int, ...]] = {"": tuple(range(len(JOINTS))), "_torso": TORSO, "_legs": LEGS}
# What 1 - overlap of a body and its mirror image is worth at least (real bodies: 0.10, torso and legs 0.04).
HANDEDNESS = {"": 0.08, "_torso": 0.03, "_legs": 0.03}
CLIPS = 64  # pairs of frames
LAG_SECONDS = 0.1
_BOTH = REPRESENTATIONS["torso_legs"]

Overlaps = dict[str, tuple[Tensor, Tensor]]


def overlaps(resolved: Tensor, instants: Tensor, present: Tensor | None = None) -> Overlaps:
    """Overlaps (S, I, C), as they are and with one view mirrored, of whole poses, torsos and legs."""
    torso, legs = (pose_signs.view_products(resolved, instants, joints, present) for joints in (TORSO, LEGS))
    return {name: part.overlaps() for name, part in {"": torso + legs, "_torso": torso, "_legs": legs}.items()}


def views(found: Overlaps, instants: Tensor, poses: int, present: Tensor | None = None) -> dict[str, Tensor]:
    """``agreement/views`` and those of torso and legs, (S,) each, from overlaps of sign-resolved lifts."""
    signals = {}
    for group, (same, mirrored) in found.items():
        there = pose_signs.pairs_present(instants, poses, GROUPS[group], present)
        left, reflected = (_mean(1 - overlap, there) for overlap in (same, mirrored))
        bounded = reflected.clamp_min(1e-9).clamp_max(HANDEDNESS[group])
        signals[f"agreement/views{group}"] = (left.clamp_min(0) / bounded).sqrt().float()
    return signals


def mixed(resolved: Tensor, instants: Tensor | None = None, found: Overlaps | None = None) -> dict[str, Tensor]:
    """``mirror/mixed`` and those of torso and legs, (S,) each: the estimated share of mirrored poses, 0 to 0.5.

    Args:
        resolved: (S, V, 17, 3) lifts, each network's own signs resolved.
        instants: (I, M) rows of the same instant, with the overlaps ``found`` between them; None for one camera.
        found: see :func:`overlaps`.
    """
    votes = None
    if found is not None:
        votes = torch.stack([pose_signs.votes_of(*found[f"_{part.name}"]) for part in _BOTH.lifters], dim=-1)
    _, shares = pose_signs.tell_mirrored(resolved, _BOTH, instants, votes)
    shares = torch.minimum(shares, 1 - shares)
    parts = {f"_{part.name}": shares[:, place] for place, part in enumerate(_BOTH.lifters)}
    whole = shares @ numbers(tuple(len(part.joints) / len(JOINTS) for part in _BOTH.lifters), shares.device)
    return {f"mirror/mixed{group}": share for group, share in {"": whole, **parts}.items()}


def time(clips: Tensor, offsets: Tensor, present: Tensor | None = None) -> Tensor:
    """``agreement/time``, (S,): clips (K, 2, 17, 2) of two near frames each, their resolved offsets (S, K, 2, 17)."""
    lifted = geometry.lift(clips.expand(*offsets.shape, 2), offsets)
    stretched = losses.bone_lengths(lifted).diff(dim=2).abs()  # (S, K, 1, 16)
    flat = torch.cat((clips, torch.zeros_like(clips[..., :1])), dim=-1) * geometry.CAMERA_DISTANCE
    moved = losses.bone_lengths(flat.diff(dim=1))  # (K, 1, 16): how far bones move in the image
    if present is not None:
        there = losses.bones_present(present).all(dim=1, keepdim=True)
        stretched, moved = stretched * there, moved * there
    return stretched.sum((1, 2, 3)) / moved.sum().clamp_min(1e-9)


def clip_rows(poses: Poses, count: int = CLIPS) -> npt.NDArray[np.int64]:
    """Rows (K, 2) of at most ``count`` pairs of frames a tenth of a second apart, evenly chosen from the stretches.

    A stretch that is shorter gives its two ends; (0, 2) where the data has no stretches.
    """
    lag = max(1, round(poses.frame_rate_hz * LAG_SECONDS))
    found: list[tuple[int, int]] = []
    for rows in poses.stretches():
        step = min(lag, len(rows) - 1)
        if step > 0:
            found += zip(rows[:-step].tolist(), rows[step:].tolist(), strict=True)
    if len(found) > count:
        found = [found[index * len(found) // count] for index in range(count)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def table(groups: list[npt.NDArray[np.int64]], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Places (I, M) in the ascending ``rows`` (V,) of the views of each instant; V where a view is missing.

    ``None`` when there is no instant.
    """
    if not groups:
        return None
    places = np.full((len(groups), max(map(len, groups))), len(rows), dtype=np.int64)
    for line, group in zip(places, groups, strict=True):
        line[: len(group)] = np.searchsorted(rows, group)
    return places


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean over the pairs (I, C) that are there: (S, I, C) -> (S,)."""
    return torch.where(there, values, torch.zeros_like(values)).sum((1, 2)) / there.sum().clamp_min(1)
