import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tips_dist import geometry
from tips_dist.skeleton import REPRESENTATIONS, J

angles = st.floats(-math.pi, math.pi)


def random_poses(seed: int, *axes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randn(*axes, 17, 3, generator=generator, dtype=torch.float64)
    return poses - poses[..., :1, :]


@given(angles, angles)
def test_rotations_are_orthogonal_and_proper(azimuth: float, elevation: float) -> None:
    matrix = geometry.rotation(torch.tensor(azimuth).double(), torch.tensor(elevation).double())
    assert torch.allclose(matrix @ matrix.T, torch.eye(3).double(), atol=1e-12)
    assert torch.linalg.det(matrix).item() == pytest.approx(1.0)


@given(angles, angles, st.integers(0, 1000))
def test_rotating_back_returns_the_pose_and_keeps_bone_lengths(azimuth: float, elevation: float, seed: int) -> None:
    poses = random_poses(seed, 2, 3)
    matrix = geometry.rotation(torch.full((2, 3), azimuth).double(), torch.full((2, 3), elevation).double())
    turned = geometry.rotate(poses, matrix)
    assert torch.allclose(geometry.rotate(turned, matrix.transpose(-1, -2)), poses, atol=1e-12)
    assert torch.allclose(turned.norm(dim=-1), poses.norm(dim=-1), atol=1e-12)


@given(st.integers(0, 1000))
def test_projecting_a_lift_returns_the_input(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randn(4, 17, 2, generator=generator, dtype=torch.float64) * 0.1
    offsets = torch.randn(4, 17, generator=generator, dtype=torch.float64)
    assert torch.allclose(geometry.project(geometry.lift(poses, offsets)), poses, atol=1e-12)


def test_lift_keeps_depth_in_front_of_the_camera() -> None:
    lifted = geometry.lift(torch.ones(1, 17, 2), torch.full((1, 17), -50.0))
    assert (lifted[..., 2] == 1 - geometry.CAMERA_DISTANCE).all()


def test_a_quarter_turn_turns_x_into_depth() -> None:
    poses = random_poses(0, 5)
    quarter = geometry.rotation(torch.tensor(math.pi / 2).double(), torch.zeros(()).double())
    turned = geometry.rotate(poses, quarter)
    assert torch.allclose(turned[..., 2], -poses[..., 0], atol=1e-12)
    assert torch.allclose(turned[..., 1], poses[..., 1], atol=1e-12)


def test_gradients() -> None:
    poses, offsets = random_poses(1, 2)[..., :2] * 0.1, torch.randn(2, 17, dtype=torch.float64)
    matrix = geometry.rotation(torch.tensor([0.3, -2.0]).double(), torch.tensor([0.1, 0.2]).double())

    def view(offsets: torch.Tensor) -> torch.Tensor:
        return geometry.project(geometry.rotate(geometry.lift(poses, offsets), matrix))

    assert torch.autograd.gradcheck(view, offsets.requires_grad_())


# --- depth sign --------------------------------------------------------------------------------------------------


def standing_person() -> torch.Tensor:
    """Facing the camera, knees and elbows a little bent; x right, y down, z away; (17, 3)."""
    joints = [
        (0, 0, 0), (-0.2, 0, 0), (-0.2, 0.7, -0.1), (-0.2, 1.4, 0), (0.2, 0, 0), (0.2, 0.7, -0.1), (0.2, 1.4, 0),
        (0, -0.4, 0), (0, -0.8, 0), (0, -0.9, -0.1), (0, -1.0, 0),
        (0.3, -0.8, 0), (0.35, -0.4, 0.1), (0.35, -0.1, 0), (-0.3, -0.8, 0), (-0.35, -0.4, 0.1), (-0.35, -0.1, 0),
    ]  # fmt: skip
    return torch.tensor(joints, dtype=torch.float32)


def people(seed: int = 0, count: int = 64) -> torch.Tensor:
    """The same person seen from all around, (V, 17, 3)."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = torch.rand(count, generator=generator) * 2 * math.pi
    return geometry.rotate(
        standing_person().expand(count, -1, -1), geometry.rotation(azimuth, torch.full((count,), 0.1))
    )


def test_knees_bend_forward_and_elbows_backward() -> None:
    assert (geometry.limb_bend(people()) > 0).all()


def test_bend_flips_exactly_with_mirrored_depth() -> None:
    poses = random_poses(3, 50)
    mirrored = geometry.mirror_depth(poses, torch.full((17,), -1.0).double())
    assert torch.allclose(geometry.limb_bend(mirrored), -geometry.limb_bend(poses), atol=1e-9)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_every_combination_of_mirrored_parts_is_told(name: str) -> None:
    representation = REPRESENTATIONS[name]
    poses = people()
    view, offsets = geometry.project(poses), poses[..., 2]
    count = len(representation.lifters)
    for combination in range(2**count):
        signs = torch.tensor([1.0 if combination >> part & 1 else -1.0 for part in range(count)])
        mirrored = offsets * geometry.joint_signs(signs, representation)
        resolved, confidence = geometry.resolve_signs(view, mirrored[None], representation)
        assert resolved[0].tolist() == signs.tolist()
        assert (confidence[0] > 0.2).all()


def test_sign_resolution_survives_non_finite_offsets() -> None:
    poses = people()
    offsets = torch.stack((torch.full_like(poses[..., 2], math.nan), poses[..., 2]))
    signs, confidence = geometry.resolve_signs(geometry.project(poses), offsets, REPRESENTATIONS["solo"])
    assert signs[1].item() == 1
    assert confidence[1].item() > 0.5


@settings(max_examples=20)
@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_bend_does_not_depend_on_size(size: float, seed: int) -> None:
    poses = random_poses(seed, 5)
    np.testing.assert_allclose(geometry.limb_bend(poses * size), geometry.limb_bend(poses), rtol=1e-6, atol=1e-8)


# --- fitting by rotation -----------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(0, 3), st.sampled_from([3, 2, 1]))
def test_overlap_is_that_of_the_best_rotation(seed: int, noise: float, dimensions: int) -> None:
    """Against SciPy's, for poses alike and unlike, in space, in a plane and on a line."""
    generator = torch.Generator().manual_seed(seed)
    first, other = torch.randn((2, 9, 3), generator=generator, dtype=torch.float64)
    first[:, dimensions:] = 0
    turn = Rotation.random(random_state=seed)
    second = torch.from_numpy(turn.apply(first.numpy())) + noise * other
    found = geometry.overlap(first.T @ second)
    for value, image in zip(found, (second, second * torch.tensor([1, 1, -1])), strict=True):
        rotation, _ = Rotation.align_vectors(first.numpy(), image.numpy())
        best = float((first.numpy() * rotation.apply(image.numpy())).sum())
        assert value.item() == pytest.approx(best, abs=2e-3 * first.norm().item() * second.norm().item())


def test_overlap_of_nothing_is_finite() -> None:
    assert all(abs(value.item()) < 1e-20 for value in geometry.overlap(torch.zeros(3, 3)))


def test_absent_joints_lie_where_their_parents_do() -> None:
    poses, present = random_poses(0, 2), torch.ones(2, 17, dtype=torch.bool)
    present[0, [2, 3]] = False  # a knee and its ankle
    found = geometry.collapse(poses, present)
    assert torch.equal(found[0, 2], poses[0, 1])
    assert torch.equal(found[0, 3], poses[0, 1])
    assert torch.equal(found[1], poses[1])
    assert geometry.collapse(poses, None) is poses
    assert (geometry.limb_bend(found)[0, 1]).abs() < 1e-6


def test_a_joint_of_two_lifters_takes_the_sign_of_the_first() -> None:
    """``left_right`` predicts the trunk on both sides."""
    representation = REPRESENTATIONS["left_right"]
    left, right = (set(part.joints) for part in representation.lifters)
    signs = geometry.joint_signs(torch.tensor([-1.0, 1.0]), representation)
    assert [joint for joint in range(17) if signs[joint] == -1] == sorted(left)
    assert [joint for joint in range(17) if signs[joint] == 1] == sorted(right - left)
    assert left & right


# --- every value by its definition, written out pose by pose ---------------------------------------------------------


def bend_of(pose: np.ndarray, girdle: str, side: str, middle: str, end: str) -> float:
    """How far a joint lies forward of the line from its girdle's joint to the limb's end, in lengths of that line."""
    up = pose[J["thorax"]] - pose[J["hip"]]
    forward = np.cross(pose[J[f"left_{girdle}"]] - pose[J[f"right_{girdle}"]], [up[0], up[1], 0.0])
    forward /= np.linalg.norm(forward)
    start = pose[J[f"{side}_{girdle}"]]
    limb, joint = pose[J[f"{side}_{end}"]] - start, pose[J[f"{side}_{middle}"]] - start
    along = np.clip(joint @ limb / (limb @ limb), 0, 1)
    return float((joint - along * limb) @ forward / np.linalg.norm(limb))


def bends_of(poses: torch.Tensor) -> np.ndarray:
    """Both knees, and both elbows the other way round: (V, 4)."""
    return np.array(
        [
            [bend_of(pose, "hip", side, "knee", "ankle") for side in ("left", "right")]
            + [-bend_of(pose, "shoulder", side, "elbow", "wrist") for side in ("left", "right")]
            for pose in poses.numpy()
        ]
    )


def plausibility_of(poses: torch.Tensor) -> float:
    bends, z = bends_of(poses), poses[..., 2].numpy()
    share = bends.sum(0) / np.abs(bends).sum(0)

    def together(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    left_hip, right_hip = z[:, J["left_hip"]], z[:, J["right_hip"]]
    left, right, thorax = z[:, J["left_shoulder"]], z[:, J["right_shoulder"]], z[:, J["thorax"]]
    axes = together(left_hip - right_hip, left - right)
    return float(
        share[:2].mean()
        + 0.5 * share[2:].mean()
        + axes
        + together(left_hip, -right_hip)
        + together(left - thorax, thorax - right)
    )


def test_bends_by_their_definition() -> None:
    poses = random_poses(11, 30)
    np.testing.assert_allclose(geometry.limb_bend(poses), bends_of(poses), atol=1e-9)


def test_plausibility_by_its_definition() -> None:
    for seed in range(4):
        poses = random_poses(seed, 12)
        assert geometry.plausibility(poses).item() == pytest.approx(plausibility_of(poses), abs=1e-9)


def test_the_confidence_of_a_sign_is_half_of_what_its_flip_costs() -> None:
    representation = REPRESENTATIONS["torso_legs"]
    poses = people(count=12).double() + 0.15 * random_poses(2, 12)
    view, offsets = geometry.project(poses), poses[..., 2]
    signs, confidence = geometry.resolve_signs(view, offsets[None], representation)
    assert signs.tolist() == [[1.0, 1.0]]

    def score(*parts: float) -> float:
        return plausibility_of(
            geometry.lift(view, offsets * geometry.joint_signs(torch.tensor(parts).double(), representation))
        )

    expected = [(score(1, 1) - score(-1, 1)) / 2, (score(1, 1) - score(1, -1)) / 2]
    assert all(one > 0 for one in expected)
    np.testing.assert_allclose(confidence[0], np.clip(expected, 0, 1), atol=1e-6)


def test_signs_are_told_of_the_joints_that_are_there() -> None:
    """Absent knees and elbows say nothing, whatever stands in their place."""
    representation, poses = REPRESENTATIONS["solo"], people(count=12).double()
    present = torch.ones(12, 17, dtype=torch.bool)
    present[:, [J["left_knee"], J["right_knee"], J["left_elbow"], J["right_elbow"]]] = False
    wrong = poses.clone()
    wrong[..., 2] = torch.where(present, poses[..., 2], -5 * poses[..., 2])
    found = geometry.resolve_signs(geometry.project(poses), wrong[None, ..., 2], representation, present)
    clean = geometry.collapse(geometry.lift(geometry.project(poses), poses[..., 2]), present)
    mirrored = geometry.collapse(geometry.lift(geometry.project(poses), -poses[..., 2]), present)
    margin = (geometry.plausibility(clean) - geometry.plausibility(mirrored)).abs() / 2
    assert found[1].item() == pytest.approx(margin.clamp(0, 1).item(), abs=1e-9)


def test_mirrored_depth_is_depth_times_sign_joint_by_joint() -> None:
    poses, signs = random_poses(4, 3), torch.where(torch.arange(17) % 3 == 0, -1.0, 1.0).double()
    expected = poses.numpy() * np.stack([np.ones(17), np.ones(17), signs.numpy()], axis=-1)
    np.testing.assert_array_equal(geometry.mirror_depth(poses, signs), expected)
    np.testing.assert_array_equal(geometry.mirror_depth(poses, signs.expand(3, 17)), expected)


@given(angles, angles)
def test_a_rotation_turns_about_the_vertical_and_then_tilts(azimuth: float, elevation: float) -> None:
    expected = Rotation.from_euler("yx", [azimuth, elevation]).as_matrix()  # about fixed axes, in this order
    found = geometry.rotation(*(torch.tensor(angle, dtype=torch.float64) for angle in (azimuth, elevation)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_lift_and_project_at_the_nearest_depth() -> None:
    poses = torch.full((1, 17, 2), 0.5).double()
    lifted = geometry.lift(poses, torch.tensor([[-9.5] * 8 + [2.0] * 9]).double())
    assert lifted[0, :, 2].tolist() == [-9.0] * 8 + [2.0] * 9
    assert lifted[0, :, 0].tolist() == [0.5] * 8 + [6.0] * 9
    behind = torch.tensor([3.0, 2.0, -9.5]).double()
    assert geometry.project(behind[None])[0].tolist() == [3.0, 2.0]
