"""A plain PyTorch training loop of an adversarial lifter, none of it ours, with a Watch that judges and stops it.

    python examples/foreign_loop.py --out runs/foreign
    python examples/foreign_loop.py --out runs/broken --diverge-at 400    # the watch stops it and keeps what was before

Poses are in the unit of the watch: centred on the hip, the mean distance from hip to head is 1. The camera is ten such
units away, as in tips-dist.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import tips_dist as td
from tips_dist.data.procedural import generate  # any 2D poses would do

CAMERA = 10.0


def network(inputs: int, outputs: int, width: int = 128) -> nn.Sequential:
    """A plain multilayer perceptron."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def lift(lifter: nn.Module, poses: torch.Tensor) -> torch.Tensor:
    """Depths (N, 17) of poses (N, 17, 2)."""
    depths: torch.Tensor = lifter(poses.flatten(1))
    return depths - depths[:, :1]


def turned(poses: torch.Tensor, depths: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """The lifts seen from the side: 2D poses (N, 17, 2) after a turn about the vertical axis."""
    z = CAMERA + depths
    x, y = poses[..., 0] * z / CAMERA, poses[..., 1] * z / CAMERA
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    away = CAMERA + c * depths - s * x
    return torch.stack((c * x + s * depths, y), dim=-1) * (CAMERA / away.clamp_min(1))[..., None]


def main(out: Path, steps: int, every: int, diverge_at: int | None) -> td.RunFolder:
    """Train, and stop when the watch says so."""
    torch.manual_seed(0)
    data, _ = generate(4000, 0)
    rows = data.rows("train")
    pixels = torch.from_numpy(data.poses[rows])
    train = pixels - pixels[:, :1]
    train = train / train[:, 10].norm(dim=-1).mean()
    lifter, critic = network(34, 17), network(34, 1)
    optimiser = torch.optim.Adam(lifter.parameters(), lr=5e-4)
    against = torch.optim.Adam(critic.parameters(), lr=2e-4)
    watch = td.Watch(
        data,
        lambda poses: lift(lifter, poses),
        out,
        steps=steps,
        every=every,
        discriminate=lambda poses: critic(poses.flatten(1))[:, 0],
        tensors=True,
        name="foreign",
        save=lambda path: torch.save(lifter.state_dict(), path),
    )
    for step in range(1, steps + 1):
        poses = train[torch.randint(len(train), (128,))]
        real = train[torch.randint(len(train), (128,))]
        depths = lift(lifter, poses)
        angle = (2 * torch.rand(len(poses)) - 1) * torch.pi
        views = turned(poses, depths, angle)
        again = lift(lifter, views)
        back = turned(views, again, -angle)
        loss = (critic(views.flatten(1)) - 1).square().mean() + 10 * (back - poses).square().mean()
        if diverge_at is not None and step > diverge_at:
            loss = -loss  # on request: run away
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        told = critic(torch.cat((real, views.detach())).flatten(1))[:, 0]
        labels = torch.cat((torch.ones(len(real)), torch.zeros(len(views))))
        blame = (told - labels).square().mean()
        against.zero_grad()
        blame.backward()
        against.step()
        if watch.due(step):
            seen = watch.check(step, {"generator/loss": loss.item(), "discriminator/loss": blame.item()})
            print(f"step {step}: risk {seen.risk or float('nan'):.1f}, {seen.verdict.kind} {seen.verdict.reason}")
            if seen.stop:
                break
    print(f"best checkpoint: {watch.best_checkpoint}")
    return td.RunFolder(watch.finish())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--diverge-at", type=int)
    given = parser.parse_args()
    main(given.out, given.steps, given.every, given.diverge_at)
