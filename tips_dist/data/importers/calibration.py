"""A camera's place and lens from pairs of world points and pixels: direct linear transform, then least squares.

The lens model is the one of Human3.6M (focal length, centre, two radial terms). The loss is robust, so detections
with outliers do as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Extrinsics of a camera, world to camera frame in mm, and the median error of its projections in px."""

    rotation: Floats  # (3, 3)
    translation: Floats  # (3,)
    error_px: float

    def to_camera(self, world: Floats) -> Floats:
        """World points (..., 3) in mm in the camera's frame."""
        result: Floats = world @ self.rotation.T + self.translation
        return result


def calibrate(world: Floats, pixels: Floats) -> Calibration:
    """The camera that sees ``world`` (n, 3) at ``pixels`` (n, 2)."""
    rotation, translation, focal, centre = _linear(world, pixels)
    start = np.concatenate(
        [Rotation.from_matrix(rotation).as_rotvec(), translation / 1000, [focal / 1000], centre / 1000, [0.0, 0.0]]
    )

    def residuals(x: Floats) -> Floats:
        return (_projected(x, world) - pixels).ravel()

    fitted = least_squares(residuals, start, loss="soft_l1", f_scale=3.0, max_nfev=60).x
    error = np.linalg.norm(_projected(fitted, world) - pixels, axis=-1)
    return Calibration(Rotation.from_rotvec(fitted[:3]).as_matrix(), 1000 * fitted[3:6], float(np.median(error)))


def _projected(x: Floats, world: Floats) -> Floats:
    camera = Rotation.from_rotvec(x[:3]).apply(world) + 1000 * x[3:6]
    flat = camera[:, :2] / np.maximum(camera[:, 2:], 1.0)
    square = np.minimum((flat**2).sum(axis=-1, keepdims=True), 4.0)
    lens = 1 + x[9] * square + x[10] * square**2
    result: Floats = 1000 * x[6] * flat * lens + 1000 * x[7:9]
    return result


def _linear(world: Floats, pixels: Floats) -> tuple[Floats, Floats, float, Any]:
    """Direct linear transform on normalised points: rotation, translation, focal length, centre."""
    middle, spread = world.mean(axis=0), max(float(world.std()), 1e-9)
    mean, size = pixels.mean(axis=0), max(float(pixels.std()), 1e-9)
    points = np.concatenate([(world - middle) / spread, np.ones((len(world), 1))], axis=-1)
    u, v = ((pixels - mean) / size).T[:, :, None]
    zero = np.zeros_like(points)
    system = np.concatenate(
        [np.concatenate([points, zero, -u * points], -1), np.concatenate([zero, points, -v * points], -1)]
    )
    matrix = np.linalg.svd(system.T @ system)[2][-1].reshape(3, 4)
    back = np.array([[size, 0, mean[0]], [0, size, mean[1]], [0, 0, 1.0]])
    forth = np.eye(4)
    forth[:3, :3] /= spread
    forth[:3, 3] = -middle / spread
    matrix = back @ matrix @ forth
    matrix /= np.linalg.norm(matrix[2, :3])
    if (matrix[2, :3] @ middle + matrix[2, 3]) < 0:
        matrix = -matrix
    # RQ decomposition by QR of the reversed matrix
    q, r = np.linalg.qr(matrix[::-1, :3].T)
    intrinsic, rotation = r.T[::-1, ::-1], q.T[::-1]
    signs = np.sign(np.diag(intrinsic))
    intrinsic, rotation = intrinsic * signs, signs[:, None] * rotation
    if np.linalg.det(rotation) < 0:
        rotation = -rotation
    translation = np.linalg.solve(intrinsic, matrix[:, 3])
    scale = intrinsic[2, 2]
    focal = float(np.mean(np.abs(np.diag(intrinsic)[:2])) / scale)
    return rotation, translation, focal, intrinsic[:2, 2] / scale
