"""The study of correlations: which keypoint does each predicted depth depend on (arXiv 2209.00618, section 5)?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tips_dist.data.store import Poses, normalised
from tips_dist.devices import threads_for
from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.models import BaseLifter, load_weights
from tips_dist.runfolder import Dependence, Selection, layout
from tips_dist.runfolder.choices import RepresentationDependence
from tips_dist.skeleton import BONES, JOINTS, ROOT

NEAR = 3  # joints further apart than so many bones are long-range
POSES = 256  # validation poses that the means are taken over


def record_dependence(run: Path, poses: Poses) -> Dependence:
    """Write ``dependence.json``: the matrices of each representation's lowest-risk lifter, from 2D poses alone.

    Raises:
        UserError: the run has no ``selection.json`` yet, or a candidate is missing or damaged.
    """
    selection = Selection.load(layout.SELECTION.at(run))
    ranked = sorted((row for row in selection.seeds if row.file), key=lambda row: row.rank or 0, reverse=True)
    best = {row.representation: row for row in ranked}  # the lowest rank stays
    rows = poses.rows("validation")
    rows = rows[:: max(1, len(rows) // POSES)][:POSES]
    found = {}
    for name, row in sorted(best.items()):
        assert row.file is not None
        lifter, weights = load_weights(run / row.file)
        inputs = torch.from_numpy(normalised(poses, rows, weights.scale))
        with threads_for(len(inputs), weights.width):
            matrix = input_dependence(lifter, inputs)
            with torch.no_grad():
                correlation = output_correlation(lifter(inputs[None])[0].numpy())
        found[name] = RepresentationDependence(
            trial=row.trial,
            seed=row.seed,
            step=row.step or 0,
            file=row.file,
            input_gradient=matrix.round(6).tolist(),
            output_correlation=correlation.round(6).tolist(),
            long_range=round(long_range(matrix), 6),
        )
    return Dependence(joints=list(JOINTS), near_bones=NEAR, representations=found).save(layout.DEPENDENCE.at(run))


def input_dependence(lifter: BaseLifter, poses: Tensor) -> np.ndarray:
    """How far each depth moves when a keypoint moves: mean absolute input gradient.

    Args:
        lifter: a pack of one.
        poses: (V, 17, 2) normalised poses.

    Returns:
        (17, 17): row i is the predicted depth of joint i, column j the keypoint j; unit depth per unit length.
    """
    inputs = poses[None].clone().requires_grad_()
    offsets = lifter(inputs)
    matrix = np.zeros((len(JOINTS), len(JOINTS)))
    for joint in range(len(JOINTS)):
        if joint != ROOT:
            (gradient,) = torch.autograd.grad(offsets[..., joint].sum(), inputs, retain_graph=True)
            # Positions are divided by the camera distance before they enter, depths are not.
            matrix[joint] = (gradient[0] / CAMERA_DISTANCE).norm(dim=-1).mean(0).numpy()
    return matrix


def output_correlation(depths: np.ndarray) -> np.ndarray:
    """Correlation of predicted depths over poses: (V, 17) -> (17, 17); 0 for the root, which does not move."""
    centred = depths - depths.mean(0)
    deviation = np.maximum(centred.std(0), 1e-12)
    matrix: np.ndarray = (centred.T @ centred) / len(depths) / np.outer(deviation, deviation)
    matrix[ROOT] = matrix[:, ROOT] = 0.0
    return matrix


def bone_distance() -> np.ndarray:
    """Number of bones between any two joints along the skeleton, (17, 17)."""
    distance = np.full((len(JOINTS), len(JOINTS)), np.inf)
    np.fill_diagonal(distance, 0)
    for parent, child in BONES:
        distance[parent, child] = distance[child, parent] = 1
    for middle in range(len(JOINTS)):
        distance = np.minimum(distance, distance[:, [middle]] + distance[[middle], :])
    return distance


def long_range(matrix: np.ndarray) -> float:
    """Share of all dependence that joins keypoints more than ``NEAR`` bones apart, 0 to 1."""
    total = matrix.sum()
    return float(matrix[bone_distance() > NEAR].sum() / total) if total > 0 else 0.0
