"""The student's short cut predicts what its network predicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tips_dist import geometry
from tips_dist.models import Lifter, initialise, weights_record
from tips_dist.models.plan import PlainLifter
from tips_dist.models.student import Student
from tips_dist.skeleton import REPRESENTATIONS


def lifter_of(name: str, *, batch_norm: bool = False) -> Lifter:
    lifter = Lifter(REPRESENTATIONS[name], 32, blocks=3, batch_norm=batch_norm)
    initialise(lifter, [torch.Generator().manual_seed(2)])
    return lifter.eval()


@pytest.mark.parametrize("name", ["solo", "torso_legs", "five_parts_shared"])
@pytest.mark.parametrize("count", [1, 700, 1300])
def test_student_equals_its_network(name: str, count: int) -> None:
    lifter = lifter_of(name)
    parts = len(lifter.representation.lifters)
    signs = torch.tensor([(-1.0) ** index for index in range(parts)])
    student = Student(lifter, weights_record(lifter, scale=1900.0, part_signs=[int(sign) for sign in signs]))
    poses = np.random.default_rng(1).normal(400, 120, (count, 17, 2)).astype(np.float32)
    inputs = torch.from_numpy((poses - poses[:, :1]) / np.float32(1900.0))
    with torch.inference_mode():
        offsets = lifter(inputs[None])[0] * geometry.joint_signs(signs, lifter.representation)
        expected = geometry.lift(inputs, offsets).numpy()
    np.testing.assert_allclose(student.lift(poses), expected, atol=2e-6)
    np.testing.assert_allclose(student.lift(poses, batch=97), expected, atol=2e-6)
    assert PlainLifter.fits(lifter) == (name == "solo")


def test_other_networks_take_the_long_way() -> None:
    assert not PlainLifter.fits(lifter_of("solo", batch_norm=True))
    assert not PlainLifter.fits(Lifter(REPRESENTATIONS["solo"], 32, seeds=2))
