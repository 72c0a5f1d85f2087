"""A normalising flow over 2D poses: how likely a view is, learnt once from 2D data alone (ElePose's idea).

    python -m benchmarks.peers.flow data/cmu.pose2d.h5 -o data/cmu.flow.safetensors

Poses are whitened by their principal components, of which the last few (joints that hang together) are left out, and
pass affine couplings (RealNVP, Dinh et al. 2017, arXiv 1605.08803), as in Wandt et al. 2022 (ElePose, arXiv 2112.07088,
section 3.2). An implementation of our own from the paper's description, in the units of this project.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from tips_dist.data.store import normalisation_scale, normalised, read_poses
from tips_dist.skeleton import MIRROR

KEPT = 26  # principal components, of 32 coordinates besides the root's
COUPLINGS, WIDTH = 8, 256
STEPS, BATCH, RATE, LOOKS = 2000, 512, 1e-3, 40
JITTER = 0.3  # of a component's standard deviation
LIMIT = 2.0  # of a coupling's log scale, which keeps its inverse tame


class Flow(nn.Module):
    """Poses (..., 17, 2), normalised, to their negative log-likelihood a component (...)."""

    mean: Tensor
    whiten: Tensor
    orders: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(32))
        self.register_buffer("whiten", torch.zeros(32, KEPT))
        generator = torch.Generator().manual_seed(0)
        orders = torch.stack([torch.randperm(KEPT, generator=generator) for _ in range(COUPLINGS)])
        self.register_buffer("orders", orders)
        half = KEPT // 2
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Linear(half, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2 * half)
            )
            for _ in range(COUPLINGS)
        )
        for net in self.nets:
            nn.init.zeros_(net[-1].weight)  # type: ignore[index]
            nn.init.zeros_(net[-1].bias)  # type: ignore[index]

    def fit_whitening(self, poses: Tensor) -> None:
        """Take mean and principal components of poses (N, 17, 2)."""
        flat = poses[:, 1:].flatten(1)
        self.mean.copy_(flat.mean(0))
        _, values, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        deviations = values[:KEPT] / math.sqrt(len(flat) - 1)
        self.whiten.copy_(axes[:KEPT].T / deviations)

    def forward(self, poses: Tensor) -> Tensor:
        """Negative log-likelihood of the whitened pose, divided by its components."""
        values = (poses[..., 1:, :].flatten(-2) - self.mean) @ self.whiten
        stretched = torch.zeros_like(values[..., 0])
        for order, net in zip(self.orders, self.nets, strict=True):
            kept, moved = values[..., order].chunk(2, dim=-1)
            shift, scale = net(kept).chunk(2, dim=-1)
            scale = LIMIT * torch.tanh(scale / LIMIT)
            values = torch.cat((kept, moved * scale.exp() + shift), dim=-1)
            stretched = stretched + scale.sum(-1)
        normal = 0.5 * (values.square() + math.log(2 * math.pi)).sum(-1)
        result: Tensor = (normal - stretched) / KEPT
        return result


def learn(poses: Tensor, held_out: Tensor, steps: int = STEPS) -> Flow:
    """Fit a flow to poses (N, 17, 2) and their mirror images, jittered; keep what finds ``held_out`` likeliest.

    Without jitter it learns its few people by heart: with six of them, people that it has not seen become less likely
    from the first steps on, and at last far less likely than under a plain normal distribution.
    """
    torch.manual_seed(0)
    flow = Flow()
    mirrored = poses[:, list(MIRROR)] * torch.tensor([-1.0, 1.0])
    everything = torch.cat((poses, mirrored))
    flow.fit_whitening(everything)
    spread = nn.functional.pad(torch.linalg.pinv(flow.whiten), (2, 0))  # a component's unit, as a pose; the root stays
    spread = spread.reshape(KEPT, *poses.shape[1:])
    optimiser = torch.optim.Adam(flow.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, least = copy.deepcopy(flow.state_dict()), math.inf
    for step in range(1, steps + 1):
        batch = everything[torch.randint(len(everything), (BATCH,))]
        loss = flow(batch + JITTER * torch.einsum("bk,kjc->bjc", torch.randn(BATCH, KEPT), spread)).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % max(1, steps // LOOKS) == 0:
            with torch.no_grad():
                unseen = float(flow(held_out).mean())
            print(f"step {step}: train {loss.item():.3f}, held out {unseen:.3f}", flush=True)
            if unseen < least:
                best, least = copy.deepcopy(flow.state_dict()), unseen
    flow.load_state_dict(best)
    return flow


def load(path: Path) -> Flow:
    """A flow as :func:`main` wrote it, frozen."""
    flow = Flow()
    flow.load_state_dict(safetensors.torch.load_file(path))
    return flow.requires_grad_(False).eval()


def main() -> None:
    """Learn a flow from a data set's training poses and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poses", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # two that wait for each other on a busy machine are many times slower
    poses = read_poses(options.poses)
    scale = normalisation_scale(poses)
    train, held_out = (
        torch.from_numpy(np.ascontiguousarray(normalised(poses, poses.rows(split), scale)))
        for split in ("train", "validation")
    )
    flow = learn(train, held_out)
    safetensors.torch.save_file(flow.state_dict(), options.output)


if __name__ == "__main__":
    main()
