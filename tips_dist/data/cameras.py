"""Virtual cameras: 2D poses for motion that was recorded without any.

As in Human3.6M: focal length 1145 px on a 1000 px image, 4 to 6 m away, looking 5 to 15 degrees down. World frame:
right-handed, y up, millimetres. Camera frame: x right, y down, z away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FOCAL_PX = 1145.0
IMAGE_PX = 1000.0
TILT_DEGREES = (5.0, 15.0)
DISTANCE_MM = (4000.0, 6000.0)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cameras:
    """n cameras that look at the root joint: azimuth and downward tilt in radians, distance in mm."""

    azimuth: Floats
    tilt: Floats
    distance: Floats

    def __len__(self) -> int:
        return len(self.azimuth)

    def view(self, joints: npt.ArrayLike) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See world joints (n, ..., 17, 3): truth (n, ..., 17, 3) in mm in the camera's frame, px (n, ..., 17, 2)."""
        world = np.asarray(joints, dtype=np.float64)
        world = world - world[..., :1, :]
        turn = np.einsum("nij,n...j->n...i", self.rotations(), world)
        turn[..., 2] += self.distance.reshape(-1, *[1] * (world.ndim - 2))
        return turn.astype(np.float32), pinhole(turn).astype(np.float32)

    def rotations(self) -> Floats:
        """World to camera, (n, 3, 3): turn about the vertical, flip y and z into the camera's axes, tilt down."""
        c, s, zero, one = (
            np.cos(self.azimuth), np.sin(self.azimuth), np.zeros(len(self)), np.ones(len(self)),
        )  # fmt: skip
        ct, st = np.cos(self.tilt), np.sin(self.tilt)
        turn = _matrices([[c, zero, s], [zero, one, zero], [-s, zero, c]])
        tilt = _matrices([[one, zero, zero], [zero, ct, -st], [zero, st, ct]])
        rotations: Floats = tilt @ np.diag([1.0, -1.0, -1.0]) @ turn
        return rotations


def rig(generator: np.random.Generator, cameras: int) -> Cameras:
    """Cameras at equal azimuths around the body; where the first stands, tilts and distances are drawn."""
    start = generator.uniform(0, 2 * np.pi)
    azimuth = start + 2 * np.pi * np.arange(cameras) / cameras
    return Cameras(azimuth, *_tilt_and_distance(generator, cameras))


def scattered(generator: np.random.Generator, cameras: int) -> Cameras:
    """Cameras anywhere around the body."""
    return Cameras(generator.uniform(0, 2 * np.pi, cameras), *_tilt_and_distance(generator, cameras))


def pinhole(joints: npt.ArrayLike) -> Floats:
    """Pinhole projection of camera-frame joints (..., 3) to px (..., 2)."""
    points = np.asarray(joints, dtype=np.float64)
    result: Floats = FOCAL_PX * points[..., :2] / points[..., 2:] + IMAGE_PX / 2
    return result


def _tilt_and_distance(generator: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    return np.radians(generator.uniform(*TILT_DEGREES, n)), generator.uniform(*DISTANCE_MM, n)


def _matrices(rows: list[list[Floats]]) -> Floats:
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
