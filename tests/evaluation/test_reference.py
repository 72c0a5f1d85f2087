"""The supervised reference learns from truth, and what it learns from is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tips_dist import geometry
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.evaluation import metrics
from tips_dist.evaluation.reference import SupervisedRecipe, supervised, true_offsets
from tips_dist.evaluation.truth import Truth
from tips_dist.skeleton import ROOT

SMALL = SupervisedRecipe(width=16, steps=60, batch_size=64, lr=3e-3)


@pytest.fixture(scope="module")
def data() -> tuple[Poses, Truth]:
    poses, joints = procedural.generate(1500, seed=3)
    return poses, Truth(joints.astype(np.float32), Path("truth3d.h5"), "")


def test_true_offsets_lift_poses_onto_the_truth(data: tuple[Poses, Truth]) -> None:
    poses, truth = data
    rows = poses.rows("train")
    inputs = normalised(poses, rows, normalisation_scale(poses))
    offsets = true_offsets(inputs, truth.joints[rows])
    lifted = geometry.lift(torch.from_numpy(inputs), torch.from_numpy(offsets)).numpy()
    assert metrics.n_mpjpe(lifted, truth.joints[rows]).mean() < 15  # what is left is the assumed camera distance
    flat = geometry.lift(torch.from_numpy(inputs), torch.zeros(inputs.shape[:2])).numpy()
    assert metrics.n_mpjpe(flat, truth.joints[rows]).mean() > 100
    np.testing.assert_array_equal(offsets[:, ROOT], 0)


def test_a_reference_learns_and_is_the_same_each_time(data: tuple[Poses, Truth]) -> None:
    first, again = (supervised(*data, SMALL, (3, 4)) for _ in range(2))
    assert first == again
    assert first.seeds == [3, 4]
    untrained = supervised(*data, SupervisedRecipe(width=16, steps=1, batch_size=64), (3, 4))
    for found, before in ((first.validation, untrained.validation), (first.test, untrained.test)):
        assert found is not None
        assert before is not None
        assert max(found.n_mpjpe) < 0.8 * min(before.n_mpjpe)
        assert all(pa <= plain for pa, plain in zip(found.pa_mpjpe, found.n_mpjpe, strict=True))
        means = [np.mean(values) for values in found.action.values()]
        assert min(means) <= np.mean(found.n_mpjpe) <= max(means)


def test_a_seed_learns_the_same_whatever_it_is_packed_with(data: tuple[Poses, Truth]) -> None:
    pack, alone = supervised(*data, SMALL, (3, 4)).test, supervised(*data, SMALL, (4,)).test
    assert pack is not None
    assert alone is not None
    assert pack.n_mpjpe[1] == pytest.approx(alone.n_mpjpe[0], rel=1e-3)
