"""Agreement between views and in time, and the share of mirrored poses, on bodies whose truth is known."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.stability.bodies import FOUR, PROCEDURAL, clips, mirrored, seen, steady
from tips_dist import geometry
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import agreement

NAMES = ("agreement/views", "agreement/views_torso", "agreement/views_legs")


def views(lifted: torch.Tensor, instants: torch.Tensor = FOUR, present: torch.Tensor | None = None) -> dict[str, Any]:
    found = agreement.overlaps(lifted, instants, present)
    return {name: value[0].item() for name, value in agreement.views(found, instants, lifted.shape[1], present).items()}


def test_one_rigid_body_seen_by_four_cameras_agrees_perfectly() -> None:
    assert all(value < 0.01 for value in views(PROCEDURAL[None]).values())


@pytest.mark.parametrize("name", NAMES)
def test_disagreement_grows_with_noise(name: str) -> None:
    noise = 0.1 * torch.randn(PROCEDURAL.shape, generator=torch.Generator().manual_seed(0))
    noise[:, 0] = 0
    values = [views((PROCEDURAL + share * noise)[None])[name] for share in (0.3, 1, 3)]
    assert 0.02 < values[0] < values[1] < values[2]


@pytest.mark.parametrize("name", NAMES)
def test_flat_poses_gain_nothing(name: str) -> None:
    """They score as lifts that have nothing in common, while their plain residual is a fraction of those'."""
    poses, depths = seen(PROCEDURAL)
    noise = 0.05 * torch.randn(depths.shape, generator=torch.Generator().manual_seed(0))
    flat = geometry.lift(poses, torch.zeros_like(depths))[None]
    random = geometry.lift(poses, depths[torch.randperm(len(depths), generator=torch.Generator().manual_seed(0))])[None]
    halfway = geometry.lift(poses, depths + noise * (torch.arange(17) > 0))[None]
    assert views(halfway)[name] < 0.75 < 0.99 < min(views(flat)[name], views(random)[name])


def test_a_missing_view_is_left_out() -> None:
    body = PROCEDURAL.clone()
    body[7] = 100 * torch.randn((17, 3), generator=torch.Generator().manual_seed(0))  # view 3 of instant 1
    without = FOUR.clone()
    without[1, 3] = len(body)
    assert views(body[None])["agreement/views"] > 0.1
    assert views(body[None], without)["agreement/views"] < 0.01


def test_only_joints_that_both_views_have_are_compared() -> None:
    body, present = PROCEDURAL.clone(), torch.ones(len(PROCEDURAL), 17, dtype=torch.bool)
    body[::4, 13], present[::4, 13] = 5.0, False
    body[1::4, 3], present[1::4, 3] = -5.0, False
    assert all(value < 0.01 for value in views(body[None], present=present).values())
    assert views(body[None])["agreement/views"] > 0.1


def test_packed_equals_alone_and_a_bad_seed_touches_nobody() -> None:
    noisy = PROCEDURAL + 0.05 * torch.randn(PROCEDURAL.shape, generator=torch.Generator().manual_seed(1))
    packed = torch.stack((noisy, torch.full_like(noisy, torch.nan), PROCEDURAL))
    found = agreement.overlaps(packed, FOUR)
    together = agreement.views(found, FOUR, len(noisy)) | agreement.mixed(packed, FOUR, found)
    own = agreement.overlaps(noisy[None], FOUR)
    alone = agreement.views(own, FOUR, len(noisy)) | agreement.mixed(noisy[None], FOUR, own)
    for name, value in alone.items():
        assert together[name][0].item() == pytest.approx(value.item(), abs=1e-6), name
        assert together[name][1].isnan(), name


@pytest.mark.parametrize("views_known", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_the_share_of_mirrored_poses_is_told(share: float, views_known: bool) -> None:
    """Within 7 of 100 for lifts that are 15 % of a body's depth off, with four cameras and with one."""
    lifted = mirrored(PROCEDURAL, share)[None]
    instants = FOUR if views_known else None
    found = agreement.overlaps(lifted, FOUR) if views_known else None
    for name, value in agreement.mixed(lifted, instants, found).items():
        assert value.item() == pytest.approx(share, abs=0.07), name


def test_a_rigid_body_in_motion_does_not_stretch_and_a_flat_one_does() -> None:
    poses, depths = clips()
    rigid = agreement.time(poses, depths[None])
    noisy = agreement.time(
        poses, (depths + 0.05 * torch.randn(depths.shape, generator=torch.Generator().manual_seed(0)))[None]
    )
    flat = agreement.time(poses, torch.zeros_like(depths)[None])
    assert rigid.item() < 0.02 < 0.2 < min(noisy.item(), flat.item())


def test_joints_that_are_not_there_do_not_stretch() -> None:
    poses, depths = clips()
    present = torch.ones(depths.shape, dtype=torch.bool)
    present[..., 16] = False
    depths[:, 0, 16] = 3.0
    assert agreement.time(poses, depths[None], present).item() < 0.02 < agreement.time(poses, depths[None]).item()


def test_clips_are_pairs_of_near_frames_of_one_camera() -> None:
    poses = steady(stretches=3, frames=16)
    rows = agreement.clip_rows(poses, 10)
    assert rows.shape == (10, 2)
    assert (poses.frame[rows[:, 1]] - poses.frame[rows[:, 0]] == 6).all()  # a tenth of a second at 60 Hz
    for column in (poses.stretch, poses.camera):
        assert (column[rows[:, 0]] == column[rows[:, 1]]).all()
    assert (poses.stretch[rows] >= 0).all()
    short = agreement.clip_rows(steady(stretches=2, frames=3))
    assert (np.diff(steady(stretches=2, frames=3).frame[short]) == 2).all()
    assert agreement.clip_rows(steady(stretches=0, frames=3)).shape == (0, 2)


def test_the_table_of_instants_marks_missing_views() -> None:
    rows = np.array([3, 5, 8, 9, 20])
    table = agreement.table([np.array([3, 9, 20]), np.array([5, 8])], rows)
    assert table is not None
    assert table.tolist() == [[0, 3, 4], [1, 2, 5]]
    assert agreement.table([], rows) is None


def test_parts_of_the_body_are_told_apart() -> None:
    lifted = PROCEDURAL.clone()
    lifted[:60, :7, 2] *= -1  # the legs of a quarter of the poses
    found = agreement.overlaps(lifted[None], FOUR)
    told = agreement.mixed(lifted[None], FOUR, found)
    assert told["mirror/mixed_legs"].item() == pytest.approx(60 / len(lifted), abs=0.07)
    assert told["mirror/mixed_torso"].item() < 0.07
    assert REPRESENTATIONS["torso_legs"].lifters[0].name == "torso"
