"""Batches and random views, drawn ahead for a stretch of steps; a pure function of (seed, step).

Every number comes from a generator seeded with (seed, purpose, stretch). There is no hidden stream: a resumed, packed
or sharded run draws the same numbers as an uninterrupted one alone, and a checkpoint needs to save only the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tips_dist import counters
from tips_dist.config import Configuration
from tips_dist.geometry import CAMERA_DISTANCE, collapse, rotation
from tips_dist.skeleton import MIRROR, ROOT
from tips_dist.training.values import Values

REAL_LABEL = "losses.real_label"


@dataclass(frozen=True)
class Batch:
    """What one adversarial step needs; S seeds, B poses each, T turns per pose (1 sampled or all 3)."""

    poses: Tensor  # (S, B, 17, 2) to be lifted
    real: Tensor  # (S, B, 17, 2) shown to the discriminator as they are
    views: Tensor  # (S, B, 3, 3) random new views
    turns: Tensor  # (S, T, B / n, 3, 3) quarter and half turns of every n-th pose
    labels: Tensor  # (S, 2B) the discriminator's labels: real half, then fake half, some swapped
    noise: Tensor | None = None  # (S, 2B, 17, 2) added to what the discriminator sees
    present: Tensor | None = None  # (S, B, 17) which joints of ``poses`` are there; None: all of all poses
    shown: Tensor | None = None  # (S, B, 17) which are there in both, ``poses`` and ``real``


def stream(seed: int, purpose: str, position: int = 0) -> torch.Generator:
    """The generator of one random stream, on the CPU so that every device sees the same numbers."""
    key = hashlib.sha256(f"{seed}/{purpose}/{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


class Sampler:
    """Draws batches for packed seeds from poses that stay on the device."""

    def __init__(
        self,
        poses: Tensor,
        configuration: Configuration,
        device: torch.device,
        rank: int = 0,
        workers: int = 1,
        present: Tensor | None = None,
    ) -> None:
        """Keep ``poses`` (N, 17, 2) and their mirror images on ``device``; worker ``rank`` takes a share.

        ``present`` (N, 17) says which joints are there; those that are not are put where their parents are.
        """
        poses = collapse(poses, present)
        mirrored = poses[:, list(MIRROR)] * torch.tensor([-1.0, 1.0])
        self.poses = torch.cat((poses, mirrored)).to(device)
        self.present = None if present is None else torch.cat((present, present[:, list(MIRROR)])).to(device)
        self.count = len(poses)
        self.configuration = configuration
        self.device = device
        share = configuration.training.batch_size // workers
        self.share = slice(rank * share, (rank + 1) * share)

    def batches(self, seeds: Sequence[int], start: int, values: Values | None = None) -> Iterator[Batch]:
        """Yield the batches of step ``start`` and those after it, up to the next evaluation step.

        Every worker draws the whole batch and keeps its share, so the numbers do not depend on their number. ``values``
        are those of the seeds' rows, where they are not all of the sampler's own configuration.
        """
        values = values or Values((self.configuration,) * len(seeds))
        training = self.configuration.training
        size, steps = training.batch_size, training.evaluate_every
        stretch, offset = divmod(start, steps)
        flips = values.of("training.flip_probability")
        drawn = [self._draw(stream(s, "batches", stretch), steps, size, p) for s, p in zip(seeds, flips, strict=True)]
        indices = torch.stack([index for index, _ in drawn], dim=1).to(self.device)  # (n, S, 2, B)
        uniform = torch.stack([numbers for _, numbers in drawn], dim=1).to(self.device)  # (n, S, 5, B)
        azimuth, elevation, turn, swap_real, swap_fake = uniform.unbind(2)
        if training.rotation == "batch":
            azimuth, elevation = (angle[..., :1].expand_as(angle) for angle in (azimuth, elevation))
        widest, highest, swapped, label = (
            values.on(self.device, key)[:, None]
            for key in ("training.azimuth_degrees", "training.elevation_degrees", "losses.label_swap", REAL_LABEL)
        )
        azimuth = (2 * azimuth - 1) * torch.pi / 180 * widest
        elevation = (2 * elevation - 1) * torch.pi / 180 * highest
        none = torch.zeros_like(label)
        real_labels = torch.where(swap_real < swapped, none, label)
        fake_labels = torch.where(swap_fake < swapped, label, none)
        if training.turns == "all":
            quarters = torch.arange(1.0, 4.0, device=self.device)[:, None].expand(*turn.shape[:2], 3, size)
        else:
            quarters = (1 + (3 * turn).floor().clamp_max(2)).unsqueeze(2)  # (n, S, 1, B)
        indices, azimuth, elevation, quarters, *labels_of = (
            drawn[..., self.share] for drawn in (indices, azimuth, elevation, quarters, real_labels, fake_labels)
        )
        labels = torch.cat(labels_of, dim=-1)
        quarters = quarters[..., :: training.turned_every]
        noisy = training.instance_noise > 0
        keys = counters.keys(seeds, "noise", self.device) if noisy and training.random == "counted" else None
        deviations = self._deviations(values, start)
        for step in range(offset, steps):
            lifted, real = indices[step].unbind(1)
            present = shown = None
            if self.present is not None:
                present = self.present[lifted]
                shown = present & self.present[real]
            yield Batch(
                poses=self.poses[lifted],
                real=collapse(self.poses[real], shown),
                views=rotation(azimuth[step], elevation[step]),
                turns=rotation(quarters[step] * torch.pi / 2, torch.zeros_like(quarters[step])),
                labels=labels[step],
                noise=self._noise(seeds, keys, start - offset + step, deviations[step - offset]) if noisy else None,
                present=present,
                shown=shown,
            )

    def _deviations(self, values: Values, start: int) -> Tensor:
        """Of instance noise, which falls linearly to 0 at the last step: one of each row and step, (n, S, 1, 1, 1)."""
        training = self.configuration.training
        steps = range(start, start - start % training.evaluate_every + training.evaluate_every)
        noise = values.of("training.instance_noise")
        shares = [[one * (1 - step / training.steps) / CAMERA_DISTANCE for one in noise] for step in steps]
        return torch.tensor(shares, device=self.device)[..., None, None, None]

    def _noise(self, seeds: Sequence[int], keys: Tensor | None, step: int, deviation: Tensor) -> Tensor:
        """Instance noise: (S, 2B, 17, 2) of ``deviation`` (S, 1, 1, 1).

        It makes real and fake overlap, so that no discriminator is perfect while the lifter is far off (Sønderby et al.
        2017, arXiv 1610.04490; Arjovsky and Bottou 2017, arXiv 1701.04862). The root stays in its place. With ``keys``
        it is counted on the device, else drawn on the CPU.
        """
        training = self.configuration.training
        joints, share = len(MIRROR), self.share.stop - self.share.start
        if keys is not None:
            strides = training.batch_size * joints, joints, 1  # a word for each joint
            words = counters.words(counters.at(keys, step), self.share.start * joints, (2, share, joints), strides)
            drawn = counters.normal(words).view(len(seeds), 2 * share, joints, 2)
        else:
            shape = (2, training.batch_size, joints, 2)
            each = torch.stack([torch.randn(shape, generator=stream(seed, "noise", step)) for seed in seeds])
            drawn = each[:, :, self.share].flatten(1, 2).to(self.device)
        drawn[..., ROOT, :] = 0
        return deviation * drawn

    def _draw(self, generator: torch.Generator, steps: int, size: int, flip: float) -> tuple[Tensor, Tensor]:
        indices = torch.randint(self.count, (steps, 2, size), generator=generator)
        flips = torch.rand((steps, 2, size), generator=generator) < flip
        return indices + self.count * flips, torch.rand((steps, 5, size), generator=generator)
