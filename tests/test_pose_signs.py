"""Signs told pose by pose: how many rightly, how much error is gained, and that a healthy network loses nothing."""

import numpy as np
import pytest
import torch

from tests.stability.bodies import FOUR, PROCEDURAL, mirrored, seen
from tips_dist import geometry, pose_signs
from tips_dist.skeleton import REPRESENTATIONS, Representation

SOLO, PARTS = REPRESENTATIONS["solo"], REPRESENTATIONS["torso_legs"]
POSES, DEPTHS = seen(PROCEDURAL)
GENERATOR = torch.Generator().manual_seed(5)
NOISE = 0.15 * DEPTHS.std() * torch.randn(DEPTHS.shape, generator=GENERATOR) * (torch.arange(17) > 0)


def flips(share: float, representation: Representation) -> torch.Tensor:
    """(V, P) signs of which ``share`` are -1."""
    generator = torch.Generator().manual_seed(6)
    return torch.where(torch.rand((len(DEPTHS), len(representation.lifters)), generator=generator) < share, -1.0, 1.0)


def error(offsets: torch.Tensor) -> float:
    return float((geometry.lift(POSES, offsets) - PROCEDURAL).norm(dim=-1).mean())


@pytest.mark.parametrize("representation", [SOLO, PARTS], ids=lambda one: one.name)
@pytest.mark.parametrize(("instants", "rightly"), [(FOUR, 0.95), (None, 0.85)], ids=["four cameras", "one camera"])
def test_mirrored_poses_are_told(representation: Representation, instants: torch.Tensor, rightly: float) -> None:
    wrong = flips(0.35, representation)
    offsets = (DEPTHS + NOISE) * geometry.joint_signs(wrong, representation)
    told = pose_signs.resolve_pose_signs(POSES, offsets[None], representation, instants=instants)
    assert (told.signs[0] == wrong).float().mean().item() > rightly
    assert error(offsets * told.joints(representation)[0]) < 0.5 * error(offsets)
    right, sure = told.signs[0] == wrong, told.confidence[0] > 0.95
    assert right[sure].float().mean() >= right.float().mean()
    assert (~right).any() or instants is FOUR


@pytest.mark.parametrize("instants", [FOUR, None], ids=["four cameras", "one camera"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_healthy_network_loses_nothing(instants: torch.Tensor, sign: float) -> None:
    """Whatever its own sign: at most one pose in a hundred is turned, so its error stays what it was."""
    offsets = (DEPTHS + NOISE) * sign
    told = pose_signs.resolve_pose_signs(POSES, offsets[None], SOLO, instants=instants)
    assert (told.signs == sign).float().mean().item() >= 0.99
    assert error(offsets * told.joints(SOLO)[0]) <= 1.01 * error(offsets * sign)
    assert told.mirrored.item() < 0.03


def test_a_wrong_prior_is_overruled() -> None:
    """The network's own sign is a prior: poses that all say the opposite turn the network over."""
    told = pose_signs.resolve_pose_signs(POSES, DEPTHS[None], SOLO, signs=torch.tensor([[-1.0]]), instants=FOUR)
    assert (told.signs == 1).float().mean() > 0.99
    assert told.mirrored.item() > 0.95


def test_a_second_view_tells_what_bends_do_not() -> None:
    """With knees and elbows stretched out of one view of each instant, the other views decide it."""
    body = PROCEDURAL.clone()
    for start, middle, end in ((1, 2, 3), (4, 5, 6), (11, 12, 13), (14, 15, 16)):
        body[::4, middle] = (body[::4, start] + body[::4, end]) / 2
    poses, depths = seen(body)
    depths[::8] *= -1  # half of those views are mirrored
    blind = pose_signs.resolve_pose_signs(poses, depths[None], SOLO)
    seeing = pose_signs.resolve_pose_signs(poses, depths[None], SOLO, instants=FOUR)
    assert (blind.signs[0, ::8] == -1).float().mean() < 0.5
    assert (seeing.signs[0, ::8] == -1).float().mean() > 0.95


def test_missing_views_and_joints() -> None:
    wrong = flips(0.3, SOLO)
    instants = FOUR.clone()
    instants[::2, 3] = len(POSES)
    instants[1::3, 2] = len(POSES)
    present = torch.rand(DEPTHS.shape, generator=torch.Generator().manual_seed(7)) > 0.1
    present[:, [0, 7, 8]] = True
    offsets = torch.where(present, DEPTHS + NOISE, 50.0) * wrong
    told = pose_signs.resolve_pose_signs(POSES, offsets[None], SOLO, instants=instants, present=present)
    assert (told.signs[0] == wrong).float().mean() > 0.9
    elsewhere = torch.where(present, DEPTHS + NOISE, -7.0) * wrong
    again = pose_signs.resolve_pose_signs(POSES, elsewhere[None], SOLO, instants=instants, present=present)
    assert torch.equal(told.confidence, again.confidence)  # what is not there says nothing


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_packed_equals_alone_and_a_bad_seed_touches_nobody(name: str) -> None:
    representation = REPRESENTATIONS[name]
    offsets = (DEPTHS + NOISE) * geometry.joint_signs(flips(0.2, representation), representation)
    packed = torch.stack((offsets, torch.full_like(offsets, torch.nan), DEPTHS))
    together = pose_signs.resolve_pose_signs(POSES, packed, representation, instants=FOUR)
    alone = pose_signs.resolve_pose_signs(POSES, offsets[None], representation, instants=FOUR)
    assert torch.equal(together.signs[0], alone.signs[0])
    np.testing.assert_allclose(together.confidence[0], alone.confidence[0], atol=1e-5)
    assert set(together.signs.flatten().tolist()) <= {-1.0, 1.0}


def test_an_instant_of_one_view_changes_nothing() -> None:
    offsets = mirrored(PROCEDURAL, 0.3)[..., 2]
    lonely = torch.full((3, 2), len(POSES))
    lonely[:, 0] = torch.arange(3)
    none = pose_signs.resolve_pose_signs(POSES, offsets[None], SOLO)
    some = pose_signs.resolve_pose_signs(POSES, offsets[None], SOLO, instants=lonely)
    assert torch.equal(none.signs, some.signs)
