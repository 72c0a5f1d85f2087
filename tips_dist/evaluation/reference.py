"""The supervised reference: what a lifter of the same size reaches when it is shown the truth.

It is trained here, within the wall around truth, and only measured: no decision can reach it. It is the yardstick that
the papers compare themselves with (arXiv 2205.05980, table 1), not a baseline that anyone could have without 3D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.evaluation import metrics
from tips_dist.evaluation.measuring import Bench
from tips_dist.evaluation.truth import Truth
from tips_dist.geometry import CAMERA_DISTANCE
from tips_dist.models import Lifter, initialise
from tips_dist.skeleton import MIRROR, REPRESENTATIONS
from tips_dist.training.sampling import stream

_CHUNK_POSES = 4096


@dataclass(frozen=True)
class SupervisedRecipe:
    """How the reference learns; the rate falls along a cosine to a hundredth."""

    width: int = 128
    steps: int = 4000
    batch_size: int = 128
    lr: float = 1e-3


@dataclass(frozen=True)
class ReferenceErrors:
    """Mean errors of the reference on one split, mm: one for each seed, and each action's N-MPJPE likewise."""

    n_mpjpe: list[float]
    pa_mpjpe: list[float]
    action: dict[str, list[float]]


@dataclass(frozen=True)
class SupervisedReference:
    """What the reference reached; None for a split without rows."""

    recipe: SupervisedRecipe
    seeds: list[int]
    validation: ReferenceErrors | None
    test: ReferenceErrors | None


def supervised(poses: Poses, truth: Truth, recipe: SupervisedRecipe, seeds: Sequence[int]) -> SupervisedReference:
    """Train one whole-pose lifter per seed on the true depths of the train split and measure it on the other two.

    Least squares on the depth offsets, with poses mirrored at random; the last weights are kept, as there is nothing to
    choose. No depth sign has to be resolved.
    """
    scale = normalisation_scale(poses)
    rows = poses.rows("train")
    inputs = torch.from_numpy(normalised(poses, rows, scale))
    lifter = _train(inputs, torch.from_numpy(true_offsets(inputs.numpy(), truth.joints[rows])), recipe, seeds)
    benches = {split: Bench.of(poses, truth.joints, poses.rows(split), scale) for split in ("validation", "test")}
    found = {split: _measure(lifter, bench) if len(bench) else None for split, bench in benches.items()}
    return SupervisedReference(recipe, list(seeds), found["validation"], found["test"])


def true_offsets(inputs: npt.NDArray[np.float32], joints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Depth offsets (N, 17) that lift normalised poses (N, 17, 2) onto truth (N, 17, 3) mm, up to each pose's scale.

    One unit of a pose is as many mm as make its sideways extent fit best (least squares): monocular lifting has no
    absolute scale, and a person further away is smaller.
    """
    centred = metrics.root_centred(joints)
    flat = CAMERA_DISTANCE * inputs.astype(np.float64)
    unit = (flat * centred[..., :2]).sum((1, 2)) / np.maximum((flat**2).sum((1, 2)), 1e-12)
    return np.asarray(centred[..., 2] / np.maximum(unit, 1e-6)[:, None], dtype=np.float32)


def _train(inputs: torch.Tensor, targets: torch.Tensor, recipe: SupervisedRecipe, seeds: Sequence[int]) -> Lifter:
    generators = [stream(seed, "supervised") for seed in seeds]
    lifter = Lifter(REPRESENTATIONS["solo"], recipe.width, len(seeds))
    initialise(lifter, generators)
    optimiser = torch.optim.Adam(lifter.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))
    )
    mirrored = inputs[:, list(MIRROR)] * torch.tensor([-1.0, 1.0])
    inputs, targets = torch.cat((inputs, mirrored)), torch.cat((targets, targets[:, list(MIRROR)]))
    for _ in range(recipe.steps):
        drawn = [torch.randint(len(inputs), (recipe.batch_size,), generator=generator) for generator in generators]
        rows = torch.stack(drawn)  # (S, B)
        loss = (lifter(inputs[rows]) - targets[rows]).square().mean((1, 2)).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return lifter.eval()


def _measure(lifter: Lifter, bench: Bench) -> ReferenceErrors:
    with torch.inference_mode():
        chunks = [
            lifter(chunk[None].float().expand(lifter.seeds, -1, -1, -1)).double()
            for chunk in torch.split(bench.inputs, _CHUNK_POSES)
        ]
    lifted = bench.lift(torch.cat(chunks, dim=1))  # (S, n, 17, 3)
    names = [metrics.action(name) for name in bench.poses.sequence_names]
    errors = [metrics.n_mpjpe(one, bench.truth) for one in lifted]
    by_action = [metrics.per_group(error, bench.poses.sequence[bench.rows], names) for error in errors]
    return ReferenceErrors(
        n_mpjpe=[float(error.mean()) for error in errors],
        pa_mpjpe=[float(metrics.pa_mpjpe(one, bench.truth).mean()) for one in lifted],
        action={name: [one[name] for one in by_action] for name in by_action[0]},
    )
