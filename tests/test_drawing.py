from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tips_dist import views
from tips_dist.data import inspection
from tips_dist.drawing import SIDE_COLOUR, curve_picture, depth_correlation, matrix_picture, pose_picture, stick_mesh
from tips_dist.report.anatomy import Lifted, poses_figure
from tips_dist.skeleton import JOINTS


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_row_per_pose_and_both_sides_in_their_colours() -> None:
    picture = pose_picture(normal(3, 17, 2), normal(3, 17, 3))
    assert picture.shape == (3 * 110 + 14, 330, 3)
    found = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert set(SIDE_COLOUR.values()) <= found


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
    picture = matrix_picture(shares, "what it shows", cell=12)
    names, head = picture.shape[1] - 17 * 12, 2 * 12
    assert picture.shape[0] == head + 17 * 12
    assert picture[head, -1].tolist() == [8, 48, 107]
    assert picture[-1, -1].tolist() == [255, 255, 255]
    assert picture[head:, :names].min() < 50  # names
    assert picture[12:head, names:].min() < 50  # numbers of the columns
    assert picture[:12].min() < 50  # the heading


def test_mesh_bars_lie_along_the_bones() -> None:
    lifted = np.random.default_rng(0).normal(size=(2, 17, 3)).astype(np.float32)
    vertices, colours, faces = stick_mesh(lifted)
    assert vertices.shape == colours.shape == (2 * 16 * 6, 3)
    assert faces.max() == len(vertices) - 1
    middle = vertices[:3].mean(axis=0)  # the hip end of the first bone of the first pose; y is turned up
    np.testing.assert_allclose(middle, lifted[0, 0] * [1, -1, -1], atol=1e-5)


def spread(left: float, right: float) -> NDArray[np.float32]:
    """A pose (17, 2) whose left side is at ``left`` in the image, whose right at ``right``, whose trunk between."""
    across = [left if name.startswith("left") else right if name.startswith("right") else 0.0 for name in JOINTS]
    return np.stack([np.array(across), np.linspace(-1, 1, 17)], axis=1).astype(np.float32)


def _monitored(pose: NDArray[np.float32], folder: Path) -> NDArray[np.integer]:
    return pose_picture(pose[None], np.zeros((1, 17, 3), np.float32))[14:, :110]


def _lifted(pose: NDArray[np.float32], folder: Path) -> NDArray[np.integer]:
    views.write_picture(folder / "a.png", pose[None], np.pad(pose, ((0, 0), (0, 1)))[None])
    return np.asarray(Image.open(folder / "a.png").convert("RGB"))[views.HEADING :, : views.CELL]


def _inspected(pose: NDArray[np.float32], folder: Path) -> NDArray[np.integer]:
    inspection._draw(pose[None], [""], [""], {}, "made", folder / "a.png")
    return np.asarray(Image.open(folder / "a.png").convert("RGB"))


@pytest.mark.parametrize("draw", [_monitored, _lifted, _inspected])
@pytest.mark.parametrize("left", [-1.0, 1.0])
def test_the_left_is_blue_and_the_right_is_red_in_every_picture(
    draw: Callable[[NDArray[np.float32], Path], NDArray[np.integer]], left: float, tmp_path: Path
) -> None:
    picture = draw(spread(left, -left), tmp_path).astype(int)
    blue, red = (np.abs(picture - SIDE_COLOUR[side]).max(axis=-1) < 20 for side in ("left", "right"))
    middles = [np.nonzero(side)[1].mean() for side in (blue, red)]
    assert (middles[0] < middles[1]) == (left < 0)
    assert SIDE_COLOUR["left"][2] > 2 * SIDE_COLOUR["left"][0]
    assert SIDE_COLOUR["right"][0] > 2 * SIDE_COLOUR["right"][2]


def test_the_report_colours_sides_as_the_pictures_do() -> None:
    lifted = Lifted("solo", "solo-000", 0, 50, np.zeros((3, 17)), (1,))
    traces = poses_figure(lifted, np.repeat(spread(-1, 1)[None], 3, axis=0)).figure.data
    assert {trace.name: trace.line.color for trace in traces} == {
        side: f"rgb{colour}" for side, colour in SIDE_COLOUR.items()
    }


def test_curves_in_a_picture_leave_out_what_is_not_finite() -> None:
    lines = {
        "seed 0: healthy": ([50, 100, 150], [3.0, float("nan"), 1.0]),
        "seed 1: non-finite": ([50], [float("nan")]),
    }
    picture = curve_picture(lines, "solo-000")
    assert picture.shape == (320 + 16, 640, 3)
    assert (picture[100:280, 100:500] < 200).any()
    assert curve_picture({}, "nothing").shape == (320, 640, 3)
