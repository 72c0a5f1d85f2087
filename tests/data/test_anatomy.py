"""What is not a human being is found, whatever way it was broken; what is one is left alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.data.importers import detectors, layouts
from tips_dist.cli import app
from tips_dist.data import anatomy, importers, inspection, procedural, store, writer
from tips_dist.files import UserError
from tips_dist.skeleton import MIRROR, J

MADE, TRUTH = procedural.generate(4000, seed=3)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
Array = Any


def checks(poses: store.Poses, record: dict[str, Any] | None = None) -> set[str]:
    return {finding.check for finding in inspection.findings_of(poses, record or {})}


def broken(change: Callable[[Array], None]) -> set[str]:
    """What is found in the 2D poses alone after a change of them."""
    poses = MADE.poses.astype(np.float64)
    change(poses)
    return checks(dataclasses.replace(MADE, poses=poses.astype(np.float32)))


def imported(change: Callable[[Array], None], tmp_path: Path) -> tuple[importers.ImportSummary, inspection.Inspection]:
    """The import and the inspection of 3D joints after a change of them, with the 2D poses as they were."""
    joints = TRUTH.astype(np.float64)
    change(joints)
    names = np.array([MADE.subject_names[code] for code in MADE.subject])
    sequences = np.array([MADE.sequence_names[code] for code in MADE.sequence])
    np.savez(
        tmp_path / "a.npz", poses=MADE.poses, joints=joints, subject=names, sequence=sequences, frame=MADE.frame,
        camera=MADE.camera,
    )  # fmt: skip
    summary = importers.import_data("arrays", tmp_path / "a.npz", tmp_path / "out")
    return summary, inspection.inspect(tmp_path / "out.pose2d.h5")


def swap_sides(joints: Array) -> None:
    joints[:] = joints[:, MIRROR]


def turn_over(joints: Array) -> None:
    joints[..., 1] = 2 * joints[:, :1, 1] - joints[..., 1]


def lay_down(joints: Array) -> None:
    rooted = joints - joints[:, :1]
    joints[..., 0], joints[..., 1] = joints[:, :1, 0] - rooted[..., 1], joints[:, :1, 1] + rooted[..., 0]


def thorax_at_a_vertebra(joints: Array) -> None:
    """Neck, shoulders and arms hang from a vertebra, as when a rig lacks the bone above it: ratio 0.44."""
    hip, head = joints[:, J["hip"]], joints[:, J["head"]]
    down = hip + 0.44 * (head - hip) - joints[:, J["thorax"]]
    for joint in (8, 11, 12, 13, 14, 15, 16):
        joints[:, joint] += down


def thorax_off(joints: Array) -> None:
    joints[:, J["thorax"]] = joints[:, J["hip"]] + 0.27 * (joints[:, J["head"]] - joints[:, J["hip"]])


def merge_head_and_neck(joints: Array) -> None:
    joints[:, J["head"]] = joints[:, J["neck"]]


def mirror_depth(joints: Array) -> None:
    joints[..., 2] = 2 * joints[:, :1, 2] - joints[..., 2]


def shrink_an_arm(joints: Array) -> None:
    joints[:, J["left_wrist"]] -= 0.6 * (joints[:, J["left_wrist"]] - joints[:, J["left_elbow"]])


BROKEN_2D: list[tuple[Callable[[Array], None], str]] = [
    (swap_sides, "sides_swapped"),
    (turn_over, "upside_down"),
    (lay_down, "lying"),
    (thorax_at_a_vertebra, "thorax_misplaced"),
    (thorax_off, "thorax_off_shoulders"),
    (merge_head_and_neck, "joints_in_one_place"),
    (shrink_an_arm, "sides_unequal"),
]


def test_people_have_no_findings_in_2d_nor_in_3d(tmp_path: Path) -> None:
    assert checks(MADE) == set()
    summary, found = imported(lambda joints: None, tmp_path)
    assert (summary["findings"], found["findings"]) == ([], [])
    assert found["persons_examined"] == f"{len(MADE.subject_names)} of {len(MADE.subject_names)}"


@pytest.mark.parametrize(("change", "check"), BROKEN_2D)
def test_what_is_broken_is_found_in_2d(change: Callable[[Array], None], check: str) -> None:
    assert check in broken(change)


@pytest.mark.parametrize(
    ("change", "check"), [*BROKEN_2D[1:], (swap_sides, "knees_backwards"), (mirror_depth, "knees_backwards")]
)
def test_what_is_broken_in_3d_is_found_by_the_import_and_kept_in_the_record(
    change: Callable[[Array], None], check: str, tmp_path: Path
) -> None:
    summary, found = imported(change, tmp_path)
    assert check in {entry["check"] for entry in summary["findings"]}
    assert check in {finding["check"] for finding in found["findings"]}
    assert any("(3D)" in warning for warning in summary["warnings"])


@pytest.mark.parametrize(("truth", "read"), [("posetrack", "coco"), ("coco", "posetrack"), ("coco", "h36m")])
def test_keypoints_in_another_order_are_found_even_if_somebody_insists(truth: str, read: str, tmp_path: Path) -> None:
    poses = np.concatenate([layouts.seen(k, 1)[0][0] for k in range(4)])
    people = [{"image_id": t, "keypoints": row.ravel().tolist()} for t, row in
              enumerate(detectors.keypoints(poses, truth))]  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(people))
    importers.import_data("coco", tmp_path / "r.json", tmp_path / "out", {"keypoints": read})
    found = inspection.inspect(tmp_path / "out.pose2d.h5")["findings"]
    assert found[0]["severity"] == "error"
    assert "keypoint_order" in {finding["check"] for finding in found}


def test_findings_are_ranked_and_name_the_persons(tmp_path: Path) -> None:
    poses = MADE.poses.copy()
    poses[30] = poses[10]
    one = MADE.subject == 2
    poses[one] = MADE.poses[one] * np.array([1, -1], np.float32) + np.array([0, 1000], np.float32)
    found = inspection.findings_of(dataclasses.replace(MADE, poses=poses), {"image_px": [1000, 1000]})
    severities = [finding.severity for finding in found]
    assert severities == sorted(severities, key=inspection.SEVERITIES.index)
    first = next(finding for finding in found if finding.check == "upside_down")
    np.testing.assert_array_equal(first.rows, np.flatnonzero(one))
    assert first.text.startswith(f"{MADE.subject_names[2]}: the head is below the hips")


def test_missing_joints_count_in_no_check() -> None:
    scores = np.ones((len(MADE), 17), np.float32)
    poses = MADE.poses.copy()
    rows = np.arange(0, len(MADE)) % 5 > 0
    for joint, parent in ((J["left_wrist"], J["left_elbow"]), (J["right_ankle"], J["right_knee"])):
        poses[rows, joint] = poses[rows, parent]
        scores[rows, joint] = 0
    assert checks(dataclasses.replace(MADE, poses=poses, scores=scores)) == set()
    assert "joints_in_one_place" in checks(dataclasses.replace(MADE, poses=poses))


def test_too_few_poses_are_said_to_be_too_few(tmp_path: Path) -> None:
    rows = np.arange(10)
    few = dataclasses.replace(
        MADE, **{name: getattr(MADE, name)[rows] for name in (*store.COLUMNS,)}
    )  # fmt: skip
    writer.write_poses(tmp_path / "p.pose2d.h5", few)
    assert inspection.inspect(tmp_path / "p.pose2d.h5")["persons_examined"].startswith("0 of ")


def test_mean_poses_show_left_on_the_right_from_the_front_and_knees_forward_from_the_side() -> None:
    body = inspection._body(MADE, np.arange(len(MADE)))
    means = anatomy.mean_poses(body)
    front, side = means["front"][0], means["side"][0]
    assert front[J["left_shoulder"], 0] > 0.1 > -0.1 > front[J["right_shoulder"], 0]
    for pose in (front, side):
        assert pose[J["head"], 1] < pose[J["hip"], 1] < pose[J["left_ankle"], 1]
    assert side[J["left_knee"], 0] > (side[J["left_hip"], 0] + side[J["left_ankle"], 0]) / 2


def test_strict_fails_on_any_finding_and_json_lists_them(tmp_path: Path) -> None:
    writer.write_poses(tmp_path / "good.pose2d.h5", MADE)
    poses = MADE.poses[:, MIRROR]
    writer.write_poses(tmp_path / "bad.pose2d.h5", dataclasses.replace(MADE, poses=poses))
    run = CliRunner().invoke
    assert run(app, ["data", "inspect", str(tmp_path / "good.pose2d.h5"), "--strict"]).exit_code == 0
    assert run(app, ["data", "inspect", str(tmp_path / "bad.pose2d.h5")]).exit_code == 0
    result = run(app, ["data", "inspect", str(tmp_path / "bad.pose2d.h5"), "--strict", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0]["check"] == "sides_swapped"


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_real_detections_of_four_cameras_are_a_person(tmp_path: Path) -> None:
    source = SHARED / "openpose_4_cameras.npz"
    summary = importers.import_data("auto", source, tmp_path / "out")
    found = inspection.inspect(tmp_path / "out.pose2d.h5")
    assert (found["findings"], summary["findings"]) == ([], [])
    assert sorted(found["cameras"]) == ["cam1", "cam2", "cam3", "cam4"]
    with pytest.raises(UserError, match="unit_mm"):
        importers.import_data("auto", source, tmp_path / "again", {"unit_mm": -1})
