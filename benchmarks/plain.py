"""The authors' formulation in plain PyTorch: what the engine is compared with, and proven equal to.

One seed at a time, one network per part, ``nn.Linear``, a lift for each player, one network call per view, losses
summed joint by joint as the papers write them, ``torch.optim.Adam`` and every torch setting at its default. Nothing is
imported from the engine but the batch that it is given (see arXiv 2205.05980 and the authors' public code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tips_dist.models import Discriminator, Lifter
from tips_dist.training.sampling import Batch

PARTS = {"solo": [list(range(17))], "torso_legs": [list(range(7, 17)), list(range(7))]}
BLOCKS = {"solo": 6, "torso_legs": 3}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.second(torch.relu(self.first(x))))


class Network(nn.Module):
    """Keypoints (B, joints, 2) -> (B, outputs); keypoints are multiplied by 10 to have unit size."""

    def __init__(self, joints: int, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.input = nn.Linear(2 * joints, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, outputs)

    def forward(self, poses: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.input(10 * poses.flatten(1))))
        return out


def lift(poses: Tensor, offsets: Tensor) -> Tensor:
    """(B, 17, 2), (B, 17) -> (B, 17, 3)."""
    depth = torch.clamp(10 + offsets, min=1)
    return torch.stack((poses[:, :, 0] * depth, poses[:, :, 1] * depth, depth - 10), dim=2)


def rotate(poses: Tensor, rotations: Tensor) -> Tensor:
    return torch.bmm(poses, rotations.transpose(1, 2))


def project(poses: Tensor) -> Tensor:
    return poses[:, :, :2] / torch.clamp(10 + poses[:, :, 2:], min=1)


def bend_loss(pose: Tensor, margin: float) -> Tensor:
    """Knees bent backward and elbows bent forward; not the authors', an anatomical prior: (B, 17, 3) -> ()."""
    total = torch.zeros(())
    trunk = (pose[:, 8] - pose[:, 0]) * torch.tensor([1.0, 1.0, 0.0])
    for (left, right), joints, sign, share in (
        ((4, 1), ((4, 5, 6), (1, 2, 3)), 1, 1.0),
        ((11, 14), ((11, 12, 13), (14, 15, 16)), -1, 0.5),
    ):
        forward = torch.linalg.cross(pose[:, left] - pose[:, right], trunk)
        forward = forward / forward.norm(dim=1, keepdim=True).clamp(min=0.01)
        for start, middle, end in joints:
            limb, joint = pose[:, end] - pose[:, start], pose[:, middle] - pose[:, start]
            along = ((joint * limb).sum(1) / (limb * limb).sum(1)).clamp(0, 1)
            out = ((joint - along[:, None] * limb) * forward).sum(1) / limb.norm(dim=1)
            wrong = torch.relu(margin - sign * out)
            total = total + share * torch.where(wrong > 1, 1 + wrong.clamp(min=1).log(), wrong).mean() / 2
    return total


class Plain:
    """One seed of the authors' program."""

    def __init__(
        self, representation: str, lifter_width: int, width: int, blocks: int, rates: tuple[float, float]
    ) -> None:
        self.parts = PARTS[representation]
        self.lifters = [Network(len(part), lifter_width, BLOCKS[representation], len(part)) for part in self.parts]
        self.discriminator = Network(17, width, blocks, 1)
        parameters = [parameter for lifter in self.lifters for parameter in lifter.parameters()]
        self.generator_optimiser = torch.optim.Adam(parameters, lr=rates[0])
        self.discriminator_optimiser = torch.optim.Adam(self.discriminator.parameters(), lr=rates[1])
        self.updates, self.averages = 0, [parameter.detach().clone() for parameter in parameters]

    def offsets(self, poses: Tensor) -> Tensor:
        """Every part's network on its own keypoints; the root has no offset."""
        offsets = torch.zeros(poses.shape[:2])
        for part, lifter in zip(self.parts, self.lifters, strict=True):
            offsets[:, part] = lifter(poses[:, part])
        return offsets * torch.tensor([0.0] + [1.0] * 16)

    def losses(self, batch: Batch, row: int, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Compute every loss of one seed (``row`` of the batch) and leave the gradients in ``.grad``."""
        poses, real, views = batch.poses[row], batch.real[row], batch.views[row]
        real_labels, fake_labels = batch.labels[row].chunk(2)

        # --- Generator: lift, look from elsewhere, ask the discriminator, lift again --------------------------------
        pose = lift(poses, self.offsets(poses))
        seen = rotate(pose, views)
        view = project(seen)
        adversarial = ((self.discriminator(view)[:, 0] - 1) ** 2).mean()
        again = lift(view, self.offsets(view))
        returned = project(rotate(again, views.transpose(1, 2)))
        quarter = []
        for turn in batch.turns[row]:
            turned = rotate(pose[:: len(pose) // len(turn)], turn)
            quarter.append((self.offsets(project(turned)) - turned[:, :, 2]) ** 2)
        totals: dict[str, Tensor] = {name: torch.zeros(()) for name in ("cycle_2d", "turn_90")}
        for part, lifter in zip(self.parts, self.lifters, strict=True):
            cycle = ((10 * returned[:, part] - 10 * poses[:, part]) ** 2).mean()
            turns = torch.stack([error[:, part].mean() for error in quarter]).mean()
            share = len(part) / 17
            loss = weights["adversarial"] * share * adversarial
            loss = loss + weights["cycle_2d"] * cycle + weights["consistency_90"] * turns
            loss.backward(inputs=list(lifter.parameters()), retain_graph=True)
            totals = {"cycle_2d": totals["cycle_2d"] + cycle, "turn_90": totals["turn_90"] + turns}
        bend = bend_loss(pose, weights["bend_margin"]) if weights["bend"] else torch.zeros(())
        if weights["bend"]:
            every = [parameter for lifter in self.lifters for parameter in lifter.parameters()]
            torch.autograd.backward(weights["bend"] * bend, inputs=every)

        # --- Discriminator: a lift of its own --------------------------------------------------------------------
        with torch.no_grad():
            fake = project(rotate(lift(poses, self.offsets(poses)), views))
        self.discriminator_optimiser.zero_grad()
        error_real = ((self.discriminator(real)[:, 0] - real_labels) ** 2).mean()
        error_fake = ((self.discriminator(fake)[:, 0] - fake_labels) ** 2).mean()
        discriminator = (error_real + error_fake) / 2
        discriminator.backward()
        return {
            "generator/adversarial": adversarial.detach(),
            "discriminator/loss": discriminator.detach(),
            "consistency/cycle_2d": totals["cycle_2d"].detach(),
            "consistency/turn_90": totals["turn_90"].detach(),
            "generator/bend": bend.detach(),
        }

    def step(self, batch: Batch, row: int, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Train on one batch; both players move at once."""
        self.generator_optimiser.zero_grad()
        losses = self.losses(batch, row, weights)
        self.generator_optimiser.step()
        self.discriminator_optimiser.step()
        return losses

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Take the weights after a step into their moving average, kept in ``averages`` (arXiv 1806.04498)."""
        decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = [parameter for lifter in self.lifters for parameter in lifter.parameters()]
        pairs = zip(self.averages, weights, strict=True)
        self.averages = [decay * average + (1 - decay) * weight for average, weight in pairs]

    @torch.no_grad()
    def copy_weights(self, lifter: Lifter, discriminator: Discriminator, row: int) -> None:
        """Start from one seed's weights of the engine's packed networks."""
        count = len(self.parts)
        for index, network in enumerate(self.lifters):
            _copy(network.input, lifter.inputs[index], row)
            for mine, theirs in zip(network.blocks, lifter.blocks, strict=True):
                _copy_block(mine, theirs, row * count + index)
            _copy(network.head, lifter.heads[index], row)
        self.updates = 0
        self.averages = [parameter.clone() for network in self.lifters for parameter in network.parameters()]
        _copy(self.discriminator.input, discriminator.input, row)
        for mine, theirs in zip(self.discriminator.blocks, discriminator.blocks, strict=True):
            _copy_block(mine, theirs, row)
        _copy(self.discriminator.head, discriminator.head, row)


def _copy_block(mine: nn.Module, theirs: nn.Module, row: int) -> None:
    layers: Sequence[nn.Module] = theirs.layers  # type: ignore[assignment]
    _copy(mine.first, layers[0], row)  # type: ignore[arg-type]
    _copy(mine.second, layers[2], row)  # type: ignore[arg-type]


def _copy(mine: nn.Linear, theirs: nn.Module, row: int) -> None:
    mine.weight.copy_(theirs.weight[row].T)  # type: ignore[index]
    mine.bias.copy_(theirs.bias[row, 0])  # type: ignore[index]
