"""What every importer must do, on small data sets in the true layouts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.data.importers import detectors
from tests.data.importers.layouts import BONES, FRAMES, LAYOUTS, Layout, Spoil
from tips_dist import skeleton
from tips_dist.data import cameras, importers, inspection, store
from tips_dist.files import UserError
from tips_dist.skeleton import J

ALL = list(LAYOUTS)
WITH_EXPECTED = [name for name in ALL if name not in ("cmu", "bvh")]
DETECTORS = ["coco", *detectors.LAYOUTS]
WITH_TRUTH = [name for name in ALL if name not in DETECTORS]
Result = tuple[importers.ImportSummary, store.Poses, Any]
KEEP_ALL = {"minimum_change_mm": 0.0, "minimum_change_2d": 0.0, "stretches": 0}


def build(name: str, tmp_path: Path, spoil: Spoil | None = None) -> Layout:
    folder = tmp_path / "source"
    folder.mkdir()
    return LAYOUTS[name](folder, spoil)


def run(
    layout: Layout, tmp_path: Path, name: str = "out", options: Any = ()
) -> tuple[importers.ImportSummary, store.Poses, Any]:
    summary = importers.import_data(layout.format, layout.source, tmp_path / name, layout.options | dict(options))
    poses = store.read_poses(tmp_path / f"{name}.pose2d.h5")
    joints: Any = None
    if summary["truth3d"] is not None:
        with h5py.File(summary["truth3d"]) as file:
            assert file.attrs["poses_digest"] == poses.digest
            joints = file["joints"][:]
    return summary, poses, joints


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Result]]:
    """The import of a layout with its defaults, made once for all tests that only look at it."""

    @functools.cache
    def once(name: str) -> tuple[Path, Result]:
        folder = tmp_path_factory.mktemp(name)
        return folder, run(build(name, folder), folder)

    return once


def format_of(name: str) -> str:
    return detectors.LAYOUTS[name][0] if name in detectors.LAYOUTS else name.removesuffix("_npz").removesuffix("_hdf5")


def nothing_written(tmp_path: Path) -> bool:
    return {path.name for path in tmp_path.iterdir()} <= {"source"}


def test_every_format_has_a_layout_here() -> None:
    assert {format_of(name) for name in ALL} == set(importers.FORMATS)


@pytest.mark.parametrize("name", ALL)
def test_files_agree_with_each_other_and_with_the_summary(name: str, imported: Any) -> None:
    folder, (summary, poses, joints) = imported(name)
    assert summary["digest"] == poses.digest
    assert summary["kept"] == summary["seen"] - sum(summary["dropped"].values())
    assert len(poses) == summary["kept"] + summary["in_stretches"]
    assert summary["splits"] == {split: len(poses.rows(split)) for split in store.SPLITS}
    record = inspection.inspect(folder / "out.pose2d.h5")["record"]
    assert record["dropped"] == summary["dropped"]
    assert record["format"] == format_of(name)
    assert (joints is not None) == (name in WITH_TRUTH)
    if joints is not None:
        assert joints.shape == (len(poses), 17, 3)
        assert (joints[..., 2] > 1000).all()  # in front of the camera


@pytest.mark.parametrize("name", WITH_EXPECTED)
def test_what_went_in_comes_out(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    _, poses, joints = run(layout, tmp_path, options=KEEP_ALL)
    found = set()
    for s, c in set(zip(poses.sequence.tolist(), poses.camera.tolist(), strict=True)):
        rows = np.flatnonzero((poses.sequence == s) & (poses.camera == c))
        key = poses.sequence_names[s], poses.camera_names[c]
        expected = layout.clips[key]
        found.add(key)
        assert {store.SPLITS[code] for code in poses.split[rows]} == {expected.split}
        np.testing.assert_array_equal(poses.frame[rows], expected.frames)
        np.testing.assert_allclose(poses.poses[rows], expected.poses, atol=0.01)
        if joints is not None and expected.joints is not None:
            # VideoPose3D's cameras are calibrated, so their truth is exact to some millimetres only.
            atol = 8.0 if name == "h36m_videopose3d" else 0.01
            np.testing.assert_allclose(joints[rows], expected.joints, atol=atol)
            rooted = joints[rows] - joints[rows, :1]
            np.testing.assert_allclose(rooted, expected.joints - expected.joints[:, :1], atol=min(atol, 2.0))
    assert found == set(layout.clips)


@pytest.mark.parametrize("name", WITH_TRUTH)
def test_left_is_left_knees_bend_forward_and_bodies_stand_upright(name: str, imported: Any) -> None:
    _, _, joints = imported(name)[1]
    x = {joint: joints[:, index].astype(np.float64) for joint, index in J.items()}
    forward = np.cross(x["left_hip"] - x["right_hip"], x["thorax"] - x["hip"])
    for side in ("left", "right"):
        middle = (x[f"{side}_hip"] + x[f"{side}_ankle"]) / 2
        assert (((x[f"{side}_knee"] - middle) * forward).sum(axis=-1) > 0).mean() > 0.9
    assert (x["head"][:, 1] < x["hip"][:, 1]).mean() > 0.95
    assert (x["left_ankle"][:, 1] > x["hip"][:, 1]).mean() > 0.95


@pytest.mark.parametrize("name", ["cmu", "bvh"])
def test_virtual_cameras_see_what_the_truth_says(name: str, imported: Any) -> None:
    _, poses, joints = imported(name)[1]
    np.testing.assert_allclose(cameras.pinhole(joints), poses.poses, atol=0.01)


@pytest.mark.parametrize("name", ALL)
def test_sequences_never_cross_splits_and_bones_are_constant(name: str, imported: Any) -> None:
    _, poses, joints = imported(name)[1]
    for code in range(len(poses.sequence_names)):
        assert np.unique(poses.split[poses.sequence == code]).size == 1
    if joints is not None:
        for code in np.unique(poses.sequence):
            shin = np.linalg.norm(joints[:, 2] - joints[:, 3], axis=-1)[poses.sequence == code]
            assert shin.std() < 2


@pytest.mark.parametrize(
    "name", sorted({*WITH_TRUTH} - {"bvh"})
)  # BVH has rigs of its own: data/importers/test_rigs.py
def test_a_known_person_comes_back_with_every_joint_in_its_place(name: str, imported: Any) -> None:
    _, (_, _, joints) = imported(name)

    def distance(one: str, other: str) -> Any:
        return np.linalg.norm(joints[:, J[one]] - joints[:, J[other]], axis=-1)

    for parent, child in skeleton.BONES:
        length = distance(skeleton.JOINTS[parent], skeleton.JOINTS[child])
        np.testing.assert_allclose(length, BONES[skeleton.JOINTS[child]], rtol=0.01)
    for joint, share in (("spine", 0.36), ("thorax", 0.74), ("neck", 0.85)):  # measured on poses of Human3.6M
        assert np.median(distance("hip", joint) / distance("hip", "head")) == pytest.approx(share, rel=0.05), joint


@pytest.mark.parametrize("name", ALL)
def test_the_same_import_twice_is_the_same(name: str, tmp_path: Path, imported: Any) -> None:
    assert run(build(name, tmp_path), tmp_path)[1].digest == imported(name)[1][1].digest


@pytest.mark.parametrize("name", ALL)
def test_near_copies_are_thinned_by_the_stated_threshold(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    everything, _, _ = run(layout, tmp_path, "all", options=KEEP_ALL)
    some, poses, joints = run(
        layout, tmp_path, "some", KEEP_ALL | {"minimum_change_mm": 60.0, "minimum_change_2d": 0.04}
    )
    assert (
        some["kept"]
        < everything["kept"]
        == some["seen"] - sum(count for why, count in some["dropped"].items() if "near-copies" not in why)
    )
    if joints is None and len(poses.camera_names) > 1:
        return  # an instant is kept in all views when one of them moved
    shapes = (poses.poses if joints is None else joints).astype(np.float64)
    shapes = shapes - shapes[:, :1]
    size = np.ptp(poses.poses, axis=1).max(axis=-1)
    code = poses.sequence * 100 + poses.camera
    for row in np.flatnonzero(code[1:] == code[:-1]):
        moved = np.linalg.norm(shapes[row + 1] - shapes[row], axis=-1).max()
        assert moved > (0.0399 * size[row] / 1.5 if joints is None else 59.9)


def _lose_a_frame(poses: Any, joints: Any) -> None:
    poses[:, 4] = np.nan
    joints[:, 4] = np.nan


@pytest.mark.parametrize("name", ALL)
def test_frames_that_are_not_finite_are_dropped_and_counted(name: str, tmp_path: Path) -> None:
    summary, poses, _ = run(build(name, tmp_path, _lose_a_frame), tmp_path, options=KEEP_ALL)
    clips = summary["seen"] // FRAMES
    bad = sum(n for why, n in summary["dropped"].items() if "not finite" in why or "not valid" in why or "score" in why)
    assert bad >= clips
    if name not in ("mpi_inf_3dhp_test", "coco"):
        assert 4 + (name == "h36m_fetch") not in poses.frame


def _in_metres(_: Any, joints: Any) -> None:
    joints /= 1000


@pytest.mark.parametrize("name", sorted({*WITH_TRUTH} - {"bvh", "h36m_videopose3d"}))
def test_another_unit_is_refused(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path, _in_metres)
    with pytest.raises(UserError, match=r"not in millimetres.*metres\?"):
        run(layout, tmp_path)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_missing_empty_and_foreign_sources_are_refused(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    folder = tmp_path / "source"
    empty = folder / "empty"
    empty.mkdir()
    foreign = folder / ("foreign" + layout.source.suffix)
    foreign.write_bytes(b"not what you expect" * 100)
    for source in (folder / "none", empty, foreign):
        with pytest.raises(UserError) as caught:
            importers.import_data(layout.format, source, tmp_path / "out", layout.options)
        assert str(source) in str(caught.value)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_short_is_refused(name: str, share: float, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    for path in (tmp_path / "source").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError) as caught:
        run(layout, tmp_path)
    assert str(tmp_path / "source") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_an_option_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    stranger = "minimum_score" if name not in DETECTORS else "cameras"
    with pytest.raises(UserError, match=f"{stranger} means nothing"):
        run(layout, tmp_path, options={stranger: 1})
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("name", ["h36m_fetch", "h36m_videopose3d", "mpi_inf_3dhp"])
def test_validation_subjects_can_be_chosen_and_must_exist(name: str, tmp_path: Path) -> None:
    layout = build(name, tmp_path)
    _, poses, _ = run(layout, tmp_path, options={"validation_subjects": ["S1"]})
    assert {poses.subject_names[k] for k in poses.subject[poses.rows("validation")]} == {"S1"}
    with pytest.raises(UserError, match=r"no subject 'S77' here; there are S1, "):
        run(layout, tmp_path, "again", {"validation_subjects": ["S77"]})


@pytest.mark.parametrize("name", ["h36m_fetch", "h36m_videopose3d", "mpi_inf_3dhp"])
def test_all_training_persons_may_be_learnt_from_and_whole_sequences_of_theirs_decide(
    name: str, tmp_path: Path
) -> None:
    layout = build(name, tmp_path)
    _, before, _ = run(layout, tmp_path)
    _, after, _ = run(layout, tmp_path, "shared", {"validation_share": 0.3})
    sequences = {split: {*after.sequence[after.rows(split)]} for split in ("train", "validation", "test")}
    assert len(sequences["validation"]) == 2  # at least, for one says little
    assert sequences["train"]
    assert not sequences["train"] & sequences["validation"]
    names = [{poses.subject_names[k] for k in poses.subject[poses.rows("test")]} for poses in (before, after)]
    assert names[0] == names[1]
    with pytest.raises(UserError, match="validation_share and validation_subjects are both set"):
        run(layout, tmp_path, "again", {"validation_share": 0.3, "validation_subjects": ["S1"]})
