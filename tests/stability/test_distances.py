"""Distances between reprojections and real poses, against their definitions written out pose by pose."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from tips_dist.skeleton import BONES, LEGS, TORSO
from tips_dist.stability.distances import SAMPLES, Projections, Reference, bone_vectors, two_sample


def poses(seed: int, count: int, spread: float = 0.1) -> torch.Tensor:
    return spread * torch.randn(count, 17, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL, FAKE = poses(0, 40), poses(1, 40, 0.12)


def vectors(flat: torch.Tensor) -> np.ndarray:
    """Child minus parent of every bone, x then y, times the camera's distance."""
    return np.array([[10 * (pose[c] - pose[p]) for p, c in BONES] for pose in flat.numpy()]).reshape(len(flat), 32)


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([[np.linalg.norm(a - b) for b in second] for a in first])


def test_bone_vectors_are_child_minus_parent_in_root_to_head_distances() -> None:
    np.testing.assert_allclose(bone_vectors(REAL), vectors(REAL))


def test_the_reference_knows_neighbours_and_the_median_distance() -> None:
    found = Reference.build(REAL)
    distances = apart(vectors(REAL), vectors(REAL))
    others = distances[~np.eye(40, dtype=bool)]
    np.testing.assert_allclose(found.radius, np.sort(distances, axis=1)[:, 5], rtol=1e-6)  # the 0th is itself
    median = np.sort(others)[(others.size - 1) // 2]
    np.testing.assert_allclose(found.bandwidths, [0.5 * median, median, 2 * median], rtol=1e-6)
    assert torch.isinf(found.distances.diagonal()).all()
    few = Reference.build(REAL[:3])
    np.testing.assert_allclose(few.radius, np.sort(distances[:3, :3], axis=1)[:, 2], rtol=1e-6)


def test_two_sample_statistics_by_their_definitions() -> None:
    reference, found = Reference.build(REAL), two_sample(FAKE[None], Reference.build(REAL))
    real, fake, cross = (
        apart(vectors(a), vectors(b)) for a, b in ((REAL, REAL), (FAKE, FAKE), (FAKE, REAL))
    )  # cross: (fake, real)

    def kernel(distances: np.ndarray) -> np.ndarray:
        widths = reference.bandwidths.numpy()
        mean: np.ndarray = np.mean([np.exp(-0.5 * (distances / width) ** 2) for width in widths], axis=0)
        return mean

    np.fill_diagonal(real, np.inf)
    np.fill_diagonal(fake, np.inf)
    square = kernel(real).sum() / (40 * 39) + kernel(fake).sum() / (40 * 39) - 2 * kernel(cross).mean()
    assert found["mmd"].item() == pytest.approx(np.sqrt(max(square, 0)), rel=1e-5)
    told = [fake[row].min() < cross[row].min() for row in range(40)]
    told += [real[row].min() < cross[:, row].min() for row in range(40)]
    assert found["nearest_neighbour"].item() == pytest.approx(np.mean(told))
    covered = [cross[:, row].min() <= np.sort(real[row])[4] for row in range(40)]
    assert 0.2 < np.mean(covered) < 0.98
    assert found["coverage"].item() == pytest.approx(np.mean(covered))


def test_many_poses_are_thinned_evenly() -> None:
    many = poses(2, 3 * SAMPLES)
    np.testing.assert_allclose(Reference.build(many).vectors, bone_vectors(many[::3]))


def test_sliced_distances_are_means_over_directions_of_scipys() -> None:
    """The whole along every direction; a part along the first half of them, the other joints at the root."""
    directions = torch.randn(34, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = Projections.build(REAL, directions).distances(torch.stack([FAKE, REAL]))

    def sliced(joints: tuple[int, ...], count: int) -> float:
        kept = np.isin(np.arange(17), joints)[None, :, None]
        real, fake = (10 * (flat.numpy() * kept).reshape(len(flat), 34) for flat in (REAL, FAKE))
        along = directions.numpy()[:, :count].T
        return float(np.mean([wasserstein_distance(real @ line, fake @ line) for line in along]))

    assert found[""][0].item() == pytest.approx(sliced(tuple(range(17)), 8))
    assert found["_torso"][0].item() == pytest.approx(sliced(TORSO, 4))
    assert found["_legs"][0].item() == pytest.approx(sliced(LEGS, 4))
    assert [values[1].item() for values in found.values()] == [0, 0, 0]
