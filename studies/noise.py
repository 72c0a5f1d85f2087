"""A data set with the noise of a real detector added to its 2D poses; the truth stays as it was.

    python -m studies.noise data/cmu openpose_4_cameras.npz -o data/cmu-noisy

The noise is measured, not assumed: OpenPose's detections of one person in four synchronous cameras, minus the images of
the joints triangulated from them, under the projective camera that fits best (direct linear transform, Hartley and
Zisserman 2004, section 7.1). Each pose of the data set gets the residuals of one detected pose drawn at random, all
joints together, as shares of the mean root-to-head distance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.data.store import COLUMNS, NAMES, normalisation_scale, read_poses, read_record
from tips_dist.data.writer import Writer, write_dataset
from tips_dist.evaluation.truth import read_truth

Array = npt.NDArray[np.float64]


def residuals(poses: Array, joints: Array, cameras: npt.NDArray[Any]) -> Array:
    """What a detector was off by, as shares of the mean root-to-head distance (n, 17, 2).

    Args:
        poses: detections (n, 17, 2), px.
        joints: the same instants in the world (n, 17, 3).
        cameras: (n,) whose view each is; a camera stands still.
    """
    off = np.empty_like(poses)
    for camera in np.unique(cameras):
        rows = cameras == camera
        off[rows] = poses[rows] - project(fitted_camera(poses[rows], joints[rows]), joints[rows])
    return np.asarray(off / np.linalg.norm(poses[:, 10] - poses[:, 0], axis=-1).mean())


def fitted_camera(poses: Array, joints: Array) -> Array:
    """The projection matrix (3, 4) of least algebraic error from ``joints`` (..., 3) to ``poses`` (..., 2)."""
    image, world = poses.reshape(-1, 2), joints.reshape(-1, 3)
    centre, spread = image.mean(0), image.std()
    middle, size = world.mean(0), world.std()
    flat = np.concatenate(((world - middle) / size, np.ones((len(world), 1))), axis=1)
    nothing = np.zeros_like(flat)
    x, y = ((image - centre) / spread).T[..., None]
    rows = np.concatenate((np.hstack((flat, nothing, -x * flat)), np.hstack((nothing, flat, -y * flat))))
    matrix = np.linalg.svd(rows, full_matrices=False)[2][-1].reshape(3, 4)
    back = np.array([[spread, 0, centre[0]], [0, spread, centre[1]], [0, 0, 1]])
    there = np.eye(4)
    there[:3] /= size
    there[:3, 3] = -middle / size
    found: Array = back @ matrix @ there
    return found


def project(camera: Array, joints: Array) -> Array:
    """Where ``joints`` (..., 3) are seen, px."""
    seen = joints @ camera[:, :3].T + camera[:, 3]
    found: Array = seen[..., :2] / seen[..., 2:]
    return found


def write_noisy(prefix: str, noise: Array, output: str, seed: int = 0) -> None:
    """Copy a data set, with the residuals (n, 17, 2) of one pose drawn at random added to each of its poses."""
    source = Path(f"{prefix}.pose2d.h5")
    poses = read_poses(source)
    truth = read_truth(Path(f"{prefix}.truth3d.h5"), poses)
    drawn = np.random.default_rng(seed).integers(len(noise), size=len(poses.poses))
    with h5py.File(source) as file:
        columns = {name: file[name][()] for name in COLUMNS}
        names = {name: [one.decode() for one in file[name][()]] for name in NAMES}
        rate, text = float(file.attrs["frame_rate_hz"]), str(file.attrs["source"])
    columns["poses"] = columns["poses"] + noise[drawn] * normalisation_scale(poses) / 10
    record = read_record(source)
    record["noise"] = f"residuals of {len(noise)} detected poses, {noise.std():.3f} of the root-to-head distance"

    def fill(writer: Writer) -> None:
        writer.append(columns, truth.joints)
        writer.finish(names, f"{text}, with a detector's noise", rate, record)

    write_dataset(Path(f"{output}.pose2d.h5"), Path(f"{output}.truth3d.h5"), fill)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", help="the data set, PREFIX.pose2d.h5 and PREFIX.truth3d.h5")
    parser.add_argument("detections", type=Path, help="npz with poses, joints and camera")
    parser.add_argument("-o", "--output", required=True, help="PREFIX of the files to write")
    options = parser.parse_args()
    with np.load(options.detections, allow_pickle=False) as file:
        noise = residuals(file["poses"], file["joints"], file["camera"])
    write_noisy(options.prefix, noise, options.output)
    lengths = np.linalg.norm(noise, axis=-1)
    print(
        f"{len(noise)} detected poses: mean residual {lengths.mean():.4f} of the root-to-head distance, "
        f"median {np.median(lengths):.4f}, 95th percentile {np.percentile(lengths, 95):.4f}"
    )


if __name__ == "__main__":
    main()
