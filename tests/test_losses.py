import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.test_geometry import people, random_poses
from tips_dist import geometry, losses
from tips_dist.skeleton import BONES, REPRESENTATIONS, SYMMETRIC_BONES, J


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_joint_weights_make_every_part_a_mean_of_its_own(name: str) -> None:
    weights = losses.joint_weights(REPRESENTATIONS[name])
    for part in REPRESENTATIONS[name].lifters:
        assert weights[list(part.joints)].sum().item() == pytest.approx(1.0)


def test_adversarial_shares_are_the_keypoints_of_each_part() -> None:
    shares = losses.adversarial_shares(REPRESENTATIONS["torso_legs"])
    assert shares[3].item() == pytest.approx(7 / 17)
    assert shares[12].item() == pytest.approx(10 / 17)
    assert (losses.adversarial_shares(REPRESENTATIONS["torso_legs_shared"]) == 1).all()


def test_balanced_least_squares_game_sits_at_a_quarter() -> None:
    scores = torch.full((3, 8), 0.5)
    labels = torch.cat((torch.ones(3, 4), torch.zeros(3, 4)), dim=1)
    assert losses.discriminator_loss(scores, labels, "least_squares").tolist() == [0.25] * 3


def test_cross_entropy_matches_its_formula() -> None:
    scores, labels = torch.tensor([[0.3, -1.2]]), torch.tensor([[0.8, 0.0]])
    p = scores.sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    assert losses.discriminator_loss(scores, labels, "cross_entropy").item() == pytest.approx(expected.item())


def test_perfect_lifts_have_no_cycle_or_turn_loss() -> None:
    poses = people().double()
    weights = losses.joint_weights(REPRESENTATIONS["solo"]).double()
    matrix = geometry.rotation(torch.full((64,), 1.0).double(), torch.full((64,), 0.1).double())
    turned = geometry.rotate(poses, matrix)
    again = geometry.lift(geometry.project(turned), turned[..., 2])
    returned = geometry.project(geometry.rotate(again, matrix.transpose(-1, -2)))
    assert losses.cycle_2d(returned[None], geometry.project(poses)[None], weights).item() < 1e-20
    assert losses.pose_loss(again[None], turned[None], weights).item() < 1e-20
    assert losses.turn_consistency(turned[None, ..., 2], turned[None, ..., 2], weights).item() == 0


def cycle(offsets: Callable[[torch.Tensor], torch.Tensor], azimuth: float) -> float:
    """The 2D cycle loss over an azimuth of a lifter that sees true 3D poses (V, 17, 3) and answers with offsets."""
    true = people()
    turn = geometry.rotation(torch.full((len(true),), azimuth), torch.zeros(len(true)))
    view = geometry.project(true)
    lifted = geometry.lift(view, offsets(true))
    seen = geometry.project(geometry.rotate(lifted, turn))
    again = geometry.lift(seen, offsets(geometry.rotate(true, turn)))
    returned = geometry.project(geometry.rotate(again, turn.transpose(-1, -2)))
    return losses.cycle_2d(returned[None], view[None], losses.joint_weights(REPRESENTATIONS["solo"])).item()


@pytest.mark.parametrize("azimuth", [0.5, math.pi / 2, 3.0, math.pi])
def test_flat_poses_cheat_the_2d_cycle(azimuth: float) -> None:
    """The pitfall that the depth-spread signal is there for: no depth at all is far cheaper than a wrong one."""

    def at_random(poses: torch.Tensor) -> torch.Tensor:
        return 0.3 * torch.randn(poses.shape[:-1], generator=torch.Generator().manual_seed(int(1e3 * poses.sum())))

    assert cycle(lambda poses: poses[..., 2], azimuth) < 1e-9
    flat = cycle(lambda poses: 0 * poses[..., 2], azimuth)
    assert flat < 0.25 * cycle(at_random, azimuth)
    if azimuth == math.pi:  # a flat pose seen from behind is its own mirror image, so the cheat is perfect
        assert flat < 1e-9


def test_bone_ratios_ignore_size_and_rotation() -> None:
    poses = random_poses(0, 7)
    matrix = geometry.rotation(torch.full((7,), 0.7).double(), torch.full((7,), 0.2).double())
    assert torch.allclose(losses.bone_ratios(3 * geometry.rotate(poses, matrix)), losses.bone_ratios(poses))


def test_symmetric_people_have_no_asymmetry() -> None:
    assert losses.bone_asymmetry(people()).max().item() < 1e-5
    crooked = people().clone()
    crooked[:, 3] *= 1.2
    assert losses.bone_asymmetry(crooked).min().item() > 0.01


def test_the_skeleton_has_sixteen_bones_and_six_symmetric_pairs() -> None:
    assert len(BONES) == 16
    assert len(SYMMETRIC_BONES) == 6


def test_loss_gradients() -> None:
    torch.manual_seed(0)
    poses = torch.randn(2, 3, 17, 2, dtype=torch.float64) * 0.1
    weights = losses.joint_weights(REPRESENTATIONS["torso_legs"]).double()
    matrix = geometry.rotation(torch.rand(2, 3).double(), torch.rand(2, 3).double())

    def total(offsets: torch.Tensor) -> torch.Tensor:
        pose = geometry.lift(poses, offsets)
        view = geometry.project(geometry.rotate(pose, matrix))
        return losses.cycle_2d(view, poses, weights) + losses.bone_prior(pose)

    assert torch.autograd.gradcheck(total, torch.randn(2, 3, 17, dtype=torch.float64, requires_grad=True))


def test_bend_is_nothing_for_people_and_something_for_their_mirror_images() -> None:
    poses = people()[None]
    mirrored = poses * torch.tensor([1.0, 1.0, -1.0])
    right, wrong = float(losses.bend(poses)), float(losses.bend(mirrored))
    assert wrong > 10 * right
    assert float(losses.bend(poses, 0.2)) > right


@pytest.mark.parametrize("case", ["one place", "folded", "no trunk", "tiny", "no hips"])
def test_bend_has_bounded_gradients_on_degenerate_limbs(case: str) -> None:
    poses = 0.5 * random_poses(1, 2, 8)
    match case:
        case "one place":
            poses[:] = 1.0
        case "folded":
            poses[..., J["left_ankle"], :] = poses[..., J["left_hip"], :]
            poses[..., J["right_wrist"], :] = poses[..., J["right_shoulder"], :]
        case "no trunk":
            poses[..., J["thorax"], :] = poses[..., J["hip"], :]
        case "tiny":
            poses *= 1e-9
        case _:
            poses[..., J["left_hip"], :] = poses[..., J["right_hip"], :]
    poses.requires_grad_()
    (gradient,) = torch.autograd.grad(losses.bend(poses, 0.1).sum(), poses)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 100


def test_the_bone_prior_is_the_mean_square_of_what_ratios_are_off() -> None:
    poses = random_poses(5, 2, 3)
    target = np.array(losses.HUMAN_RATIOS) / np.mean(losses.HUMAN_RATIOS)
    expected = []
    for seed in poses.numpy():
        lengths = np.array([[np.linalg.norm(pose[c] - pose[p]) for p, c in BONES] for pose in seed])
        expected.append(np.mean((lengths / lengths.mean(1, keepdims=True) - target) ** 2))
    assert losses.bone_prior(poses).tolist() == pytest.approx(expected)
    everywhere = torch.ones(2, 3, 17, dtype=torch.bool)
    assert losses.bone_prior(poses, everywhere).tolist() == pytest.approx(expected)


def test_the_bone_prior_of_the_bones_that_are_there() -> None:
    """Without the left wrist its bone counts for nothing, and the mean is over the others alone."""
    poses, present = random_poses(6, 1, 1), torch.ones(1, 1, 17, dtype=torch.bool)
    present[..., J["left_wrist"]] = False
    kept = [index for index, (_, child) in enumerate(BONES) if child != J["left_wrist"]]
    lengths = losses.bone_lengths(poses)[0, 0].numpy()[kept]
    target = np.array(losses.HUMAN_RATIOS)[kept]
    off = lengths / lengths.mean() - target / target.mean()
    assert losses.bone_prior(poses, present).item() == pytest.approx(np.sum(off**2) / 16)
    moved = poses.clone()
    moved[..., J["left_wrist"], :] = 9.0
    assert losses.bone_prior(moved, present).item() == pytest.approx(losses.bone_prior(poses, present).item())
    assert losses.bones_present(present)[0, 0].tolist() == [index in kept for index in range(16)]


def test_bone_asymmetry_is_the_difference_of_the_sides_over_their_sum() -> None:
    poses = random_poses(7, 4)
    lengths = losses.bone_lengths(poses).numpy()
    pairs = [(lengths[:, a], lengths[:, b]) for a, b in SYMMETRIC_BONES]
    expected = np.mean([np.abs(a - b) / (a + b) for a, b in pairs], axis=0)
    assert losses.bone_asymmetry(poses).tolist() == pytest.approx(expected.tolist())


def test_the_pose_loss_is_a_weighed_mean_over_joints_and_a_mean_over_poses() -> None:
    first, second = random_poses(8, 2, 3), random_poses(9, 2, 3)
    weights = torch.arange(17.0, dtype=torch.float64) / 17
    errors = ((first - second) ** 2).mean(-1).numpy()  # (2, 3, 17)
    expected = [np.mean([np.dot(pose, weights.numpy()) for pose in seed]) for seed in errors]
    assert losses.pose_loss(first, second, weights).tolist() == pytest.approx(expected)
    assert losses.pose_loss(first, second, weights.expand(2, 3, 17)).tolist() == pytest.approx(expected)


def bend_by_hand(poses: torch.Tensor, margin: float, there: np.ndarray) -> list[float]:
    """Of each seed: what is wrong of each limb, slower beyond 1, a mean over poses; knees and half the elbows."""
    bends = geometry.limb_bend(poses, losses.LEAST_FORWARD).numpy()  # (S, B, 4)
    wrong = np.maximum(margin - bends, 0) * there
    wrong = np.where(wrong > 1, 1 + np.log(np.maximum(wrong, 1)), wrong).mean(1)
    return list(wrong[:, :2].mean(-1) + 0.5 * wrong[:, 2:].mean(-1))


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.5])
def test_bend_by_its_definition(margin: float) -> None:
    poses = random_poses(12, 2, 6)
    assert losses.bend(poses, margin).tolist() == pytest.approx(bend_by_hand(poses, margin, np.ones((2, 6, 4))))
    assert losses.bend(poses).tolist() == pytest.approx(bend_by_hand(poses, 0.0, np.ones((2, 6, 4))))


@pytest.mark.parametrize(
    ("absent", "limbs"),
    [
        ("left_knee", [0]),
        ("right_ankle", [1]),
        ("left_hip", [0, 1]),
        ("right_hip", [0, 1]),
        ("thorax", [0, 1, 2, 3]),
        ("left_elbow", [2]),
        ("right_wrist", [3]),
        ("right_shoulder", [2, 3]),
        ("neck", []),
    ],
)
def test_a_limb_that_lacks_a_joint_bends_right(absent: str, limbs: list[int]) -> None:
    poses, present, there = random_poses(13, 2, 6), torch.ones(2, 6, 17, dtype=torch.bool), np.ones((2, 6, 4))
    present[1, :4, J[absent]] = False
    there[1, :4, limbs] = 0
    assert losses.bend(poses, 0.3, present).tolist() == pytest.approx(bend_by_hand(poses, 0.3, there))


def test_adversarial_and_turn_losses_by_their_definitions() -> None:
    scores = torch.tensor([[0.25, 1.5], [-1.0, 0.5]], dtype=torch.float64)
    squares, label = (scores.numpy() - 0.9) ** 2, torch.full((2, 1), 0.9, dtype=torch.float64)
    assert losses.adversarial_loss(scores, label, "least_squares").tolist() == pytest.approx(squares.mean(1).tolist())
    p = 1 / (1 + np.exp(-scores.numpy()))
    entropy = -(0.9 * np.log(p) + 0.1 * np.log(1 - p)).mean(1)
    assert losses.adversarial_loss(scores, label, "cross_entropy").tolist() == pytest.approx(entropy.tolist())
    elementwise = losses.label_loss(scores, torch.zeros_like(scores), "least_squares")
    assert elementwise.tolist() == (scores**2).tolist()
    first, second = random_poses(14, 2, 3)[..., 2], random_poses(15, 2, 3)[..., 2]
    weights = torch.arange(17.0, dtype=torch.float64)
    expected = (((first - second) ** 2).numpy() * weights.numpy()).sum(-1).mean(-1)
    assert losses.turn_consistency(first, second, weights).tolist() == pytest.approx(expected.tolist())


def test_the_2d_cycle_is_in_root_to_head_distances() -> None:
    first, second = random_poses(16, 2, 3)[..., :2], random_poses(17, 2, 3)[..., :2]
    weights = losses.joint_weights(REPRESENTATIONS["solo"]).double()
    assert losses.cycle_2d(first, second, weights).tolist() == pytest.approx(
        (100 * losses.pose_loss(first, second, weights)).tolist()
    )
    assert weights.tolist() == pytest.approx([1 / 17] * 17)


def test_adversarial_shares_of_every_joint() -> None:
    for name, representation in REPRESENTATIONS.items():
        shares = losses.adversarial_shares(representation)
        if len(representation.lifters) == 1:
            assert shares.tolist() == [1.0] * 17
            continue
        last = {joint: len(part.joints) / 17 for part in representation.lifters for joint in part.joints}
        assert shares.tolist() == pytest.approx([last[joint] for joint in range(17)]), name
