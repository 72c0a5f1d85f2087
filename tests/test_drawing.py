from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tips_dist.drawing import depth_correlation, matrix_picture, pose_picture, stick_mesh


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_row_per_pose_and_both_sides_in_their_colours() -> None:
    picture = pose_picture(normal(3, 17, 2), normal(3, 17, 3))
    assert picture.shape == (3 * 110 + 14, 330, 3)
    found = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(0, 114, 178), (213, 94, 0), (85, 85, 85)} <= found


def test_a_flat_lift_has_an_empty_side_view() -> None:
    lifted = normal(1, 17, 3)
    lifted[..., 2] = 0
    side = pose_picture(lifted[..., :2], lifted)[14:, 220:]
    columns = np.flatnonzero((side != 255).any(axis=(0, 2)))
    assert columns.max() - columns.min() <= 3  # one upright line


def test_non_finite_poses_are_drawn_as_nothing_much() -> None:
    assert pose_picture(np.full((1, 17, 2), np.nan), np.full((1, 17, 3), np.inf)).shape == (124, 330, 3)


def test_depths_that_move_together() -> None:
    random = np.random.default_rng(0)
    depths = random.normal(size=(2, 500, 17))
    depths[..., 0] = 0
    depths[..., 5] = -3 * depths[..., 4]
    found = depth_correlation(depths)
    assert found[4, 5] > 0.999
    assert found[1, 2] < 0.15
    assert found[0].max() == 0


def test_matrix_is_white_at_zero_and_dark_at_one_beside_the_names() -> None:
    shares = np.zeros((17, 17), np.float32)
    shares[0, 16] = 1
    picture = matrix_picture(shares, cell=12)
    assert picture.shape == (17 * 12, 90 + 17 * 12, 3)
    assert picture[0, -1].tolist() == [8, 48, 107]
    assert picture[-1, -1].tolist() == [255, 255, 255]
    assert picture[:, :90].min() < 50


def test_mesh_bars_lie_along_the_bones() -> None:
    lifted = np.random.default_rng(0).normal(size=(2, 17, 3)).astype(np.float32)
    vertices, colours, faces = stick_mesh(lifted)
    assert vertices.shape == colours.shape == (2 * 16 * 6, 3)
    assert faces.max() == len(vertices) - 1
    middle = vertices[:3].mean(axis=0)  # the hip end of the first bone of the first pose; y is turned up
    np.testing.assert_allclose(middle, lifted[0, 0] * [1, -1, -1], atol=1e-5)
