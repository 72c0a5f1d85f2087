from __future__ import annotations

import numpy as np
import pytest
import torch

from tips_dist import geometry
from tips_dist.report.anatomy import Lifted, bodies
from tips_dist.skeleton import REPRESENTATIONS


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_pictures_turn_the_joints_that_the_lifter_turns(representation: str) -> None:
    """In every representation and for every flipped part, joints that two lifters share included."""
    random = np.random.default_rng(0)
    poses, depths = random.normal(0, 0.1, (3, 17, 2)), random.normal(0, 0.3, (3, 17))
    cut = REPRESENTATIONS[representation]
    count = len(cut.lifters)
    for flipped in range(count):
        signs = [-1 if part == flipped else 1 for part in range(count)]
        turned = geometry.joint_signs(torch.tensor(signs), cut) * torch.tensor(depths)
        expected = geometry.lift(torch.tensor(poses), turned).numpy()
        drawn = bodies(Lifted(representation, "x-000", 0, 50, depths, tuple(signs)), poses, [0, 1, 2])
        np.testing.assert_allclose(drawn[..., 2] - drawn[:, :1, 2], expected[..., 2] - expected[:, :1, 2], atol=1e-6)
