"""Joints found in other people's skeletons: each in Human3.6M's place, whatever the rig calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.data.importers import layouts
from tips_dist.data import importers
from tips_dist.data.importers import rigs
from tips_dist.data.importers.pipeline import ImportRecord
from tips_dist.files import UserError
from tips_dist.skeleton import J

CASES = Path(__file__).resolve().parents[3].parent / "shared" / "cases"
KEEP = {"minimum_change_mm": 0.0, "stretches": 0, "cameras": 1}
# Lengths in mm of the synthetic person, and where Human3.6M has the trunk's joints, as shares of hip to head.
BONES = {
    ("left_hip", "left_knee"): 440.0, ("left_knee", "left_ankle"): 430.0, ("right_hip", "right_knee"): 440.0,
    ("right_knee", "right_ankle"): 430.0, ("left_shoulder", "left_elbow"): 290.0, ("left_elbow", "left_wrist"): 250.0,
    ("right_shoulder", "right_elbow"): 290.0, ("right_elbow", "right_wrist"): 250.0,
}  # fmt: skip
RATIOS = {"spine": 0.36, "thorax": 0.74, "neck": 0.85}
# (name, parent, offset in cm) of that person; the trunk is cut into four where it pleases the tool.
PERSON: list[tuple[str, int, Any]] = [
    ("Hips", -1, (0, 0, 0)), ("LeftUpLeg", 0, (12, -4, 0)), ("LeftLeg", 1, (0, -44, 0)), ("LeftFoot", 2, (0, -43, 0)),
    ("End", 3, (0, -5, 12)), ("RightUpLeg", 0, (-12, -4, 0)), ("RightLeg", 5, (0, -44, 0)),
    ("RightFoot", 6, (0, -43, 0)), ("End", 7, (0, -5, 12)), ("Spine", 0, (0, 8, 0)), ("Spine1", 9, (0, 11, 0)),
    ("Spine2", 10, (0, 13, 0)), ("Neck", 11, (0, 14, 0)), ("Head", 12, (0, 8, 0)), ("End", 13, (0, 9.6, 0)),
    ("LeftShoulder", 11, (3, 12, 0)), ("LeftArm", 15, (13, 0, 0)), ("LeftForeArm", 16, (29, 0, 0)),
    ("LeftHand", 17, (25, 0, 0)), ("End", 18, (8, 0, 0)), ("RightShoulder", 11, (-3, 12, 0)),
    ("RightArm", 20, (-13, 0, 0)), ("RightForeArm", 21, (-29, 0, 0)), ("RightHand", 22, (-25, 0, 0)),
    ("End", 23, (-8, 0, 0)),
]  # fmt: skip


def written(path: Path, person: list[tuple[str, int, Any]], frames: int = 20, scale: float = 1.0) -> Path:
    """A BVH file of a person that stands and moves its limbs a little."""
    generator = np.random.default_rng(0)
    angles = np.cumsum(generator.normal(0, 2, (frames, len(person), 3)), axis=0)
    angles[:, 0] = 0
    scaled = [(name, parent, tuple(scale * np.array(offset))) for name, parent, offset in person]
    path.write_text(layouts.bvh_text(angles, np.zeros((frames, 3)), scaled))
    return path


def imported(source: Path, folder: Path, options: Any = ()) -> tuple[importers.ImportSummary, Any]:
    summary = importers.import_data("bvh", source, folder / "out", KEEP | dict(options))
    with h5py.File(folder / "out.truth3d.h5") as file:
        return summary, file["joints"][:].astype(np.float64)


def human(joints: Any, bones: Any = None, within: float = 0.05) -> None:
    """It has the bones (to 1 %), Human3.6M's proportions, thorax between shoulders, and stands."""

    def distance(one: str, other: str) -> Any:
        return np.linalg.norm(joints[:, J[one]] - joints[:, J[other]], axis=-1)

    for (one, other), length in (BONES if bones is None else bones).items():
        np.testing.assert_allclose(distance(one, other), length, rtol=0.01)
    whole = distance("hip", "head")
    for joint, share in RATIOS.items():
        assert np.median(distance("hip", joint) / whole) == pytest.approx(share, rel=within), joint
    middle = (joints[:, J["left_shoulder"]] + joints[:, J["right_shoulder"]]) / 2
    assert np.median(np.linalg.norm(middle - joints[:, J["thorax"]], axis=-1) / whole) < 0.08
    np.testing.assert_allclose(
        joints[:, J["hip"]], (joints[:, J["left_hip"]] + joints[:, J["right_hip"]]) / 2, atol=0.1
    )
    assert (joints[:, J["head"], 1] < joints[:, J["left_ankle"], 1]).all()  # the camera's y points down


def renamed(change: Any) -> list[tuple[str, int, Any]]:
    return [(name if name == "End" else change(name), parent, offset) for name, parent, offset in PERSON]


UNREAL = {
    "LeftUpLeg": "thigh_l", "LeftLeg": "calf_l", "LeftFoot": "foot_l", "RightUpLeg": "thigh_r", "RightLeg": "calf_r",
    "RightFoot": "foot_r", "LeftShoulder": "clavicle_l", "LeftArm": "upperarm_l", "LeftForeArm": "lowerarm_l",
    "LeftHand": "hand_l", "RightShoulder": "clavicle_r", "RightArm": "upperarm_r", "RightForeArm": "lowerarm_r",
    "RightHand": "hand_r", "Spine": "spine_01", "Spine1": "spine_02", "Spine2": "spine_03", "Neck": "neck_01",
}  # fmt: skip
POSER = {
    "LeftUpLeg": "lThigh", "LeftLeg": "lShin", "LeftFoot": "lFoot", "RightUpLeg": "rThigh", "RightLeg": "rShin",
    "RightFoot": "rFoot", "LeftShoulder": "lCollar", "LeftArm": "lShldr", "LeftForeArm": "lForeArm",
    "LeftHand": "lHand", "RightShoulder": "rCollar", "RightArm": "rShldr", "RightForeArm": "rForeArm",
    "RightHand": "rHand", "Spine": "abdomen", "Spine1": "waist", "Spine2": "chest",
}  # fmt: skip
BIPED = {
    "LeftUpLeg": "Bip01 L Thigh", "LeftLeg": "Bip01 L Calf", "LeftFoot": "Bip01 L Foot", "LeftArm": "Bip01 L UpperArm",
    "RightUpLeg": "Bip01 R Thigh", "RightLeg": "Bip01 R Calf", "RightFoot": "Bip01 R Foot",
    "RightArm": "Bip01 R UpperArm", "LeftShoulder": "Bip01 L Clavicle", "LeftForeArm": "Bip01 L Forearm",
    "RightShoulder": "Bip01 R Clavicle", "RightForeArm": "Bip01 R Forearm", "LeftHand": "Bip01 L Hand",
    "RightHand": "Bip01 R Hand", "Head": "Bip01 Head",
}  # fmt: skip
SPINES = {"Spine": "Chest", "Spine1": "Chest2", "Spine2": "Chest3", "LeftUpLeg": "LeftHip", "RightUpLeg": "RightHip",
          "LeftLeg": "LeftKnee", "RightLeg": "RightKnee", "LeftFoot": "LeftAnkle", "RightFoot": "RightAnkle",
          "LeftShoulder": "LeftCollar", "RightShoulder": "RightCollar", "LeftArm": "LeftShoulder",
          "RightArm": "RightShoulder", "LeftForeArm": "LeftElbow", "RightForeArm": "RightElbow",
          "LeftHand": "LeftWrist", "RightHand": "RightWrist"}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        str,
        lambda name: f"mixamorig:{name}",
        lambda name: f"mixamorig_{name}",
        lambda name: UNREAL.get(name, name.lower()),
        lambda name: POSER.get(name, name.lower()),
        lambda name: BIPED.get(name, f"Bip01 {name}"),
        lambda name: SPINES.get(name, name),
    ],
    ids=["plain", "mixamo", "mixamo_", "unreal", "poser", "biped", "chest..chest4"],
)
def test_a_known_person_comes_back_whatever_its_joints_are_called(change: Any, tmp_path: Path) -> None:
    summary, joints = imported(written(tmp_path / "a.bvh", renamed(change)), tmp_path)
    human(joints)
    assert "unit taken to be cm (no unit_mm given)" in summary["notes"]


@pytest.mark.parametrize("scale", [0.01, 1 / 2.54, 1.0, 10.0])
def test_every_usual_unit_is_told_by_the_body(scale: float, tmp_path: Path) -> None:
    _, joints = imported(written(tmp_path / "a.bvh", PERSON, scale=scale), tmp_path)
    human(joints)


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_the_axis_that_points_up_is_told_by_the_body_or_stated(up: str, tmp_path: Path) -> None:
    turn = np.zeros((3, 3))
    axis, sign = "xyz".index(up[-1]), -1.0 if up.startswith("-") else 1.0
    turn[axis, 1], turn[(axis + 2) % 3, 0] = sign, 1.0
    turn[:, 2] = np.cross(turn[:, 0], turn[:, 1])
    person = [(name, parent, tuple(turn @ np.array(offset))) for name, parent, offset in PERSON]
    summary, joints = imported(written(tmp_path / "a.bvh", person), tmp_path)
    human(joints)
    assert f"up taken to be {up} (no up given)" in summary["notes"]
    human(imported(tmp_path / "a.bvh", tmp_path, {"up": up})[1])


def test_a_body_of_impossible_size_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.bvh: .*no usual unit .*; state unit_mm"):
        imported(written(tmp_path / "a.bvh", PERSON, scale=1e-4), tmp_path)
    _, joints = imported(tmp_path / "a.bvh", tmp_path, {"unit_mm": 1e5})
    human(joints)
    with pytest.raises(UserError, match=r"measures 8700 mm by unit_mm=1e\+06"):
        imported(tmp_path / "a.bvh", tmp_path, {"unit_mm": 1e6})


def test_a_head_whose_end_has_no_length_is_completed_and_noted(tmp_path: Path) -> None:
    person = [(n, p, (0, 0, 0) if n == "End" and PERSON[p][0] == "Head" else o) for n, p, o in PERSON]
    summary, joints = imported(written(tmp_path / "a.bvh", person), tmp_path)
    human(joints)
    assert any("top of the head is estimated" in note for note in summary["notes"])


def test_the_bone_that_the_cmu_conversion_lost_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "01_01.bvh").write_text(layouts.bvh_text(*layouts.bvh_angles(0)))
    summary, joints = imported(tmp_path / "01_01.bvh", tmp_path)
    assert any('"thorax"' in note and "put back" in note for note in summary["notes"])
    thorax, neck = joints[:, J["thorax"]], layouts.bvh_positions(*layouts.bvh_angles(0))
    trunk = np.linalg.norm(thorax - joints[:, J["hip"]], axis=-1) / 56.444
    lost = np.linalg.norm(neck["Neck"] - (neck["LeftUpLeg"] + neck["RightUpLeg"]) / 2, axis=-1)
    np.testing.assert_allclose(trunk - lost, 2.0, atol=0.1)
    middle = (joints[:, J["left_shoulder"]] + joints[:, J["right_shoulder"]]) / 2
    assert (np.linalg.norm(middle - thorax, axis=-1) < 60).all()


def test_names_can_be_told_and_wrong_ones_are_refused_with_the_nearest(tmp_path: Path) -> None:
    odd = {"LeftUpLeg": "Oberschenkel_Links", "Head": "Kopf"}
    source = written(tmp_path / "a.bvh", renamed(lambda name: odd.get(name, name)))
    with pytest.raises(UserError, match=r"no joint for left_hip \(such as LeftUpLeg.*names='\{left_hip: NAME\}'"):
        imported(source, tmp_path)
    names = {"left_hip": "oberschenkel_links", "head": "Kopf"}
    human(imported(source, tmp_path, {"names": names})[1])
    with pytest.raises(UserError, match=r"names: head: no joint 'Kopff' here; nearest here: Kopf"):
        imported(source, tmp_path, {"names": names | {"head": "Kopff"}})
    with pytest.raises(UserError, match="names: 'left_ear' is none of left_hip"):
        imported(source, tmp_path, {"names": {"left_ear": "Kopf"}})


def test_sides_and_parts_of_names() -> None:
    for name, expected in {
        "UpperLeg_R": ("right", "upperleg"), "thigh.L": ("left", "thigh"), "LShin": ("left", "shin"),
        "rForeArm": ("right", "forearm"), "mixamorig:RightUpLeg": ("right", "upleg"), "Leg": None, "Root": None,
        "Bip01 L Thigh": ("left", "thigh"), "LHipJoint": ("left", "hipjoint"), "l_knee": ("left", "knee"),
    }.items():  # fmt: skip
        assert rigs._sided(name) == expected, name


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not beside this checkout")
def test_the_rig_with_suffixed_names(tmp_path: Path) -> None:
    _, joints = imported(CASES / "bvh_suffix_names.bvh", tmp_path)
    human(joints, {("left_hip", "left_knee"): 420.0, ("right_knee", "right_ankle"): 410.0,
                   ("right_shoulder", "right_elbow"): 280.0, ("left_elbow", "left_wrist"): 250.0}, 0.1)  # fmt: skip
    assert len(joints) == 240


def test_a_rig_whose_arms_and_head_never_part_is_refused() -> None:
    nodes = [rigs.Node("Hips", -1)]
    for name in ("LeftUpLeg", "LeftLeg", "LeftFoot", "RightUpLeg", "RightLeg", "RightFoot", "Head", "LeftArm",
                 "LeftForeArm", "LeftHand", "RightArm", "RightForeArm", "RightHand"):  # fmt: skip
        nodes.append(rigs.Node(name, len(nodes) - 1, np.array([0.0, 1.0, 0.0])))
    with pytest.raises(UserError, match="never part"):
        rigs.find_joints(nodes, {}, ImportRecord("bvh", "a.bvh", {}), "a.bvh")
