"""Procedural motion: deterministic, fast, within joint limits, and human in the ways that a lifter learns."""

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tips_dist.data import cameras, procedural, store
from tips_dist.data.instants import instants
from tips_dist.files import UserError
from tips_dist.skeleton import BONES, SYMMETRIC_BONES, J

POSES, TRUTH = procedural.generate(6000, seed=1)
SIDES = ("left", "right")


def _joint(name: str) -> Any:
    return TRUTH[:, J[name]].astype(np.float64)


def _forward() -> Any:
    forward = np.cross(_joint("left_hip") - _joint("right_hip"), _joint("thorax") - _joint("hip"))
    return forward / np.linalg.norm(forward, axis=-1, keepdims=True)


def _bend(upper: str, middle: str, lower: str) -> Any:
    """How far the middle joint lies in front of the line between the other two, mm."""
    line = _joint(lower) - _joint(upper)
    line /= np.linalg.norm(line, axis=-1, keepdims=True)
    off = _joint(middle) - _joint(upper)
    off -= (off * line).sum(axis=-1, keepdims=True) * line
    return (off * _forward()).sum(axis=-1)


def test_same_seed_same_poses_another_seed_others() -> None:
    again, truth = procedural.generate(6000, seed=1)
    assert again.digest == POSES.digest
    np.testing.assert_array_equal(truth, TRUTH)
    assert procedural.generate(6000, seed=2)[0].digest != POSES.digest


def test_twenty_thousand_poses_in_under_ten_seconds() -> None:
    start = time.perf_counter()
    poses, _ = procedural.generate(20_000, seed=0)
    assert time.perf_counter() - start < 10
    assert len(poses) == 20_000


def test_splits_are_by_sequence_and_every_subject_can_be_judged_in_validation() -> None:
    for code in range(len(POSES.sequence_names)):
        rows = POSES.sequence == code
        assert np.unique(POSES.split[rows]).size == 1
        assert np.unique(POSES.subject[rows]).size == 1
    validation = POSES.rows("validation")
    counts = np.bincount(POSES.subject[validation], minlength=len(POSES.subject_names))
    assert len(POSES.subject_names) > 3
    assert counts.min() >= 20
    assert len(POSES.rows("train")) > 3 * len(validation)
    assert len(POSES.rows("test")) > 0


def test_bones_are_constant_within_a_subject_symmetric_and_differ_between_subjects() -> None:
    bones = np.stack([np.linalg.norm(TRUTH[:, c] - TRUTH[:, p], axis=-1) for p, c in BONES], axis=-1)
    means = []
    for subject in range(len(POSES.subject_names)):
        mine = bones[POSES.subject == subject]
        assert mine.std(axis=0).max() < 0.05
        means.append(mine.mean(axis=0))
    assert np.std(means, axis=0).min() > 2
    for left, right in SYMMETRIC_BONES:
        np.testing.assert_allclose(bones[:, left], bones[:, right], atol=0.1)


@pytest.mark.parametrize("side", SIDES)
def test_knees_bend_forward_and_elbows_backward(side: str) -> None:
    assert (_bend(f"{side}_hip", f"{side}_knee", f"{side}_ankle") > -5).mean() > 0.99
    assert (_bend(f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist") < 0).mean() > 0.85


def test_bodies_are_upright_and_a_foot_stands_under_them() -> None:
    down = np.array([0.0, np.cos(np.radians(10)), -np.sin(np.radians(10))])  # of a camera with the mean tilt
    height = -(TRUTH - TRUTH[:, :1]) @ down
    assert (height[:, J["head"]] > 300).mean() > 0.98
    legs = sum(
        np.linalg.norm(_joint(a) - _joint(b), axis=-1)
        for a, b in (("left_hip", "left_knee"), ("left_knee", "left_ankle"))
    )
    standing = -np.minimum(height[:, J["left_ankle"]], height[:, J["right_ankle"]]) / legs
    assert ((standing > 0.4) & (standing < 1.15)).mean() > 0.99


def test_arms_swing_opposite_to_legs_when_walking() -> None:
    gait = np.array([name.startswith("gait") for name in POSES.sequence_names])[POSES.sequence]
    forward = _forward()
    legs = ((_joint("left_ankle") - _joint("right_ankle")) * forward).sum(axis=-1)[gait]
    arms = ((_joint("left_elbow") - _joint("right_elbow")) * forward).sum(axis=-1)[gait]
    assert np.corrcoef(legs, arms)[0, 1] < -0.5


def test_azimuths_are_spread_like_the_depths() -> None:
    rooted = TRUTH - TRUTH[:, :1]
    assert rooted[..., 2].std() / rooted[..., 0].std() == pytest.approx(1.0, abs=0.3)


def test_poses_are_the_projections_of_the_truth() -> None:
    np.testing.assert_allclose(cameras.pinhole(TRUTH), POSES.poses, atol=1e-2)


def test_angles_respect_the_joint_limits() -> None:
    plan = procedural._plan(2000, 2)
    for name, values in procedural._motion(np.random.default_rng(5), plan).items():
        low, high = procedural.LIMITS[name]
        assert values.min() >= low, name
        assert values.max() <= high, name


@pytest.mark.parametrize("poses", [procedural.LEAST, 97, 400])
def test_small_requests_still_fill_every_split(poses: int) -> None:
    made, truth = procedural.generate(poses, seed=0)
    assert len(made) == len(truth) == poses
    assert all(len(made.rows(split)) for split in store.SPLITS)


def test_too_few_poses_are_refused() -> None:
    with pytest.raises(UserError, match="at least"):
        procedural.generate(5, seed=0)


def test_write_makes_a_pair_that_reads_back(tmp_path: Path) -> None:
    summary = procedural.write(tmp_path / "deep" / "made.v1", 400, seed=3)
    read = store.read_poses(tmp_path / "deep" / "made.v1.pose2d.h5")
    assert read.digest == summary["digest"] == procedural.generate(400, seed=3)[0].digest
    assert sum(summary["splits"].values()) == 400
    with h5py.File(summary["truth3d"]) as file:
        assert file.attrs["poses_digest"] == read.digest


def test_more_cameras_see_the_same_moments() -> None:
    poses, truth = procedural.generate(2000, 1, cameras=4)
    groups = instants(poses, poses.rows("validation"))
    assert {len(group) for group in groups} >= {4}
    assert sum(len(group) for group in groups) > 0.95 * len(poses.rows("validation"))
    root = truth - truth[:, :1]
    sizes = np.linalg.norm(root, axis=-1)
    for group in groups[::20]:
        np.testing.assert_allclose(sizes[group], sizes[group[:1]].repeat(len(group), 0), rtol=1e-3, atol=0.5)
    assert "4 cameras" in poses.source
    assert procedural.generate(500, 1, cameras=2)[0].digest == procedural.generate(500, 1)[0].digest
    one, _ = procedural.generate(500, 1, cameras=1)
    assert not instants(one, one.rows("validation"))
    with pytest.raises(UserError, match="ask for at least 80"):
        procedural.generate(60, 1, cameras=4)
