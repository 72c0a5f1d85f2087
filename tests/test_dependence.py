import numpy as np
import torch

from tests.models.test_models import built
from tips_dist import dependence
from tips_dist.skeleton import J


class Linear(torch.nn.Module):
    """Joint i's depth is twice the x of joint j."""

    def __init__(self, i: int, j: int) -> None:
        super().__init__()
        self.i, self.j = i, j

    def forward(self, poses: torch.Tensor) -> torch.Tensor:
        offsets = torch.zeros(poses.shape[:-1])
        offsets[..., self.i] = 20 * poses[..., self.j, 0]
        return offsets + 0 * poses.sum()


def test_a_known_dependence_is_found() -> None:
    matrix = dependence.input_dependence(Linear(3, 10), torch.randn(8, 17, 2))  # type: ignore[arg-type]
    assert matrix[3, 10] == np.float32(2.0)
    assert matrix.sum() == matrix[3, 10]
    assert dependence.long_range(matrix) == 1.0


def test_bones_between_joints() -> None:
    distance = dependence.bone_distance()
    assert distance[J["left_wrist"], J["left_elbow"]] == 1
    assert distance[J["head"], J["left_ankle"]] == 7
    assert (distance == distance.T).all()


def test_independent_parts_have_less_long_range_dependence_than_a_whole_pose_lifter() -> None:
    poses = torch.randn(32, 17, 2) * 0.1
    solo, parts = (dependence.input_dependence(built(name, [0]), poses) for name in ("solo", "torso_legs"))
    assert dependence.long_range(parts) < 0.5 * dependence.long_range(solo)
    assert parts[J["left_ankle"], J["head"]] == 0


def test_output_correlation_of_depths_that_move_together() -> None:
    depths = np.random.default_rng(0).normal(size=(200, 17))
    depths[:, 5] = -depths[:, 6]
    depths[:, 0] = 0
    matrix = dependence.output_correlation(depths)
    assert np.isclose(matrix[5, 6], -1)
    assert (matrix[0] == 0).all()
    assert abs(matrix[3, 4]) < 0.3
