"""Lifting from files: every kind of input and output, the size conventions, pictures, and refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tips_dist import views
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale
from tips_dist.data.writer import write_poses
from tips_dist.drawing import SIDE_COLOUR
from tips_dist.files import UserError
from tips_dist.lifting import Input, lift_file, read_input
from tips_dist.models import Lifter, initialise, save_weights
from tips_dist.models.student import Student
from tips_dist.runfolder import WeightsRecord
from tips_dist.skeleton import HEAD, JOINTS, REPRESENTATIONS, ROOT, J

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def poses() -> Poses:
    return procedural.generate(120, seed=5)[0]


@pytest.fixture
def student(poses: Poses, tmp_path: Path) -> Path:
    lifter = Lifter(REPRESENTATIONS["solo"], 16, blocks=1)
    initialise(lifter, [torch.Generator().manual_seed(1)])
    record = {"scale": normalisation_scale(poses), "data_digest": poses.digest, "part_signs": [1], "kind": "student"}
    save_weights(tmp_path / "student.safetensors", lifter, 0, record)
    return tmp_path / "student.safetensors"


def coco_person(pose: Floats, score: float = 0.9) -> list[float]:
    """COCO keypoints (17 of x, y, score) whose limbs are those of a pose."""
    names = {"left_ear": "head", "right_ear": "head", "left_eye": "head", "right_eye": "head", "nose": "neck"}
    order = [
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
        *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
        *("left_ankle", "right_ankle"),
    ]
    return [value for name in order for value in (*map(float, pose[J[names.get(name, name)]]), score)]


def write_coco(path: Path, poses: Floats, scores: list[float]) -> Path:
    people = [
        {"image_id": index, "category_id": 1, "keypoints": coco_person(pose, score), "score": score}
        for index, (pose, score) in enumerate(zip(poses, scores, strict=True))
    ]
    path.write_text(json.dumps(people))
    return path


def test_pose_file_to_npz_equals_the_api(student: Path, poses: Poses, tmp_path: Path) -> None:
    write_poses(tmp_path / "a.pose2d.h5", poses)
    result = lift_file(student, tmp_path / "a.pose2d.h5", tmp_path / "out.npz")
    assert (result.poses, result.size) == (120, "trained")
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["joints"], Student.load(student).lift(poses.poses))
        np.testing.assert_array_equal(out["poses"], poses.poses)
        assert out["joint_names"].tolist() == list(JOINTS)
        assert len(set(out["labels"].tolist())) > 1
        assert "no absolute scale" in json.loads(str(out["conventions"]))["unit"]


def test_json_and_csv_hold_the_same_numbers(student: Path, poses: Poses, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", poses=poses.poses[:5])
    for ending in (".npz", ".json", ".csv"):
        assert lift_file(student, tmp_path / "in.npz", tmp_path / f"out{ending}").size == "mean"
    with np.load(tmp_path / "out.npz") as out:
        expected = out["joints"]
    found = json.loads((tmp_path / "out.json").read_text())
    np.testing.assert_allclose([pose["joints"] for pose in found["poses"]], expected, atol=1e-5)
    assert found["joint_names"] == list(JOINTS)
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["joint"] for row in rows] == list(JOINTS) * 5
    np.testing.assert_allclose(
        [[float(row[axis]) for axis in "xyz"] for row in rows], expected.reshape(-1, 3), atol=1e-5
    )


def test_coco_people_below_the_score_are_left_out(student: Path, poses: Poses, tmp_path: Path) -> None:
    path = write_coco(tmp_path / "people.json", poses.poses[:4], [0.9, 0.2, 0.9, 0.5])
    result = lift_file(student, path, tmp_path / "out.json")
    assert (result.poses, result.size) == (3, "each")
    assert [pose["label"] for pose in json.loads((tmp_path / "out.json").read_text())["poses"]] == ["0#0", "2#2", "3#3"]
    assert lift_file(student, path, None, minimum_score=0.6).poses == 2
    with pytest.raises(UserError, match=r"people\.json: no person"):
        lift_file(student, path, None, minimum_score=0.95)


@pytest.mark.parametrize("named", [True, False])
def test_csv_of_one_pose(student: Path, poses: Poses, tmp_path: Path, named: bool) -> None:
    pose = poses.poses[7]
    lines = [f"{name},{x},{y}" if named else f"{x},{y}" for name, (x, y) in zip(JOINTS, pose.tolist(), strict=True)]
    if named:
        lines = ["joint,x,y", *reversed(lines)]
    (tmp_path / "pose.csv").write_text("\n".join(lines) + "\n")
    found = read_input(tmp_path / "pose.csv")
    np.testing.assert_allclose(found.poses[0], pose, rtol=1e-6)
    assert found.labels == ["pose"]
    assert lift_file(student, tmp_path / "pose.csv", None).poses == 1


def test_size_conventions(student: Path, poses: Poses, tmp_path: Path) -> None:
    factors = np.linspace(0.5, 3, 120, dtype=np.float32)[:, None, None]
    scale = normalisation_scale(poses)

    def lifted(values: Floats, size: Any) -> Floats:
        np.savez(tmp_path / "in.npz", poses=values)
        lift_file(student, tmp_path / "in.npz", tmp_path / "out.npz", size=size)
        with np.load(tmp_path / "out.npz") as out:
            return np.asarray(out["joints"])

    # "each" does not see how large a person is, "mean" not how large all are, "trained" sees both.
    np.testing.assert_allclose(lifted(poses.poses * factors, "each"), lifted(poses.poses, "each"), atol=2e-5)
    np.testing.assert_allclose(lifted(poses.poses * 2, "mean"), lifted(poses.poses, "mean"), atol=2e-5)
    assert np.abs(lifted(poses.poses * factors, "mean") - lifted(poses.poses, "mean")).max() > 0.01
    assert np.abs(lifted(poses.poses * 2, "trained") - lifted(poses.poses, "trained")).max() > 0.01
    # A pose of the training data's mean size is the same by every convention.
    one = poses.poses[:1] - poses.poses[:1, ROOT : ROOT + 1]
    one = one * np.float32(scale / 10 / np.linalg.norm(one[0, HEAD]))
    for size in ("mean", "each"):
        np.testing.assert_allclose(lifted(one, size), lifted(one, "trained"), atol=1e-5)


def test_picture_and_animation(student: Path, poses: Poses, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", poses=poses.poses[:10])
    picture, animation = tmp_path / "out.png", tmp_path / "out.gif"
    result = lift_file(student, tmp_path / "in.npz", None, picture=picture, animation=animation)
    assert result.picture is not None
    assert result.animation is not None
    assert (result.picture.poses, result.animation.frames) == (views.PICTURED_POSES, 10)
    with Image.open(picture) as image:
        assert image.size == (3 * views.CELL, views.HEADING + views.PICTURED_POSES * views.CELL)
        content = np.asarray(image)
    # Each view shows a person: both coloured sides in every third of the picture.
    for column in range(3):
        part = content[views.HEADING :, column * views.CELL : (column + 1) * views.CELL]
        for colour in (SIDE_COLOUR["left"], SIDE_COLOUR["right"]):
            assert (np.abs(part.astype(int) - colour).max(axis=-1) < 12).sum() > 100
    with Image.open(animation) as image:
        assert getattr(image, "n_frames", 1) == 10


def test_turned_views_show_depth() -> None:
    """From the side, what lay away from the camera lies to one side, and up stays up."""
    away, up = np.array([0.0, 0.0, 1.0]), np.array([0.0, -1.0, 0.0])
    side = views.turn(90, 0)
    np.testing.assert_allclose(side @ away, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(side @ up, up, atol=1e-12)
    assert (views.turn(0, 12) @ away)[1] < 0  # looking down, the far end of the ground is higher in the picture


def csv_text(change: Any = None) -> str:
    lines = [[name, "1.0", str(index)] for index, name in enumerate(JOINTS)]
    if change:
        change(lines)
    return "\n".join(",".join(line) for line in lines)


def rename(lines: list[list[str]]) -> None:
    lines[3][0] = "right_foot"


def repeat(lines: list[list[str]]) -> None:
    lines[3][0] = "hip"


def spell(lines: list[list[str]]) -> None:
    lines[3][1] = "one"


def poison(lines: list[list[str]]) -> None:
    lines[3][1] = "nan"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", csv_text(rename), "line 4: no joint 'right_foot'"),
        ("a.csv", csv_text(repeat), "no finite position for right_ankle"),
        ("a.csv", csv_text(spell), "line 4 \\(right_ankle\\): expected two numbers"),
        ("a.csv", csv_text(poison), "no finite position for right_ankle"),
        ("a.csv", csv_text(list.pop), "found 16 lines"),
        ("a.csv", "", "found 0 lines"),
        ("a.json", "{", "not valid JSON"),
        ("a.npz", "no archive", "cannot be read as .npz"),
        ("a.h5", "no hdf5", "not an HDF5 file"),
        ("a.txt", "1 2 3", "unknown ending '.txt'"),
    ],
)
def test_bad_files(student: Path, tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        lift_file(student, tmp_path / name, tmp_path / "out.npz", picture=tmp_path / "out.png")
    assert name in str(caught.value)
    assert not list(tmp_path.glob("out*"))


def test_bad_arrays_and_names(student: Path, poses: Poses, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    with pytest.raises(UserError, match=r"no such file of poses"):
        lift_file(student, path, None)
    np.savez(path, poses=np.zeros((3, 16, 2)))
    with pytest.raises(UserError, match=r"expected floats \(N, 17, 2\)"):
        lift_file(student, path, None)
    np.savez(path, poses=np.zeros((0, 17, 2)))
    with pytest.raises(UserError, match="no poses in it"):
        lift_file(student, path, None)
    bad = poses.poses[:3].copy()
    bad[1, 4, 0] = np.inf
    np.savez(path, poses=bad)
    with pytest.raises(UserError, match="pose 1 holds non-finite"):
        lift_file(student, path, None)
    np.savez(path, poses=np.zeros((3, 17, 2)))
    with pytest.raises(UserError, match="pose 0: root and head coincide"):
        lift_file(student, path, None)
    np.savez(path, poses=poses.poses[:3])
    with pytest.raises(UserError, match=r"out\.txt: unknown ending"):
        lift_file(student, path, tmp_path / "out.txt")
    with pytest.raises(UserError, match=r"out\.jpg: unknown ending"):
        lift_file(student, path, None, picture=tmp_path / "out.jpg")
    with pytest.raises(UserError, match="not a safetensors file"):
        lift_file(path, path, None)


def outcome(path: Path) -> Input | str:
    """What reading gives: the poses, or the words of the refusal; anything else is an error of ours."""
    try:
        return read_input(path)
    except UserError as error:
        return str(error)


def same(poses: Floats, cells: list[float | str]) -> bool:
    return np.array_equal(poses.ravel(), np.array(cells, dtype=np.float32))


@given(text=st.one_of(st.text(max_size=400), st.builds(lambda cells: "\n".join(cells), st.lists(st.text(max_size=30)))))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_one_pose_or_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fuzz.csv"
    path.write_text(text, encoding="utf-8", errors="replace")
    found = outcome(path)
    assert "\n" not in found if isinstance(found, str) else found.poses.shape == (1, 17, 2)


@given(
    cells=st.lists(
        st.one_of(st.floats(width=32), st.sampled_from(["", "nan", "1e999", '"', "hip"])), min_size=34, max_size=34
    )
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nearly_right_csv_is_right_or_an_error(tmp_path: Path, cells: list[float | str]) -> None:
    path = tmp_path / "fuzz.csv"
    path.write_text("\n".join(f"{x},{y}" for x, y in zip(cells[::2], cells[1::2], strict=True)))
    found = outcome(path)
    assert "\n" not in found if isinstance(found, str) else same(found.poses, cells)


def test_signs_told_pose_by_pose_mend_a_network_between_two_mirror_solutions() -> None:
    """A network that holds a third of the poses mirrored; and one that holds none loses nothing."""
    data, truth = procedural.generate(400, seed=5)
    scale = normalisation_scale(data)
    depths = torch.from_numpy(truth[..., 2] - truth[:, :1, 2])
    unit = (truth[:, HEAD] - truth[:, ROOT]) ** 2
    depths = depths / float(np.sqrt(unit.sum(-1)).mean())
    wrong = torch.where(torch.arange(len(depths)) % 3 == 0, -1.0, 1.0)[:, None]
    record = WeightsRecord(
        kind="student", representation="solo", width=16, blocks=2, batch_norm=True, scale=scale, part_signs=[-1]
    )
    student = Student(Lifter(REPRESENTATIONS["solo"], 16), record)

    def lifted(offsets: torch.Tensor, **options: Any) -> Floats:
        student.predict = lambda _: offsets
        return student.lift(data.poses, batch=len(data), **options)[..., 2]

    right = lifted(-depths)
    assert np.abs(lifted(-depths * wrong) - right).mean() > 0.1
    assert np.abs(lifted(-depths * wrong, signs="pose") - right).mean() < 0.02
    assert np.abs(lifted(-depths, signs="pose") - right).mean() < 0.002


def test_uncertainty_is_written_where_the_student_knows_it(student: Path, poses: Poses, tmp_path: Path) -> None:
    write_poses(tmp_path / "a.pose2d.h5", poses)
    with pytest.raises(UserError, match="does not know its uncertainty"):
        lift_file(student, tmp_path / "a.pose2d.h5", tmp_path / "out.npz", uncertainty=True)
    lifter = Lifter(REPRESENTATIONS["solo"], 16, blocks=1, spread=True)
    initialise(lifter, [torch.Generator().manual_seed(0)])
    save_weights(tmp_path / "knows.safetensors", lifter, 0, {"scale": 1000.0, "kind": "student", "part_signs": [1]})
    for ending in (".npz", ".json", ".csv"):
        found = lift_file(
            tmp_path / "knows.safetensors", tmp_path / "a.pose2d.h5", tmp_path / f"out{ending}", uncertainty=True
        )
        assert (found.uncertainty or 0) > 0
    with np.load(tmp_path / "out.npz") as written:
        assert written["uncertainty"].shape == (len(poses), 17)
        assert (written["uncertainty"][:, 0] == 0).all()
    assert len(json.loads((tmp_path / "out.json").read_text())["poses"][0]["uncertainty"]) == 17
    assert (tmp_path / "out.csv").read_text().startswith("pose,joint,x,y,z,uncertainty\n")
