"""What is particular to named arrays: any order of rows, few rows, wrong types, persons, and what is no file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.importers import layouts
from tips_dist.data import importers, instants, store
from tips_dist.data.importers import arrays as arrays_importer
from tips_dist.files import UserError

KEEP = {"minimum_change_mm": 0.0, "minimum_change_2d": 0.0, "stretches": 0}
OPENPOSE = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "openpose_4_cameras.npz"


def columns(people: int = 8, cameras: int = 2) -> dict[str, Any]:
    """Arrays of so many persons, each with a sequence of their own, camera by camera."""
    rows: dict[str, list[Any]] = {name: [] for name in ("poses", "subject", "sequence", "camera", "frame")}
    for person in range(people):
        poses, _ = layouts.seen(person, cameras)
        for camera in range(cameras):
            labels = (f"p{person}", f"walk_{person}", f"c{camera}")
            for name, values in zip(
                rows, (poses[camera], *([x] * layouts.FRAMES for x in labels), range(25)), strict=True
            ):
                rows[name].extend(values)
    return {name: np.array(values) for name, values in rows.items()}


def imported(tmp_path: Path, arrays: dict[str, Any], **options: Any) -> store.Poses:
    np.savez(tmp_path / "a.npz", **arrays)
    importers.import_data("arrays", tmp_path / "a.npz", tmp_path / "out", KEEP | options)
    return store.read_poses(tmp_path / "out.pose2d.h5")


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9])
def test_few_rows_are_read(tmp_path: Path, rows: int) -> None:
    poses = layouts.seen(0, 1)[0][0][:rows]
    read = imported(tmp_path, {"poses": poses})
    np.testing.assert_allclose(read.poses[np.argsort(read.frame)], poses, atol=1e-3)
    assert len(read.sequence_names) == rows


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pose is left to write"):
        imported(tmp_path, {"poses": np.zeros((0, 17, 2))})


@pytest.mark.parametrize(("name", "kind"), [("poses", "floats"), ("joints", "floats"), ("frame", "integers")])
def test_wrong_types_say_what_is_wanted(tmp_path: Path, name: str, kind: str) -> None:
    arrays = {"poses": layouts.seen(0, 1)[0][0], "joints": layouts.seen(0, 1)[1][0], "frame": np.arange(25)}
    arrays[name] = arrays[name].astype(int if kind == "floats" else float)
    with pytest.raises(UserError, match=f"{name} is (int|float)64, expected {kind}"):
        imported(tmp_path, arrays)


def test_the_order_of_rows_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of an instant that lie blocks apart are thinned together all the same."""
    arrays = columns()
    shuffled = np.random.default_rng(0).permutation(len(arrays["frame"]))
    monkeypatch.setattr(arrays_importer, "BLOCK", 30)
    options = {"minimum_change_2d": 0.03, "validation_subjects": ["p1", "p3"], "test_subjects": ["p5"]}
    first = imported(tmp_path, arrays, **options)
    other = imported(tmp_path, {name: values[shuffled] for name, values in arrays.items()}, **options)
    assert len(first) == len(other) < len(arrays["frame"])
    for poses in (first, other):
        groups = instants.instants(poses, np.arange(len(poses)))
        assert {len(group) for group in groups} == {2}
        assert sum(map(len, groups)) == len(poses)
    key = [sorted(zip(p.poses.sum(axis=(1, 2)).tolist(), p.frame.tolist(), strict=True)) for p in (first, other)]
    np.testing.assert_allclose(key[0], key[1])


def test_whole_persons_are_held_out_where_there_are_enough(tmp_path: Path) -> None:
    poses = imported(tmp_path, columns())
    held = [{poses.subject_names[k] for k in poses.subject[poses.rows(split)]} for split in store.SPLITS]
    assert [len(people) for people in held] == [4, 2, 2]
    assert len(set.union(*held)) == 8
    poses = imported(tmp_path, columns(), validation_subjects=["p0", "p1"], test_subjects=["p7"])
    held = [{poses.subject_names[k] for k in poses.subject[poses.rows(split)]} for split in store.SPLITS]
    assert held[1:] == [{"p0", "p1"}, {"p7"}]
    with pytest.raises(UserError, match="test_subjects: no subject 'p9' here"):
        imported(tmp_path, columns(), test_subjects=["p9"])
    with pytest.raises(UserError, match="'p1' stands in validation_subjects and in test_subjects"):
        imported(tmp_path, columns(), validation_subjects=["p1"], test_subjects=["p1"])


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    for name, words in (("pipe.npz", "pipe, socket or device"), ("folder.npz", "is a folder")):
        with pytest.raises(UserError, match=words):
            importers.import_data("arrays", tmp_path / name, tmp_path / "out")


@pytest.mark.skipif(not OPENPOSE.exists(), reason="the OpenPose file is not beside this checkout")
def test_real_detections_of_four_cameras(tmp_path: Path) -> None:
    summary = importers.import_data("arrays", OPENPOSE, tmp_path / "out")
    poses = store.read_poses(tmp_path / "out.pose2d.h5")
    assert sorted(poses.camera_names) == ["cam1", "cam2", "cam3", "cam4"]
    assert not any("does not show the body" in note for note in summary["notes"])  # the cameras are synchronous
    assert max(len(group) for group in instants.instants(poses, np.arange(len(poses)))) == 4
