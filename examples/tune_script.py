"""Somebody's own Ray Tune script: their trainable, their search; our watch, stopper and run folder.

    python examples/tune_script.py --out runs/tune
    tips-dist summary runs/tune

The trainable fits a lifter to one loss, that a lift seen from elsewhere and lifted back is the pose again, at learning
rates up to far too high ones. Its watch measures signals and risk; Tune's trials end by our verdicts.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from ray import tune
from torch import nn

import tips_dist as td
from tips_dist.adapters.tune import RunFolderCallback, VerdictStopper
from tips_dist.data.procedural import generate

CAMERA = 10.0  # units away; a unit is the mean distance from hip to head, as a watch has it


def seen_from_the_side(poses: torch.Tensor, depths: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """2D poses (N, 17, 2) of the lifts after a turn about the vertical axis."""
    z = CAMERA + depths
    x, y, c, s = poses[..., 0] * z / CAMERA, poses[..., 1] * z / CAMERA, angle.cos()[:, None], angle.sin()[:, None]
    away = (CAMERA + c * depths - s * x).clamp_min(1)
    return torch.stack((c * x + s * depths, y), dim=-1) * (CAMERA / away)[..., None]


def fit(config: dict[str, Any]) -> None:
    """The trainable: reports what the watch saw every few steps."""
    torch.manual_seed(0)
    poses, _ = generate(2000, 0)
    pixels = torch.from_numpy(poses.poses[poses.rows("train")])
    centred = pixels - pixels[:, :1]
    train = centred / centred[:, 10].norm(dim=-1).mean()
    network = nn.Sequential(nn.Flatten(), nn.Linear(34, 64), nn.ReLU(), nn.Linear(64, 17))

    def lift(views: torch.Tensor) -> torch.Tensor:
        depths: torch.Tensor = network(views)
        return depths - depths[:, :1]

    optimiser = torch.optim.SGD(network.parameters(), lr=config["lr"])
    steps, every = config["steps"], config["every"]
    watch = td.Watch(poses, lift, Path(tempfile.mkdtemp()) / "run", steps=steps, every=every, tensors=True)
    for step in range(1, steps + 1):
        batch = train[torch.randint(len(train), (128,))]
        angle = (2 * torch.rand(len(batch)) - 1) * torch.pi
        views = seen_from_the_side(batch, lift(batch), angle)
        loss = (seen_from_the_side(views, lift(views), -angle) - batch).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if watch.due(step):
            tune.report(watch.check(step, {"generator/loss": loss.item()}).metrics())


def main(out: Path, steps: int, every: int, trials: int) -> td.RunFolder:
    """Search the learning rate."""
    rates = [10.0 ** (-3 + 5 * index / max(1, trials - 1)) for index in range(trials)]
    with tempfile.TemporaryDirectory() as scratch:
        tune.Tuner(
            tune.with_resources(fit, {"cpu": 1}),
            param_space={"lr": tune.grid_search(rates), "steps": steps, "every": every},
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                stop=VerdictStopper(steps=steps, step="step"),
                callbacks=[RunFolderCallback(out, steps=steps, every=every, step="step")],
            ),
        ).fit()
    return td.RunFolder(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--trials", type=int, default=6)
    given = parser.parse_args()
    print(main(given.out, given.steps, given.every, given.trials).frame("seeds").to_string())
