"""The truth reader takes the truth that belongs to the poses, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from tests.evaluation.examples import small_poses
from tips_dist.data.store import Poses
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.evaluation.truth import read_truth
from tips_dist.files import UserError


@pytest.fixture
def poses() -> Poses:
    return small_poses()


@pytest.fixture
def joints(poses: Poses) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 300, (len(poses), 17, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, poses: Poses, joints: npt.NDArray[np.float32]) -> Path:
    write_truth(tmp_path / "a.truth3d.h5", joints, poses.digest)
    return tmp_path / "a.truth3d.h5"


def test_round_trip(path: Path, poses: Poses, joints: npt.NDArray[np.float32]) -> None:
    truth = read_truth(path, poses)
    np.testing.assert_array_equal(truth.joints, joints)
    write_truth(path, joints + 1, poses.digest)
    assert read_truth(path, poses).digest != truth.digest


def drop(name: str) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        del file[name]

    return damage


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        file.attrs[name] = value

    return damage


def replace(values: npt.NDArray[np.generic]) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        del file["joints"]
        file["joints"] = values

    return damage


def poison(file: h5py.File) -> None:
    file["joints"][7, 3, 1] = np.nan


def nudge(file: h5py.File) -> None:
    file["joints"][7, 3, 1] += 1


def elsewhere(file: h5py.File) -> None:
    del file["joints"]
    file["joints"] = h5py.ExternalLink("/etc/hostname", "/joints")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop("joints"), "expected data set /joints"),
        (attribute("schema_version", 9), "schema_version is 9"),
        (attribute("poses_digest", "0" * 64), "poses_digest is 000000000000…"),
        (replace(np.zeros((5, 17, 3), np.float32)), "/joints has 5 rows"),
        (replace(np.zeros((60, 16, 3), np.float32)), "expected float32 \\(N, 17, 3\\)"),
        (replace(np.zeros((60, 17, 3), np.int32)), "expected float32 \\(N, 17, 3\\)"),
        (poison, "/joints row 7 is not finite"),
        (nudge, "does not match the file's own digest"),
        (elsewhere, "is a link to elsewhere, which is refused"),
    ],
)
def test_refusals(path: Path, poses: Poses, damage: Callable[[h5py.File], None], words: str) -> None:
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=words) as caught:
        read_truth(path, poses)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_truth_file(path: Path, poses: Poses, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_truth(tmp_path / "nothing.h5", poses)
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(UserError, match="not an HDF5 file"):
        read_truth(text, poses)
    write_poses(tmp_path / "a.pose2d.h5", poses)
    with pytest.raises(UserError, match="not a truth file but a pose2d file"):
        read_truth(tmp_path / "a.pose2d.h5", poses)


def test_truncated_anywhere(path: Path, poses: Poses) -> None:
    content = path.read_bytes()
    for share in np.linspace(0.02, 0.98, 25):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError):
            read_truth(path, poses)


def test_flipped_bits_are_refused_or_harmless(path: Path, poses: Poses, joints: npt.NDArray[np.float32]) -> None:
    """Whatever bit flips: a clear refusal, or exactly the true joints; never a crash or silent garbage."""
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    refused: list[str] = []
    for _ in range(300):
        damaged = bytearray(content)
        for place in generator.integers(len(content), size=generator.integers(1, 4)):
            damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_truth(path, poses).joints, joints)
        except UserError as error:
            refused.append(str(error))
    assert not any("\n" in words for words in refused)
    assert len(refused) > 200  # most of the file is joints, which the digest guards
