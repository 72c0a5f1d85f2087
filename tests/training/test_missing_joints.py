"""Poses with joints that are not there: they count in no loss, and nobody is told real from fake by them."""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_geometry import random_poses
from tests.training.test_execution import equal
from tests.training.test_loop import StopAfter, history
from tests.training.worlds import tiny, world
from tips_dist import geometry, losses
from tips_dist.data.store import Poses
from tips_dist.skeleton import MIRROR, J
from tips_dist.training.loop import Interrupted, train
from tips_dist.training.sampling import Batch, Sampler, stream
from tips_dist.training.state import State
from tips_dist.training.step import adversarial_step

CPU = torch.device("cpu")
EVERYTHING = ("losses.bend=1", "losses.bend_margin=0.2", "losses.bone_prior=1", "losses.cycle_3d=1", "losses.r1=1")


@cache
def holes(count: int, seed: int = 0) -> torch.Tensor:
    """Presence (N, 17): one joint in eight is missing, the hip never."""
    present = torch.rand(count, 17, generator=stream(seed, "holes")) > 0.125
    present[:, 0] = True
    return present


@cache
def holey() -> Poses:
    """The world of all tests as a detector would see it."""
    scores = holes(len(world())).numpy().astype(np.float32)
    poses = geometry.collapse(torch.from_numpy(world().poses), torch.from_numpy(scores > 0)).numpy()
    return dataclasses.replace(world(), poses=poses, scores=scores)


def play(state: State, batch: Batch) -> dict[str, torch.Tensor]:
    representation = state.lifter.representation
    weights = (losses.joint_weights(representation), losses.adversarial_shares(representation))
    return adversarial_step(state.lifter, state.discriminator, batch, state.weights, *weights)


def game(name: str, present: torch.Tensor | None, *overrides: str) -> tuple[Any, Batch]:
    configuration = tiny(name, "training.turns=all", "training.turned_every=2", *EVERYTHING, *overrides)
    poses = 0.1 * torch.randn(100, 17, 2, generator=stream(0, "test")) * torch.tensor([0.0] + [1.0] * 16)[:, None]
    sampler = Sampler(poses, configuration, CPU, present=present)
    return State(configuration, (0, 1), CPU), next(sampler.batches((0, 1), 0))


@pytest.mark.parametrize("name", ["solo", "torso_legs"])
def test_all_joints_there_is_the_same_as_no_mask(name: str) -> None:
    (masked, batch), (plain, same) = game(name, torch.ones(100, 17, dtype=torch.bool)), game(name, None)
    assert batch.present is not None
    assert same.present is None
    expected = play(plain, same)
    for key, value in play(masked, batch).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-6, msg=key)
    for player in ("lifter", "discriminator"):
        pairs = zip(masked.optimisers[player].gradients, plain.optimisers[player].gradients, strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("joint", ["left_wrist", "right_knee", "head", "left_shoulder"])
def test_a_joint_that_is_never_there_has_no_gradient(joint: str) -> None:
    present = torch.ones(100, 17, dtype=torch.bool)
    present[:, [J[joint], MIRROR[J[joint]]]] = False
    state, batch = game("solo", present)
    play(state, batch)
    gradient = state.lifter.heads[0].weight.grad
    assert (gradient[..., J[joint]] == 0).all()
    assert (gradient[..., J["thorax"]] != 0).any()


def test_the_loss_of_a_pose_does_not_depend_on_the_depth_of_what_is_not_there() -> None:
    poses, present = random_poses(0, 2, 8).float(), holes(16).view(2, 8, 17)
    moved = poses.clone()
    moved[~present] += 1.0
    first, second = (geometry.collapse(one, present) for one in (poses, moved))
    for loss in (lambda p: losses.bend(p, 0.1, present), lambda p: losses.bone_prior(p, present)):
        torch.testing.assert_close(loss(first), loss(second))  # type: ignore[no-untyped-call]
    weights = present / 17
    assert not torch.equal(poses, moved)
    torch.testing.assert_close(losses.pose_loss(moved, poses, weights), torch.zeros(2))


def test_a_limb_that_lacks_a_joint_does_not_bend() -> None:
    poses, present = random_poses(1, 1, 32).float(), torch.ones(1, 32, 17, dtype=torch.bool)
    whole = losses.bend(poses, 0.5, present)
    torch.testing.assert_close(whole, losses.bend(poses, 0.5))
    present[..., J["thorax"]] = False
    assert float(losses.bend(poses, 0.5, present)) == 0
    present[:] = True
    present[..., J["left_knee"]] = False
    assert 0 < float(losses.bend(poses, 0.5, present)) < float(whole)


def test_real_and_fake_lack_the_same_joints_at_their_parents_places() -> None:
    _, batch = game("solo", holes(100))
    assert batch.present is not None
    assert batch.shown is not None
    assert (batch.shown <= batch.present).all()
    seen: list[torch.Tensor] = []

    class Watching(torch.nn.Linear):
        def forward(self, poses: torch.Tensor, twice: bool = False) -> torch.Tensor:
            seen.append(poses.detach())
            return super().forward(poses.flatten(-2)).squeeze(-1)

    state: Any = State(tiny("solo"), (0, 1), CPU)
    state.discriminator = Watching(34, 1)
    play(state, batch)
    for half in seen[0].chunk(2, dim=1):
        for child, parent in ((13, 12), (3, 2), (10, 9), (11, 8)):
            together = (half[:, :, child] == half[:, :, parent]).all(-1)
            assert torch.equal(together, ~batch.shown[:, :, child])


def test_flips_exchange_the_sides_of_what_is_there() -> None:
    configuration = tiny("solo", "training.flip_probability=1")
    poses = torch.randn(100, 17, 2, generator=stream(0, "test"))
    batch = next(Sampler(poses, configuration, CPU, present=holes(100)).batches([0], 0))
    plain = next(Sampler(poses, tiny("solo", "training.flip_probability=0"), CPU, present=holes(100)).batches([0], 0))
    assert batch.present is not None
    assert plain.present is not None
    assert torch.equal(batch.present, plain.present[..., list(MIRROR)])


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("way", ["alone", "two_workers", "resumed_on_two_workers"])
def test_missing_joints_give_the_same_numbers_every_way(tmp_path: Path, way: str) -> None:
    configuration = tiny("torso_legs", *EVERYTHING)
    train(configuration, [0, 1], holey(), tmp_path / "packed")
    rows, folder = history(tmp_path / "packed"), tmp_path / "other"
    if way == "alone":
        train(configuration, [1], holey(), folder)
        rows = [row for row in rows if row["seed"] == 1]
    elif way == "two_workers":
        train(configuration, [0, 1], holey(), folder, workers=2)
    else:
        with pytest.raises(Interrupted):
            train(configuration, [0, 1], holey(), folder, should_stop=StopAfter(25))
        train(configuration, [0, 1], holey(), folder, workers=2)
    equal(folder, rows)
