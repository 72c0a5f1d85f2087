"""Pose errors in float64, batched over poses: MPJPE, N-MPJPE, PA-MPJPE, PCK, AUC, and their breakdowns.

Shapes: poses (..., 17, 3) and per-joint distances (..., 17), in the truth's unit (mm). Every alignment works
pose by pose and never sees another pose. The mean runs over all 17 joints, the root (always 0 after root
alignment) included, as in the papers' code. A pose with a non-finite prediction has NaN errors and is never left
out silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.skeleton import JOINTS, LEGS, ROOT, TORSO

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer[Any]]

PCK_MM = 150.0
AUC_THRESHOLDS_MM: Array = np.linspace(0.0, PCK_MM, 31)
PARTS: dict[str, tuple[int, ...]] = {"legs": LEGS, "torso": TORSO}
_TINY = 1e-12


def distances(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Distance of each joint, (..., 17), between two poses (..., 17, 3), with no alignment of any kind."""
    return np.asarray(np.linalg.norm(_float64(prediction) - _float64(truth), axis=-1))


def root_centred(poses: npt.ArrayLike) -> Array:
    """Move each pose (..., 17, 3) so that its root is the origin."""
    array = _float64(poses)
    return array - array[..., ROOT : ROOT + 1, :]


def mpjpe(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Root-aligned distance of each joint (..., 17), scale and rotation as predicted."""
    return distances(root_centred(prediction), root_centred(truth))


def norm_aligned(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Root-centred prediction (..., 17, 3), each pose rescaled to the norm of its truth."""
    centred, target = root_centred(prediction), root_centred(truth)
    norm = np.linalg.norm(centred, axis=(-2, -1), keepdims=True)
    size = np.linalg.norm(target, axis=(-2, -1), keepdims=True)
    return np.asarray(centred * (size / np.maximum(norm, _TINY)))


def n_mpjpe(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Distance of each joint (..., 17) after :func:`norm_aligned`."""
    return distances(norm_aligned(prediction, truth), root_centred(truth))


def similarity_aligned(prediction: npt.ArrayLike, truth: npt.ArrayLike, *, reflection: bool = False) -> Array:
    """Prediction (..., 17, 3) after the best translation, rotation and scale onto the truth (Umeyama, 1991).

    With ``reflection`` a mirror image may be used as well: the metric is then blind to the depth sign, so it
    must never stand alone. A prediction that is not finite stays NaN.
    """
    source, target = _float64(prediction), _float64(truth)
    finite = np.isfinite(source).all(axis=(-2, -1), keepdims=True)
    source = np.where(finite, source, 0.0)
    source = source - source.mean(axis=-2, keepdims=True)
    centre = target.mean(axis=-2, keepdims=True)
    left, values, right = np.linalg.svd(np.swapaxes(source, -1, -2) @ (target - centre))
    if not reflection:
        flip = np.where(np.linalg.det(left) * np.linalg.det(right) < 0, -1.0, 1.0)
        left[..., :, -1] *= flip[..., None]
        values[..., -1] *= flip
    size = (source**2).sum(axis=(-2, -1))
    scale = values.sum(axis=-1) / np.maximum(size, _TINY)
    aligned = scale[..., None, None] * (source @ (left @ right)) + centre
    return np.where(finite, aligned, np.nan)


def pa_mpjpe(prediction: npt.ArrayLike, truth: npt.ArrayLike, *, reflection: bool = False) -> Array:
    """Distance of each joint (..., 17) after :func:`similarity_aligned`."""
    return distances(similarity_aligned(prediction, truth, reflection=reflection), truth)


def pck(errors: npt.ArrayLike, threshold: float = PCK_MM) -> float:
    """Percent of joints whose distance is below ``threshold`` (MPI-INF-3DHP; NaN counts as a miss)."""
    return float(100.0 * (_float64(errors) < threshold).mean())


def auc(errors: npt.ArrayLike) -> float:
    """Mean of :func:`pck` over the 31 thresholds 0, 5, ..., 150 mm, in percent."""
    flat = np.sort(_float64(errors), axis=None)  # NaN sorts last, so it is never below a threshold
    return float(100.0 * np.searchsorted(flat, AUC_THRESHOLDS_MM, side="left").mean() / flat.size)


def action(sequence: str) -> str:
    """The action of a sequence: its name's last component without the trailing number (S1/Walking-1 → Walking).

    Where that only names a person and a trial, as in the CMU database, the component before it (dance/s05_02 → dance).
    """
    folder, _, name = sequence.rpartition("/")
    if folder and re.fullmatch(r"[sS]?\d+[-_]\d+", name):
        return folder.rsplit("/", 1)[-1]
    return re.sub(r"[-_ .]*\d+$", "", name) or name


def per_joint(errors: Array) -> dict[str, float]:
    """Mean error of each joint over poses, from distances (N, 17)."""
    return dict(zip(JOINTS, errors.mean(axis=0).tolist(), strict=True))


def per_part(errors: Array) -> dict[str, float]:
    """Mean error of the legs' and the torso's joints, from distances (N, 17)."""
    return {name: float(errors[:, list(joints)].mean()) for name, joints in PARTS.items()}


def per_group(errors: Array, codes: Codes, names: Sequence[str]) -> dict[str, float]:
    """Mean error by group: ``codes`` (N,) index ``names``; equal names are one group, absent ones left out."""
    unique = {name: index for index, name in enumerate(dict.fromkeys(names))}
    merged = np.array([unique[name] for name in names], dtype=np.int64)[codes]
    counts = np.bincount(merged, minlength=len(unique))
    sums = np.bincount(merged, weights=errors.mean(axis=1), minlength=len(unique))
    return {name: float(sums[index] / counts[index]) for name, index in unique.items() if counts[index]}


def _float64(values: npt.ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)
