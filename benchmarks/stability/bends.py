"""Who breaks the anatomical prior, and by how much: true poses whose knees or elbows bend the wrong way, by action.

    python -m benchmarks.stability.bends --poses data/cmu.pose2d.h5 --truth data/cmu.truth3d.h5

``geometry.bend`` of the true joints, as the loss ``bend`` sees it. A limb that is nearly straight may err by a little
without harm, so wrong means by more than 2 % of the limb's length.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from tips_dist import geometry, losses
from tips_dist.data.store import read_poses
from tips_dist.evaluation.metrics import action
from tips_dist.evaluation.truth import read_truth
from tips_dist.skeleton import HEAD

WRONG = 0.02  # of the limb's length


def main() -> None:
    """Print one row per action."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=Path, default=Path("data/cmu.pose2d.h5"))
    parser.add_argument("--truth", type=Path, default=Path("data/cmu.truth3d.h5"))
    arguments = parser.parse_args()
    poses = read_poses(arguments.poses)
    joints = read_truth(arguments.truth, poses).joints
    unit = float(np.linalg.norm(joints[:, HEAD] - joints[:, 0], axis=-1).mean())
    bodies = torch.from_numpy((joints - joints[:, :1]) / unit)
    bends = geometry.limb_bend(bodies, losses.LEAST_FORWARD)
    loss = torch.stack([losses.bend(body[None, None])[0] for body in bodies])
    names = np.array([action(name) for name in poses.sequence_names])[poses.sequence]
    print("| action | poses | knees wrong, % | elbows wrong, % | worst knee | worst elbow | loss of the truth |")
    print("|---|---|---|---|---|---|---|")
    for name in [*sorted(set(names)), "all"]:
        rows = torch.from_numpy(np.flatnonzero(names == name) if name != "all" else np.arange(len(names)))
        knees, elbows = bends[rows, :2], bends[rows, 2:]
        shares = [100 * float((limb < -WRONG).double().mean()) for limb in (knees, elbows)]
        print(
            f"| {name} | {len(rows)} | {shares[0]:.1f} | {shares[1]:.1f} | {float(knees.min()):.2f} "
            f"| {float(elbows.min()):.2f} | {float(loss[rows].mean()):.4f} |"
        )


if __name__ == "__main__":
    main()
