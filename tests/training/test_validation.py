"""Which poses every run is judged on: whole instants where there are some, evenly spaced rows elsewhere."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.stability.bodies import steady
from tests.training.worlds import tiny, world
from tips_dist.data.store import Poses, normalisation_scale
from tips_dist.files import UserError
from tips_dist.training.validation import validation_rows, validation_set


def filmed(cameras: int, missing: int = 0) -> Poses:
    """The tests' world as if ``cameras`` had filmed it together; ``missing`` validation rows are left out."""
    poses = world()
    place = np.arange(len(poses), dtype=np.int32)
    split = np.where(place // 60 % 3 == 0, 1, 0).astype(np.int8)
    made = dataclasses.replace(
        poses,
        split=split,
        sequence=split.astype(np.int32),
        subject=np.zeros_like(poses.subject),
        frame=place // cameras,
        camera=place % cameras,
        camera_names=tuple(map(str, range(cameras))),
    )
    gone = np.flatnonzero(split == 1)[1 : 1 + 5 * missing : 5]
    made.split[gone] = 2
    return made


def test_whole_instants_are_chosen() -> None:
    poses = filmed(4)
    rows = validation_rows(poses, 64)
    assert len(rows) == 64
    assert (np.diff(rows) > 0).all()
    frames, views = np.unique(poses.frame[rows], return_counts=True)
    assert (views == 4).all()
    assert np.ptp(frames) > 0.8 * np.ptp(poses.frame[poses.rows("validation")])  # evenly spaced, not the first ones


def test_a_count_is_rounded_to_whole_instants() -> None:
    assert len(validation_rows(filmed(4), 50)) == 48
    assert len(validation_rows(filmed(4), 10_000)) == len(filmed(4).rows("validation"))


def test_instants_with_a_missing_view_stay() -> None:
    poses = filmed(4, missing=20)
    found = validation_set(poses, tiny("solo", "training.validation_poses=64"), normalisation_scale(poses))
    assert found.instants is not None
    views = (found.instants < len(found.poses)).sum(1)
    assert set(views.tolist()) == {3, 4}
    rows = validation_rows(poses, 64)
    for instant in found.instants.tolist():
        assert len({int(poses.frame[rows[place]]) for place in instant if place < len(rows)}) == 1


def test_single_cameras_are_judged_on_evenly_spaced_rows() -> None:
    poses = filmed(1)
    held_out = poses.rows("validation")
    rows = validation_rows(poses, 100)
    assert rows.tolist() == [held_out[index * len(held_out) // 100] for index in range(100)]
    found = validation_set(poses, tiny(), normalisation_scale(poses))
    assert found.instants is None
    assert found.clips is None
    assert found.present is None


def test_rows_of_both_kinds_keep_their_shares() -> None:
    poses = filmed(2)
    alone = np.flatnonzero((poses.split == 1) & (np.arange(len(poses)) % 4 == 1))  # every other instant loses a view
    poses.split[alone] = 2
    rows = validation_rows(poses, 99)
    _, views = np.unique(poses.frame[rows], return_counts=True)
    assert (views == 2).sum() == pytest.approx((views == 1).sum(), abs=2)


def test_the_reference_holds_other_poses() -> None:
    poses = filmed(4)
    found = validation_set(poses, tiny("solo", "training.validation_poses=64"), normalisation_scale(poses))
    assert not (found.poses[:, None] == found.others[None]).flatten(2).all(-1).any()


def test_stretches_and_missing_joints_come_along() -> None:
    poses = steady(stretches=3, frames=16)
    scores = np.ones((len(poses), 17), np.float32)
    scores[poses.rows("validation")[::2], 13] = 0
    poses = dataclasses.replace(poses, scores=scores)
    found = validation_set(poses, tiny(), normalisation_scale(poses))
    assert found.clips is not None
    assert found.clips.shape[1:] == (2, 17, 2)
    assert found.present is not None
    assert not found.present[:, 13].all()
    assert torch.equal(found.others[~found.present[:, 13], 13], found.others[~found.present[:, 13], 12])


def test_too_few_poses_are_refused() -> None:
    poses = filmed(1)
    poses.split[poses.rows("validation")[31:]] = 2
    with pytest.raises(UserError, match="31 validation poses; at least 32"):
        validation_rows(poses, 64)
