"""Metrics against independent implementations (SciPy, loops over poses) and their invariances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from tips_dist.evaluation import metrics
from tips_dist.skeleton import JOINTS

Array = npt.NDArray[np.float64]


def pair(seed: int, count: int = 40, noise: float = 60.0) -> tuple[Array, Array]:
    """Truth-like poses in mm and predictions that differ from them by noise."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 300, (count, 17, 3)) + generator.normal(0, 2000, (count, 1, 3))
    return truth + generator.normal(0, noise, truth.shape), truth


def pa_loop(prediction: Array, truth: Array, reflection: bool) -> Array:
    """Reference: one pose at a time, SciPy's orthogonal Procrustes, reflection avoided by hand."""
    result = np.empty(truth.shape[:2])
    for index, (source, target) in enumerate(zip(prediction, truth, strict=True)):
        source, centred = source - source.mean(0), target - target.mean(0)
        rotation, _ = orthogonal_procrustes(source, centred)
        if not reflection and np.linalg.det(rotation) < 0:
            rotation, _ = Rotation.align_vectors(centred, source)
            rotation = rotation.as_matrix().T
        turned = source @ rotation
        scale = (turned * centred).sum() / (turned**2).sum()
        result[index] = np.linalg.norm(scale * turned - centred, axis=1)
    return result


@pytest.mark.parametrize("reflection", [False, True])
@pytest.mark.parametrize("noise", [20.0, 400.0])
def test_pa_matches_a_loop_with_scipy(reflection: bool, noise: float) -> None:
    prediction, truth = pair(1, noise=noise)
    prediction[::3, :, 2] *= -1  # mirrored poses, where reflections matter
    expected = pa_loop(prediction, truth, reflection)
    np.testing.assert_allclose(
        metrics.pa_mpjpe(prediction, truth, reflection=reflection), expected, rtol=1e-6, atol=1e-6
    )


def test_pa_with_reflection_matches_scipy_procrustes() -> None:
    prediction, truth = pair(2)
    errors = metrics.pa_mpjpe(prediction, truth, reflection=True)
    for index in range(len(truth)):
        _, _, disparity = procrustes(truth[index], prediction[index])  # squared error at unit norm of the truth
        norm = ((truth[index] - truth[index].mean(0)) ** 2).sum()
        assert (errors[index] ** 2).sum() == pytest.approx(disparity * norm, rel=1e-9)


def test_n_mpjpe_matches_a_loop() -> None:
    prediction, truth = pair(3)
    for index, errors in enumerate(metrics.n_mpjpe(prediction, truth)):
        source, target = prediction[index] - prediction[index, 0], truth[index] - truth[index, 0]
        source = source / np.sqrt((source**2).sum()) * np.sqrt((target**2).sum())
        np.testing.assert_allclose(errors, np.sqrt(((source - target) ** 2).sum(1)))


def test_reflection_is_not_allowed_unless_named() -> None:
    _, truth = pair(4)
    mirrored = truth * np.array([1.0, 1.0, -1.0])
    assert metrics.pa_mpjpe(mirrored, truth, reflection=True).max() < 1e-6
    assert metrics.pa_mpjpe(mirrored, truth).mean() > 100


def test_pck_and_auc_by_hand() -> None:
    errors = np.array([[0.0, 10.0, 149.9, 150.0, 400.0, np.nan]])
    assert metrics.pck(errors) == pytest.approx(50.0)
    expected = np.mean([100 * np.mean(errors < threshold) for threshold in range(0, 151, 5)])
    assert metrics.auc(errors) == pytest.approx(expected)
    assert len(metrics.AUC_THRESHOLDS_MM) == 31


def test_bad_predictions_stay_visible_and_alone() -> None:
    prediction, truth = pair(5, count=4)
    clean = metrics.pa_mpjpe(prediction, truth)
    prediction[2, 3, 1] = np.nan
    for function in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe):
        errors = function(prediction, truth)
        assert np.isnan(errors[2]).any()
        assert np.isfinite(errors[[0, 1, 3]]).all()
    np.testing.assert_array_equal(metrics.pa_mpjpe(prediction, truth)[3], clean[3])


def test_a_prediction_of_zeros_has_a_finite_error() -> None:
    _, truth = pair(6)
    for function in (metrics.n_mpjpe, metrics.pa_mpjpe):
        assert np.isfinite(function(np.zeros_like(truth), truth)).all()


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), angles=st.tuples(*[st.floats(-3, 3)] * 3))
@settings(max_examples=50, deadline=None)
def test_invariances(seed: int, scale: float, angles: tuple[float, float, float]) -> None:
    prediction, truth = pair(seed, count=3)
    shift = np.random.default_rng(seed).normal(0, 500, (3, 1, 3))
    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    tolerance: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
    # PA ignores any similarity of the prediction; N ignores scale and shift; MPJPE ignores shift alone.
    expected = metrics.pa_mpjpe(prediction, truth)
    np.testing.assert_allclose(metrics.pa_mpjpe(scale * prediction @ rotation + shift, truth), expected, **tolerance)
    expected = metrics.n_mpjpe(prediction, truth)
    np.testing.assert_allclose(metrics.n_mpjpe(scale * prediction + shift, truth), expected, **tolerance)
    np.testing.assert_allclose(metrics.mpjpe(prediction + shift, truth), metrics.mpjpe(prediction, truth), **tolerance)
    # A common rotation changes none of them, and a perfect prediction has no error.
    np.testing.assert_allclose(metrics.n_mpjpe(prediction @ rotation, truth @ rotation), expected, **tolerance)
    assert metrics.pa_mpjpe(scale * truth @ rotation, truth).max() < 1e-6
    # Freedom only helps, in the least-squares sense that the alignments minimise.
    squares = [(metrics.pa_mpjpe(prediction, truth, reflection=allowed) ** 2).sum(axis=1) for allowed in (True, False)]
    assert (squares[0] <= squares[1] + 1e-6).all()


def test_any_leading_axes() -> None:
    prediction, truth = pair(7, count=12)
    for function in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe):
        grid = function(prediction.reshape(3, 4, 17, 3), truth.reshape(3, 4, 17, 3))
        np.testing.assert_allclose(grid.reshape(12, 17), function(prediction, truth))
        # A truth without the leading axis is shared by every prediction.
        np.testing.assert_allclose(function(np.stack([prediction, truth]), truth)[0], function(prediction, truth))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("walking_5", "walking"),
        ("basketball_signal_4", "basketball_signal"),
        ("S9/Walking-1", "Walking"),
        ("Phoning 1", "Phoning"),
        ("Greeting", "Greeting"),
        ("dance/s05_02", "dance"),
        ("cmu/dance/05_02", "dance"),
        ("42", "42"),
    ],
)
def test_action_of_a_sequence(name: str, expected: str) -> None:
    assert metrics.action(name) == expected


def test_breakdowns() -> None:
    errors = np.arange(4 * 17, dtype=np.float64).reshape(4, 17)
    joints = metrics.per_joint(errors)
    assert list(joints) == list(JOINTS)
    assert joints["hip"] == pytest.approx(np.mean([0, 17, 34, 51]))
    parts = metrics.per_part(errors)
    assert parts["legs"] * 7 + parts["torso"] * 10 == pytest.approx(errors.mean() * 17)
    groups = metrics.per_group(errors, np.array([0, 1, 2, 2]), ["a", "b", "a", "never"])
    assert groups == {"a": pytest.approx(errors[[0, 2, 3]].mean()), "b": pytest.approx(errors[1].mean())}
