"""Small files that went wrong once, in ../shared/cases: each gives the right values, or is refused in one line."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tips_dist.data import importers, inspection, joint_maps, store
from tips_dist.data.importers.unpickling import load_object
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, J

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="../shared/cases is not here")
ALL = {"minimum_change_2d": 0.0, "stretches": 0}
Array = Any


def imported(name: str, tmp_path: Path, **options: Any) -> tuple[importers.ImportSummary, store.Poses]:
    summary = importers.import_data("auto", CASES / name, tmp_path / "out", ALL | options)
    return summary, store.read_poses(tmp_path / "out.pose2d.h5")


def person(points: Array) -> dict[str, Array]:
    """The joints of the definition in docs/data.md, of keypoints (17, 2) in COCO's order."""
    at = dict(zip(joint_maps.ORDERS["coco"], np.asarray(points, dtype=float), strict=True))
    hip = (at["left_hip"] + at["right_hip"]) / 2
    thorax = (at["left_shoulder"] + at["right_shoulder"]) / 2
    ears = (at["left_ear"] + at["right_ear"]) / 2
    made = {
        "hip": hip, "thorax": thorax, "spine": (hip + thorax) / 2, "neck": 0.45 * thorax + 0.55 * at["nose"],
        "head": thorax + 1.1 * (ears - thorax),
    }  # fmt: skip
    return {joint: made.get(joint, at.get(joint)) for joint in JOINTS}


def check(pose: Array, wanted: dict[str, Array]) -> None:
    for joint, place in wanted.items():
        np.testing.assert_allclose(pose[J[joint]], place, atol=2e-3, err_msg=joint)


def test_coco_file_in_posetrack_order(tmp_path: Path) -> None:
    summary, poses = imported("coco_file_in_posetrack_order.json", tmp_path)
    content = json.loads((CASES / "coco_file_in_posetrack_order.json").read_text())
    assert len(poses) == len(content["annotations"]) == 12
    assert "keypoints: in the order of posetrack" in summary["notes"]
    for pose, entry in zip(poses.poses[np.argsort(poses.frame)], content["annotations"], strict=True):
        at = dict(
            zip(content["categories"][0]["keypoints"], np.reshape(entry["keypoints"], (17, 3))[:, :2], strict=True)
        )
        thorax = (at["left_shoulder"] + at["right_shoulder"]) / 2
        check(
            pose,
            {
                "hip": (at["left_hip"] + at["right_hip"]) / 2, "thorax": thorax, "head": at["head_top"],
                "neck": 0.45 * thorax + 0.55 * at["nose"], "left_wrist": at["left_wrist"],
                "right_ankle": at["right_ankle"],
            },
        )  # fmt: skip


def test_the_same_file_without_names_is_told_by_the_bodies_in_it(tmp_path: Path) -> None:
    content = json.loads((CASES / "coco_file_in_posetrack_order.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(content["annotations"]))
    summary = importers.import_data("coco", tmp_path / "r.json", tmp_path / "results", ALL)
    assert any("taken to be posetrack" in note for note in summary["notes"])
    named = imported("coco_file_in_posetrack_order.json", tmp_path)[1]
    unnamed = store.read_poses(tmp_path / "results.pose2d.h5")
    np.testing.assert_array_equal(unnamed.poses[np.argsort(unnamed.frame)], named.poses[np.argsort(named.frame)])
    importers.import_data("coco", tmp_path / "r.json", tmp_path / "wrong", ALL | {"keypoints": "coco"})
    findings = inspection.inspect(tmp_path / "wrong.pose2d.h5")["findings"]
    assert findings[0]["check"] == "keypoint_order"


def test_mmpose_inferencer(tmp_path: Path) -> None:
    summary, poses = imported("mmpose_inferencer.json", tmp_path)
    content = json.loads((CASES / "mmpose_inferencer.json").read_text())
    assert summary["format"] == "mmpose"
    assert sorted(poses.frame) == [0, 1, 2]
    for row, frame in enumerate(poses.frame):
        check(poses.poses[row], person(content["instance_info"][frame]["instances"][0]["keypoints"]))
    assert poses.scores is not None
    np.testing.assert_allclose(poses.scores, 0.9)


def test_ultralytics(tmp_path: Path) -> None:
    summary, poses = imported("ultralytics.json", tmp_path)
    assert summary["format"] == "ultralytics"
    keypoints = json.loads((CASES / "ultralytics.json").read_text())[0]["keypoints"]
    check(poses.poses[0], person(np.stack([keypoints["x"], keypoints["y"]], axis=-1)))
    check(poses.poses[0], {"hip": (300, 300), "left_shoulder": (340, 160), "right_ankle": (270, 500)})


def test_openpose_body25(tmp_path: Path) -> None:
    """Its 25 keypoints are a body only in the order of BODY_25B: that is noted; who insists on BODY_25 is warned."""
    summary, poses = imported("openpose_body25.json", tmp_path)
    assert summary["format"] == "openpose"
    assert any("not body_25" in note and "taken to be body_25b" in note for note in summary["notes"])
    check(poses.poses[0], {"hip": (300, 300), "left_shoulder": (340, 160), "right_ankle": (270, 500)})
    summary, poses = imported("openpose_body25.json", tmp_path, keypoints="body_25")
    assert summary["findings"][0]["check"] == "keypoint_order"
    check(poses.poses[0], {"hip": (317.5, 300), "right_shoulder": (294, 95)})
    assert inspection.inspect(tmp_path / "out.pose2d.h5")["findings"]


def test_videopose3d_custom(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allow_pickle=true"):
        imported("videopose3d_custom.npz", tmp_path)
    summary, poses = imported("videopose3d_custom.npz", tmp_path, allow_pickle=True)
    assert (summary["format"], summary["image_px"]) == ("videopose3d_custom", (1000, 1000))
    path = CASES / "videopose3d_custom.npz"
    with zipfile.ZipFile(path) as archive:
        film = load_object(archive, path, "positions_2d")["clip.mp4"]["custom"]
    film = np.asarray(film).reshape(-1, 17, 2)
    assert len(poses) == len(film) == 200
    for row in (0, 77, 199):
        check(poses.poses[row], person(film[poses.frame[row]]))


def test_bvh_with_names_of_the_side_behind(tmp_path: Path) -> None:
    """UpperLeg_L and the like: refused with the names, or read as a body without findings."""
    try:
        importers.import_data("auto", CASES / "bvh_suffix_names.bvh", tmp_path / "out")
    except UserError as error:
        assert "\n" not in str(error)
        assert "bvh_suffix_names.bvh" in str(error)
        return
    assert inspection.inspect(tmp_path / "out.pose2d.h5")["findings"] == []


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*.safetensors")) if CASES.exists() else [])
def test_weights_are_no_data_and_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not recognised") as caught:
        imported(name, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["markup_trial.json", "octal.yaml", "nolocks_shim.c", "vlbomb.h5.gz"])
def test_other_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not recognised") as caught:
        imported(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pose_file_is_not_imported_again_and_its_names_are_not_read_for_that(tmp_path: Path) -> None:
    path = tmp_path / "vlbomb.h5"
    path.write_bytes(gzip.decompress((CASES / "vlbomb.h5.gz").read_bytes()))
    with pytest.raises(UserError, match="it is a pose file already"):
        importers.import_data("auto", path, tmp_path / "out")
