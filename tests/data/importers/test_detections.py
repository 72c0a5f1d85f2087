"""What is particular to detected poses: who is followed, what is missing, what each reader refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.importers import detectors, layouts
from tests.data.importers.layouts import FRAMES
from tests.data.test_joint_maps import AP_10K
from tips_dist.data import importers, joint_maps, store
from tips_dist.data.importers import coco
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, J

ALL = {"minimum_change_2d": 0.0, "stretches": 0}


def imported(format: str, source: Path, out: Path, **options: Any) -> tuple[importers.ImportSummary, store.Poses]:
    summary = importers.import_data(format, source, out, ALL | options)
    return summary, store.read_poses(Path(summary["pose2d"]))


def pixels(number: int, order: str = "coco") -> Any:
    return detectors.keypoints(layouts.seen(number, 1)[0][0], order)


def category(names: Any, name: str = "person", number: int = 1) -> dict[str, Any]:
    return {"id": number, "name": name, "keypoints": list(names)}


def coco_file(path: Path, points: Any, categories: list[Any], number: int = 1) -> Path:
    people = [{"image_id": t, "category_id": number, "keypoints": row.ravel().tolist()} for t, row in enumerate(points)]
    path.write_text(json.dumps({"images": [], "annotations": people, "categories": categories}))
    return path


# --- COCO --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["posetrack", "h36m", "coco_wholebody", "halpe_26", "halpe_136", "crowdpose", "mpii"])
def test_coco_files_are_mapped_by_the_names_of_their_keypoints(order: str, tmp_path: Path) -> None:
    poses = layouts.seen(2, 1)[0][0]
    source = coco_file(tmp_path / "a.json", pixels(2, order), [category(joint_maps.ORDERS[order])])
    summary, found = imported("coco", source, tmp_path / "out")
    np.testing.assert_allclose(found.poses, detectors.expected(poses, order), atol=1e-3)
    assert f"keypoints: in the order of {order}" in summary["notes"]


def test_coco_files_of_animals_are_refused_and_animals_among_people_left_out(tmp_path: Path) -> None:
    points = pixels(2)
    with pytest.raises(UserError, match=r"a\.json: category dog: its keypoints are not a person's \(root_of_tail"):
        imported("coco", coco_file(tmp_path / "a.json", points, [category(AP_10K, "dog")]), tmp_path / "out")
    people = [{"image_id": t, "category_id": 1 + t % 2, "keypoints": row.ravel().tolist()} for t, row in
              enumerate(points)]  # fmt: skip
    categories = [category(joint_maps.ORDERS["coco"]), category(AP_10K, "dog", 2)]
    (tmp_path / "b.json").write_text(json.dumps({"annotations": people, "categories": categories}))
    summary, found = imported("coco", tmp_path / "b.json", tmp_path / "out")
    assert len(found) == (FRAMES + 1) // 2
    assert summary["dropped"] == {"annotations of something that is not a person": FRAMES // 2}


def test_coco_results_without_names_are_told_by_how_a_body_lies_in_them(tmp_path: Path) -> None:
    poses = np.concatenate([layouts.seen(k, 1)[0][0] for k in range(4)])
    for order in ("coco", "posetrack", "h36m"):
        people = [{"image_id": t, "keypoints": row.ravel().tolist()} for t, row in
                  enumerate(detectors.keypoints(poses, order))]  # fmt: skip
        (tmp_path / "r.json").write_text(json.dumps(people))
        summary, found = imported("coco", tmp_path / "r.json", tmp_path / "out")
        assert len(found) == 4 * FRAMES
        assert len(found.sequence_names) == 10
        order_of = np.argsort(found.frame)
        np.testing.assert_allclose(found.poses[order_of], detectors.expected(poses, order), atol=1e-3)
        assert any("taken to be" in note for note in summary["notes"]) == (order != "coco")
    with pytest.raises(UserError, match="17 keypoints, but keypoints=mpii has 16"):
        imported("coco", tmp_path / "r.json", tmp_path / "out", keypoints="mpii")
    summary, _ = imported("coco", tmp_path / "r.json", tmp_path / "out", keypoints="posetrack")
    assert any("no body lies in keypoints in the order of posetrack" in warning for warning in summary["warnings"])


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"keypoints": [1.0] * 50}, "entry 1: keypoints: 50 numbers, expected"),
        ({"keypoints": [1.0] * 57}, "entry 1: keypoints: 57 numbers, expected 51"),
        ({"keypoints": ["a"] * 51}, "entry 1: keypoints: not all are numbers"),
        ({"bbox": []}, "entry 1: keypoints: none"),
        (3, "entry 1: keypoints: none"),
        ([], "entry 1: keypoints: none"),
        ({"keypoints": [10**400] * 51}, "entry 1: keypoints: a number is too large"),
        ({"keypoints": [None] * 51}, "entry 1: keypoints: not all are numbers"),
    ],
)
def test_coco_entries_that_are_wrong_are_numbered(tmp_path: Path, entry: Any, match: str) -> None:
    good = {"image_id": 0, "keypoints": pixels(0)[0].ravel().tolist()}
    (tmp_path / "r.json").write_text(json.dumps([good, entry]))
    with pytest.raises(UserError, match=match):
        imported("coco", tmp_path / "r.json", tmp_path / "out")


def test_lifting_reads_whole_people_only(tmp_path: Path) -> None:
    points = pixels(0)
    points[3, 9, 2] = 0.1
    source = coco_file(tmp_path / "a.json", points, [])
    poses, scores, labels = coco.read_coco(source)
    assert len(poses) == len(scores) == len(labels) == FRAMES - 1
    assert labels[:4] == ["0#0", "1#1", "2#2", "4#4"]
    assert len(coco.read_coco(source, 0.05)[0]) == FRAMES


# --- missing joints ----------------------------------------------------------------------------------------------


def test_missing_joints_are_masked_and_people_without_a_trunk_dropped(tmp_path: Path) -> None:
    points = pixels(1)
    names = joint_maps.ORDERS["coco"]
    points[2, names.index("right_knee"), 2] = 0.2
    points[4, [names.index("left_hip"), names.index("right_hip")], 2] = 0
    points[6, 5:17:2, 2] = 0.1  # the whole left side
    points[8, :11, 2] = 0  # nothing above the hips
    points[10, 13:, 2] = 0  # knees and ankles
    summary, found = imported("coco", coco_file(tmp_path / "a.json", points, []), tmp_path / "out")
    assert found.scores is not None
    rows = {int(frame): k for k, frame in enumerate(found.frame)}
    assert sorted({*range(FRAMES)} - {*rows}) == [4, 6, 8]
    assert summary["dropped"] == {"people without hips and shoulders at a score of 0.3": 3}
    assert [JOINTS[j] for j in np.flatnonzero(~found.present[rows[2]])] == ["right_knee"]
    np.testing.assert_array_equal(found.poses[rows[2], J["right_knee"]], found.poses[rows[2], J["right_hip"]])
    assert found.present[rows[10]].sum() == 13
    summary, found = imported("coco", coco_file(tmp_path / "a.json", points, []), tmp_path / "out", minimum_joints=14)
    assert summary["dropped"]["people with fewer than 14 of 17 joints at a score of 0.3"] == 1


# --- several people, several cameras -----------------------------------------------------------------------------


def crowd(film: Any, other: Any) -> list[Any]:
    """Frames with one person throughout and another, first in every list, in some."""
    other = other + np.array([400, 0, 0])
    return [[*([other[t]] if 5 <= t < 15 else []), film[t]] for t in range(len(film))]


def openpose_folder(folder: Path, frames: list[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for t, people in enumerate(frames):
        content = {"version": 1.3, "people": [{"pose_keypoints_2d": p.ravel().tolist()} for p in people]}
        (folder / f"walk_{t:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def test_the_person_who_is_seen_longest_is_taken_or_everybody(tmp_path: Path) -> None:
    frames = crowd(pixels(0, "body_25"), pixels(1, "body_25"))
    source = openpose_folder(tmp_path / "video", frames)
    summary, found = imported("openpose", source, tmp_path / "main")
    np.testing.assert_allclose(
        found.poses[np.argsort(found.frame)], detectors.expected(layouts.seen(0, 1)[0][0]), atol=1e-3
    )
    assert found.subject_names == ("video",)
    assert summary["dropped"]["people beside the one of their frame who is seen longest"] == 10
    summary, found = imported("openpose", source, tmp_path / "all", people="all")
    assert len(found) == FRAMES + 10
    assert len(found.subject_names) == 2
    assert sorted(np.bincount(found.subject)) == [10, FRAMES]


def test_folders_of_openpose_are_cameras_and_frames_pair(tmp_path: Path) -> None:
    layout = layouts.LAYOUTS["openpose"](tmp_path / "x")
    _, found = imported("openpose", layout.source, tmp_path / "out")
    assert found.camera_names == ("cam1", "cam2")
    assert set(found.sequence_names) == {f"clip_{k}" for k in range(4)}
    for code in range(4):
        seen = [set(found.frame[(found.sequence == code) & (found.camera == c)]) for c in range(2)]
        assert seen[0] == seen[1] == {*range(FRAMES)} - {9}


# --- single readers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "content", "match"),
    [
        ("openpose", {"people": [{"pose_keypoints_2d": [1] * 60}]}, r"person 0: pose_keypoints_2d has 60 numbers"),
        ("openpose", {"people": [{"face_keypoints_2d": []}]}, "person 0: keypoints: none"),
        ("openpose", {"version": 1.3, "people": []}, "nobody in it"),
        ("openpose", [1], "not OpenPose's JSON"),
        ("mmpose", {"instance_info": [{"instances": [{"keypoints": [[1, 2, 3]]}]}]}, r"frame 0, person 0: keypoints:"),
        ("mmpose", {"instance_info": [{"frame_id": -1, "instances": []}]}, "frame number -1"),
        ("mmpose", [{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1]}], "keypoint_scores: expected one for each"),
        ("mmpose", {"a": 1}, "not MMPose's JSON"),
        ("ultralytics", [{"name": "car", "box": {}}], r"person 0: keypoints: none.*pose model"),
        ("ultralytics", [{"keypoints": {"x": [1], "y": [1, 2]}}], "lists x, y and visible of one length"),
        ("ultralytics", {"a": 1}, "not Ultralytics' results"),
        ("alphapose", [{"keypoints": [1] * 51}], "entry 0: not AlphaPose's results"),
        ("alphapose", [{"image_id": "1.jpg", "keypoints": [1] * 50}], "entry 0: keypoints: 50 numbers"),
        ("mediapipe", [[{"x": 0.5, "y": 0.5}] * 32], "frame 0: 32 landmarks, expected the 33"),
        ("mediapipe", [[{"x": 0.5, "y": 0.5}] * 33], r"frame 0: shares of the image, so say its size: image_px="),
        ("mediapipe", [[{"x": "a", "y": 0.5}] * 33], "frame 0: expected numbers"),
        ("mediapipe", {"a": []}, "no landmarks in it"),
    ],
)
def test_readers_say_what_is_wrong_and_where(tmp_path: Path, format: str, content: Any, match: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=match) as caught:
        imported(format, tmp_path / "x.json", tmp_path / "out")
    assert str(tmp_path / "x.json") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_label_files_need_the_size_of_the_image_and_say_their_line(tmp_path: Path) -> None:
    layout = layouts.LAYOUTS["ultralytics_labels"](tmp_path)
    with pytest.raises(UserError, match=r"image_px=\[width, height\]"):
        imported("ultralytics", layout.source, tmp_path / "out")
    path = next(tmp_path.rglob("video_3.txt"))
    path.write_text("0 0.5 0.5 0.1\n")
    with pytest.raises(UserError, match=r"video_3\.txt: line 1: 4 numbers"):
        imported("ultralytics", layout.source, tmp_path / "out", image_px=[1000, 900])


def _wide(path: Path, points: Any, field: Callable[[int, str], str]) -> Path:
    lines = ["frame," + ",".join(field(k, axis) for k in range(33) for axis in ("x", "y", "visibility"))]
    lines += [f"{t}," + ",".join(map(str, row.ravel())) for t, row in enumerate(points)]
    path.write_text("\n".join(lines))
    return path


def test_mediapipe_is_read_from_wide_tables_and_other_json(tmp_path: Path) -> None:
    points = pixels(1, "mediapipe")
    names = joint_maps.ORDERS["mediapipe"]
    fields: list[Callable[[int, str], str]] = [
        lambda k, axis: f"{axis}{k}",
        lambda k, axis: f"{axis[0]}{k + 1}",
        lambda k, axis: f"{names[k].upper()}_{axis}",
    ]
    sources = [_wide(tmp_path / f"{n}.csv", points, field) for n, field in enumerate(fields)]
    for n, content in enumerate(
        [
            {"frames": [{"frame": t, "pose_landmarks": [{"x": x, "y": y, "visibility": v} for x, y, v in row.tolist()]}
                        for t, row in enumerate(points)]},
            [[[x, y, 0.0, v] for x, y, v in row.tolist()] for row in points],
        ]
    ):  # fmt: skip
        sources.append(tmp_path / f"{n}.json")
        sources[-1].write_text(json.dumps(content))
    for source in sources:
        _, found = imported("auto", source, tmp_path / "out")
        order = np.argsort(found.frame)
        np.testing.assert_allclose(
            found.poses[order], detectors.expected(layouts.seen(1, 1)[0][0]), atol=1e-3, err_msg=str(source)
        )


def test_ultralytics_reads_one_file_of_a_whole_video(tmp_path: Path) -> None:
    frames = [
        [{"keypoints": dict(zip(("x", "y", "visible"), row.T.tolist(), strict=True))}] for row in pixels(0)
    ]  # fmt: skip
    (tmp_path / "v.json").write_text(json.dumps([[], *frames]))
    summary, found = imported("auto", tmp_path / "v.json", tmp_path / "out")
    assert summary["format"] == "ultralytics"
    assert sorted(found.frame) == list(range(1, FRAMES + 1))


# --- auto --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_auto_recognises_every_layout_and_says_by_what(name: str, tmp_path: Path) -> None:
    layout = layouts.LAYOUTS[name](tmp_path)
    summary = importers.import_data("auto", layout.source, tmp_path / "out", layout.options)
    assert summary["format"] == layout.format
    assert any(note.startswith(f"taken to be {layout.format}: ") for note in summary["notes"])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.json", b'{"shapes": [], "version": "5"}', "'version', and nobody|nobody in it"),
        ("b.json", b'{"shapes": 1}', r"not recognised \(a JSON object of shapes\); name its format"),
        ("c.json", b'[{"a": 1}]', "a JSON list of objects with a"),
        ("d.csv", b"time,speed\n1,2\n", "a CSV file with the columns time,speed"),
        ("e.bin", b"\x00\x01", "it starts with"),
        ("f", b"", "an empty file"),
        ("g.json", b'{"a": ', "not valid JSON"),
        ("h.npz", b"PK\x03\x04 rubbish", "cannot be read as .npz"),
        ("i.h5", b"\x89HDF\r\n\x1a\n rubbish", "a damaged HDF5 file"),
    ],
)
def test_auto_says_what_it_saw_where_it_knows_no_format(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=match) as caught:
        importers.import_data("auto", tmp_path / name, tmp_path / "out")
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("pipe.json", "pipe.csv", "pipe.txt"):
        os.mkfifo(tmp_path / name)
        for format in ("auto", "coco", "openpose", "mmpose", "ultralytics", "alphapose", "mediapipe"):
            options = {"image_px": [10, 10]} if format == "ultralytics" else {}
            with pytest.raises(UserError, match=name):
                importers.import_data(format, tmp_path / name, tmp_path / "out", options)
    with pytest.raises(UserError, match="aaaa"):
        importers.import_data("auto", tmp_path / ("a" * 5000), tmp_path / "out")
