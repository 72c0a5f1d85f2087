"""Where the 17 joints come from: every order gives the same body, and what is no person's is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.importers import detectors, layouts
from tips_dist.data import joint_maps
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, PARENT, J

POSES = np.concatenate([layouts.seen(k, 2)[0].reshape(-1, 17, 2) for k in range(4)])
AP_10K = [
    "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
    "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
    "right_knee", "right_back_paw",
]  # fmt: skip


@pytest.mark.parametrize("order", joint_maps.ORDERS)
def test_every_order_gives_the_joints_where_human36m_has_them(order: str) -> None:
    found, scores = joint_maps.JointMap(order, joint_maps.ORDERS[order]).apply(
        detectors.keypoints(POSES, order, 0.8), 0.3
    )
    np.testing.assert_allclose(found, detectors.expected(POSES, order), atol=1e-6)
    assert (scores == 0.8).all()
    hip, thorax = detectors.middles(POSES)
    if order != "h36m":
        np.testing.assert_allclose(found[:, J["hip"]], hip)
        np.testing.assert_allclose(found[:, J["thorax"]], thorax)


@pytest.mark.parametrize(("order", "count"), [(name, len(names)) for name, names in joint_maps.ORDERS.items()])
def test_an_order_is_told_by_how_a_body_lies_in_it(order: str, count: int) -> None:
    found, note = joint_maps.by_fit(detectors.keypoints(POSES, order), "file")
    assert len(found.names) == count
    assert found.order == order
    assert bool(note) == (order in ("posetrack", "h36m", "body_25b"))


def test_keypoints_in_which_no_body_lies_are_refused_unless_said() -> None:
    shuffled = detectors.keypoints(POSES)[:, np.random.default_rng(0).permutation(17)]
    with pytest.raises(UserError, match=r"file: no body lies in its 17 keypoints .*keypoints=coco"):
        joint_maps.by_fit(shuffled, "file")
    assert joint_maps.misfits(joint_maps.by_order("coco", 17, "file"), shuffled)
    with pytest.raises(UserError, match="19 keypoints without names; known orders have"):
        joint_maps.by_fit(np.ones((1, 19, 3)), "file")


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["nose", "Left Eye", "right_eye", "L_Ear", "rEar", "LShoulder", "RShoulder", "l_elbow", "r-elbow", "LWrist",
          "RWrist", "lhip", "rhip", "left knee", "right knee", "LAnkle", "ankle_right"], "coco"),
        (["nose", "head_bottom", "head_top", *joint_maps.ORDERS["coco"][3:]], "posetrack"),
        (["root", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax",
          "neck_base", "head", *JOINTS[11:]], "h36m"),
        (["Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine", "Thorax", "Neck/Nose", "Head",
          "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist"], "h36m"),
        (["right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
          "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
          "left_wrist"], "mpii"),
        ([*joint_maps.ORDERS["crowdpose"][:12], "top_head", "neck"], "crowdpose"),
    ],
)  # fmt: skip
def test_names_are_known_in_the_ways_they_are_written(names: list[str], order: str) -> None:
    assert joint_maps.by_names(names, "file").order == order


def test_an_order_that_nobody_knows_is_mapped_by_its_names() -> None:
    names = joint_maps.ORDERS["coco"]
    shuffled = np.random.default_rng(3).permutation(17)
    found = joint_maps.by_names([names[k] for k in shuffled], "file")
    poses, _ = found.apply(detectors.keypoints(POSES)[:, shuffled], 0.3)
    np.testing.assert_allclose(poses, detectors.expected(POSES), atol=1e-6)
    assert found.order == "named"


def test_quadrupeds_and_halves_are_refused_with_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"not a person's \(root_of_tail, left_front_paw"):
        joint_maps.by_names(AP_10K, "file")
    with pytest.raises(UserError, match="do not suffice: nothing to make left_ankle of"):
        joint_maps.by_names([name for name in joint_maps.ORDERS["coco"] if name != "left_ankle"], "file")
    with pytest.raises(UserError, match="nothing to make neck, head of"):
        joint_maps.by_names(joint_maps.ORDERS["crowdpose"][:12], "file")


def test_hidden_ears_give_way_to_the_eyes_and_a_hidden_hip_to_the_detectors_own() -> None:
    points = detectors.keypoints(POSES, "body_25")
    names = joint_maps.ORDERS["body_25"]
    points[:, [names.index("left_ear"), names.index("left_hip")], 2] = 0.1
    points[:, names.index("left_ear"), :2] = 0
    poses, scores = joint_maps.JointMap("body_25", names).apply(points, 0.3)
    np.testing.assert_allclose(poses[:, J["head"]], detectors.expected(POSES)[:, J["head"]], atol=1e-6)
    np.testing.assert_allclose(poses[:, J["hip"]], points[:, names.index("hip"), :2])
    assert (scores[:, [J["head"], J["hip"]]] == 0.9).all()
    assert (scores[:, J["left_hip"]] == 0.1).all()


def test_missing_joints_lie_at_their_parents_and_score_nothing() -> None:
    scores = np.full((len(POSES), 17), 0.9)
    scores[:, [J["left_elbow"], J["left_wrist"]]] = 0.2
    scores[0, J["hip"]] = 0.1
    poses = POSES.copy()
    poses[3, J["head"]] = np.nan
    found, kept = joint_maps.without_missing(poses, scores, 0.3)
    assert np.isfinite(found).all()
    for joint in ("left_elbow", "left_wrist"):
        np.testing.assert_array_equal(found[:, J[joint]], POSES[:, J["left_shoulder"]])
        assert (kept[:, J[joint]] == 0).all()
    np.testing.assert_array_equal(found[3, J["head"]], POSES[3, PARENT[J["head"]]])
    assert kept[3, J["head"]] == 0
    assert kept[0, J["hip"]] == 0
    assert (kept <= 1).all()
