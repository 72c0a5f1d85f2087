"""Virtual cameras: which way is right, down and away."""

import numpy as np

from tips_dist.data import cameras

ONE = np.zeros(1)


def _joints(*points: tuple[float, float, float]) -> np.ndarray:
    return np.array([[[(0.0, 0.0, 0.0), *points]]])


def test_a_camera_in_front_sees_left_on_the_right_up_on_top_and_forward_nearer() -> None:
    front = cameras.Cameras(azimuth=ONE, tilt=ONE, distance=ONE + 5000)
    truth, pixels = front.view(_joints((100, 0, 0), (0, 200, 0), (0, 0, 300)))
    np.testing.assert_allclose(truth[0, 0], [[0, 0, 5000], [100, 0, 5000], [0, -200, 5000], [0, 0, 4700]], atol=1e-3)
    np.testing.assert_allclose(pixels[0, 0, 1], [500 + 1145 * 100 / 5000, 500], rtol=1e-6)
    assert pixels[0, 0, 2, 1] < 500


def test_a_camera_that_looks_down_sees_the_top_of_the_body_nearer() -> None:
    tilted = cameras.Cameras(azimuth=ONE, tilt=ONE + np.radians(10), distance=ONE + 5000)
    truth, _ = tilted.view(_joints((0, 500, 0), (0, -500, 0)))
    assert truth[0, 0, 1, 2] < 5000 < truth[0, 0, 2, 2]


def test_views_keep_shape_and_handedness_and_project_to_their_pixels() -> None:
    generator = np.random.default_rng(0)
    world = generator.normal(scale=300, size=(1, 6, 17, 3))
    rig = cameras.rig(generator, 4)
    truth, pixels = rig.view(np.broadcast_to(world, (4, 6, 17, 3)))
    rooted, seen = world - world[:, :, :1], truth - truth[:, :, :1]
    np.testing.assert_allclose(
        np.linalg.norm(seen, axis=-1), np.broadcast_to(np.linalg.norm(rooted, axis=-1), (4, 6, 17)), rtol=1e-4
    )
    volumes = np.linalg.det(seen[..., 1:4, :].astype(float)), np.linalg.det(rooted[..., 1:4, :])
    np.testing.assert_allclose(volumes[0], np.broadcast_to(volumes[1], (4, 6)), rtol=1e-3)
    np.testing.assert_allclose(cameras.pinhole(truth), pixels, atol=1e-2)
    turns = np.degrees(np.diff(rig.azimuth))
    np.testing.assert_allclose(turns, 90)
    assert ((rig.distance >= 4000) & (rig.distance <= 6000)).all()
    assert ((rig.tilt >= np.radians(5)) & (rig.tilt <= np.radians(15))).all()
