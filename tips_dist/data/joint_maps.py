"""Where each of the 17 joints comes from, for every naming of keypoints that detectors and annotations use.

Human3.6M's joints have places: the hip midway between the hip joints, the thorax at the base of the neck between the
shoulders, the neck (nose) and the head on the way up from there. :data:`PLACES` is the one table that says of which
named keypoints each is made, in order of preference; a naming that offers none of them for a joint does not suffice
and is refused. Everything is a weighted mean of keypoints, so it holds in any image and at any scale.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, PARENT, J

Array = npt.NDArray[Any]
NECK_SHARE = 0.55  # of the way from thorax to nose
NECK_TO_HEAD = 0.45  # of the way from thorax to head, where there is no nose
HEAD_SHARE = 1.1  # of the way from thorax to the middle of the ears (or eyes)


def _sides(*names: str) -> tuple[str, ...]:
    """Each name for the left, then for the right."""
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


_LIMBS = _sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_COCO = ("nose", *_sides("eye", "ear"), *_LIMBS)
_FEET = tuple(f"{side}_{name}" for side in ("left", "right") for name in ("big_toe", "small_toe", "heel"))
_HALPE_FEET = _sides("big_toe", "small_toe", "heel")
_H36M_LEGS = tuple(f"{side}_{name}" for side in ("right", "left") for name in ("hip", "knee", "ankle"))
_OPENPOSE_ARMS = tuple(f"{side}_{name}" for side in ("right", "left") for name in ("shoulder", "elbow", "wrist"))


def _rest(what: str, count: int) -> tuple[str, ...]:
    """Keypoints that nothing here is made of (faces, hands)."""
    return tuple(f"{what}_{k}" for k in range(count))


# Keypoint order -> the names in it. Orders of the same length are told apart by how a body lies in them (fitting()).
ORDERS: dict[str, tuple[str, ...]] = {
    "coco": _COCO,
    "posetrack": ("nose", "upper_neck", "head_top", *_sides("ear"), *_LIMBS),
    "h36m": JOINTS,
    "body_25": (
        "nose", "neck", *_OPENPOSE_ARMS, "hip", *_H36M_LEGS, "right_eye", "left_eye", "right_ear", "left_ear",
        *_FEET,
    ),
    "body_25b": (*_COCO, "upper_neck", "head_top", *_FEET),
    "coco_18": ("nose", "neck", *_OPENPOSE_ARMS, *_H36M_LEGS, "right_eye", "left_eye", "right_ear", "left_ear"),
    "halpe_26": (*_COCO, "head_top", "neck", "hip", *_HALPE_FEET),
    "halpe_136": (*_COCO, "head_top", "neck", "hip", *_HALPE_FEET, *_rest("face", 68), *_rest("hand", 42)),
    "coco_wholebody": (*_COCO, *_FEET, *_rest("face", 68), *_rest("hand", 42)),
    "crowdpose": (*_LIMBS, "head_top", "neck"),
    "mpii": (
        *(f"right_{name}" for name in ("ankle", "knee", "hip")), *(f"left_{name}" for name in ("hip", "knee", "ankle")),
        "hip", "thorax", "upper_neck", "head_top",
        *(f"right_{name}" for name in ("wrist", "elbow", "shoulder")),
        *(f"left_{name}" for name in ("shoulder", "elbow", "wrist")),
    ),
    "mediapipe": (
        "nose",
        *(f"{side}_eye{part}" for side in ("left", "right") for part in ("_inner", "", "_outer")),
        *_sides("ear"), "mouth_left", "mouth_right", *_sides("shoulder", "elbow", "wrist", "pinky", "index", "thumb"),
        *_sides("hip", "knee", "ankle", "heel", "foot_index"),
    ),
}  # fmt: skip

# Other words for the same keypoint, after canonical() has done its work.
_SYNONYMS = {
    "root": "hip", "pelvis": "hip", "mid_hip": "hip", "hips": "hip", "hip_center": "hip", "center_hip": "hip",
    "belly": "spine", "torso": "spine",
    "head_bottom": "upper_neck", "top_head": "head_top", "top_of_head": "head_top", "headtop": "head_top",
    "neck_nose": "nose_neck", "mid_shoulder": "neck",
}  # fmt: skip
_SHORT = re.compile(r"(l|r)_?(shoulder|elbow|wrist|hip|knee|ankle|foot|eye|ear)")
# Words that no human keypoint holds: the files of animals share many of the other names.
_ANIMAL = re.compile(r"paw|tail|hoof|withers|(front|back|fore|hind)_?(leg|foot|feet|elbow|knee)|snout|beak|wing|thai")

_Mix = Mapping[str, float]
_HALF_WAY: _Mix = {"=hip": 0.5, "=thorax": 0.5}


def _above(share: float, *names: str) -> _Mix:
    """The place at this share of the way from the thorax to the mean of some keypoints."""
    return {"=thorax": 1 - share, **{name: share / len(names) for name in names}}


# Joint -> recipes, the best first: weights of keypoints, or of joints made before ("=thorax").
PLACES: dict[str, tuple[_Mix, ...]] = {
    "hip": ({"left_hip": 0.5, "right_hip": 0.5}, {"hip": 1}),
    "thorax": ({"thorax": 1}, {"left_shoulder": 0.5, "right_shoulder": 0.5}, {"neck": 1}),
    "spine": ({"spine": 1}, _HALF_WAY),
    "head": (
        {"head_top": 1},
        {"head": 1},
        _above(HEAD_SHARE, "left_ear", "right_ear"),
        _above(HEAD_SHARE, "left_eye", "right_eye"),
    ),
    "neck": (_above(NECK_SHARE, "nose"), _above(NECK_TO_HEAD, "=head")),
    **{f"{side}_ankle": ({f"{side}_ankle": 1}, {f"{side}_foot": 1}) for side in ("left", "right")},
    **{joint: ({joint: 1},) for joint in _LIMBS if not joint.endswith("ankle")},
}


def canonical(name: str) -> str:
    """The name as this module writes it: ``RHip``, ``r_hip`` and ``right hip`` are all ``right_hip``."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    text = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if short := _SHORT.fullmatch(text):
        text = f"{'left' if short[1] == 'l' else 'right'}_{short[2]}"
    for letter, side in (("l", "left"), ("r", "right")):
        if text.startswith(f"{letter}_"):
            text = f"{side}_{text[2:]}"
        elif text.endswith((f"_{letter}", f"_{side}")) and not text.startswith("mouth"):
            text = f"{side}_{text.rpartition('_')[0]}"
    return _SYNONYMS.get(text, text)


@dataclass(frozen=True)
class JointMap:
    """How the 17 joints are made of keypoints in a given order of names."""

    order: str  # its name in ORDERS, or "named" where only the names are known
    names: tuple[str, ...]  # canonical

    @property
    def approximate(self) -> tuple[str, ...]:
        """The joints that are not keypoints of this order but made of others."""
        return tuple(joint for joint in JOINTS if self._recipes[joint][0] != {joint: 1})

    def apply(self, keypoints: Array, minimum_score: float) -> tuple[Array, Array]:
        """Keypoints (N, K, 3: x, y, score) as poses (N, 17, 2) and scores (N, 17).

        A joint is made by the first of its recipes whose keypoints all have at least ``minimum_score``, else by the
        one that is surest; it is as sure as the least sure of its keypoints.
        """
        made: dict[str, tuple[Array, Array]] = {}
        for k, name in enumerate(self.names):
            made.setdefault(name, (keypoints[:, k, :2], keypoints[:, k, 2]))
        for joint, recipes in self._recipes.items():
            options = []
            for recipe in recipes:
                parts = [(made[name], weight) for name, weight in recipe.items()]
                place = np.sum([weight * xy for (xy, _), weight in parts], axis=0)
                options.append((place, np.min([score for (_, score), _ in parts], axis=0)))
            made[f"={joint}"] = functools.reduce(functools.partial(_surer, minimum_score), options)
        poses = np.stack([made[f"={joint}"][0] for joint in JOINTS], axis=1)
        return poses, np.stack([made[f"={joint}"][1] for joint in JOINTS], axis=1)

    @functools.cached_property
    def _recipes(self) -> dict[str, tuple[_Mix, ...]]:
        return _recipes(frozenset(self.names))


def _surer(minimum: float, first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """The first place, but the second where the first is missing and the second surer."""
    replace = (first[1] < minimum) & (second[1] > first[1])
    return np.where(replace[:, None], second[0], first[0]), np.where(replace, second[1], first[1])


def _recipes(names: frozenset[str]) -> dict[str, tuple[_Mix, ...]]:
    """The recipes that these names suffice for; a joint that they do not suffice for is absent."""
    if names >= set(JOINTS):  # Human3.6M's own joints
        return {joint: ({joint: 1},) for joint in JOINTS}
    made: dict[str, tuple[_Mix, ...]] = {}
    for joint, recipes in PLACES.items():
        known = names | {f"={done}" for done in made}
        if possible := tuple(recipe for recipe in recipes if recipe.keys() <= known):
            made[joint] = possible
    return made


def by_names(names: Sequence[str], where: str) -> JointMap:
    """The map for keypoints with these names.

    Raises:
        UserError: they are not a person's, or lack what some joint is made of.
    """
    own = tuple(map(canonical, names))
    if "nose_neck" in own or "neck_base" in own:  # Human3.6M's neck, by the names of two conversions
        own = tuple("neck" if name in ("nose_neck", "neck_base") else name for name in own)
    if {"spine", "thorax", "neck", "head", "hip"} <= {*own} and "left_ankle" not in own:
        own = tuple(name.replace("_foot", "_ankle") for name in own)
    if animal := [name for name in names if _ANIMAL.search(canonical(name))]:
        raise UserError(f"{where}: its keypoints are not a person's ({', '.join(animal[:4])}); this lifts human poses")
    lacking = [joint for joint in JOINTS if joint not in _recipes(frozenset(own))]
    if lacking:
        raise UserError(
            f"{where}: its keypoints do not suffice: nothing to make {', '.join(lacking)} of; there are "
            f"{', '.join(names[:30]) or 'none'}"
        )
    order = next((order for order, known in ORDERS.items() if known == own), "named")
    return JointMap(order, own)


def by_order(order: str, count: int, where: str) -> JointMap:
    """The map for an order of keypoints that the user named.

    Raises:
        UserError: no such order, or of another length.
    """
    if order not in ORDERS:
        raise UserError(f"{where}: keypoints={order}: unknown order; known: {', '.join(ORDERS)}")
    if len(ORDERS[order]) != count:
        raise UserError(f"{where}: {count} keypoints, but keypoints={order} has {len(ORDERS[order])}")
    return JointMap(order, ORDERS[order])


# What is never long in a body, against what: (from, to, from, to, largest median ratio). "shoulders" and "hips" are
# the middles of the two.
_SHORT_LINES: tuple[tuple[str, str, str, str, float], ...] = (
    ("left_eye", "right_eye", "nose", "shoulders", 0.6),
    ("nose", "shoulders", "shoulders", "hips", 1.0),
    ("upper_neck", "head_top", "shoulders", "hips", 0.9),
    ("head_top", "shoulders", "shoulders", "hips", 1.3),
    ("neck", "shoulders", "shoulders", "hips", 0.4),
    ("thorax", "shoulders", "shoulders", "hips", 0.4),
    ("hip", "hips", "shoulders", "hips", 0.4),
    ("left_hip", "right_hip", "shoulders", "hips", 1.0),
    ("left_shoulder", "right_shoulder", "shoulders", "hips", 1.5),
    *(
        (f"{side}_{one}", f"{side}_{other}", "shoulders", "hips", limit)
        for side in ("left", "right")
        for one, other, limit in (
            ("hip", "knee", 1.8),
            ("knee", "ankle", 1.8),
            ("shoulder", "elbow", 1.4),
            ("elbow", "wrist", 1.4),
        )
    ),
)


_HEAD = 0.35  # of the way from shoulders to the top of the head, at least, is head
_SIDES, _ENOUGH = 1.6, 20  # how unequal sides are at most, and of how many people that is asked


def misfits(joint_map: JointMap, keypoints: Array) -> list[str]:
    """What is out of place if keypoints (N, K, 3: x, y, score) stood in this order; nothing if a body lies in it.

    Medians over the people whose keypoints are there. A person's lines are short: the eyes are near each other, the
    neck is at the shoulders; in a wrong order some are not.
    """
    names = joint_map.names
    points = {name: keypoints[:, k, :2] for k, name in reversed(list(enumerate(names)))}
    there = {name: keypoints[:, k, 2] > 0 for k, name in reversed(list(enumerate(names)))}
    for name in ("shoulder", "hip"):
        pair = (f"left_{name}", f"right_{name}")
        if all(side in points for side in pair):
            points[f"{name}s"] = (points[pair[0]] + points[pair[1]]) / 2
            there[f"{name}s"] = there[pair[0]] & there[pair[1]]
    if names == JOINTS:  # Human3.6M's neck is not at the shoulders
        del points["neck"]
    seen = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of people of whom nothing is seen
        side = np.nan_to_num((np.nanmax(seen, axis=1) - np.nanmin(seen, axis=1)).max(axis=-1))
    wrong = []
    for one, other, base_one, base_other, limit in _SHORT_LINES:
        share = {"nose": 0.1, "shoulders": 0.25}.get(base_one, 0.0)
        ends = (one, other, base_one, base_other)
        if not all(end in points for end in ends):
            continue
        rows = np.logical_and.reduce([there[end] for end in ends])
        if rows.any():
            line = np.linalg.norm(points[one][rows] - points[other][rows], axis=-1)
            base = np.linalg.norm(points[base_one][rows] - points[base_other][rows], axis=-1)
            base = np.maximum(base, share * side[rows])  # a trunk that points at the camera is short
            ratio = float(np.median(line / np.maximum(base, 1e-6)))
            if ratio > limit:
                wrong.append(f"{one} to {other} is {ratio:.1f} times {base_one} to {base_other}")
    if "upper_neck" in points and "left_eye" not in points:  # else a pair of eyes passes for a head
        rows = there["upper_neck"] & there["head_top"] & there["shoulders"]
        head, below = (
            np.linalg.norm(points[one][rows] - points[other][rows], axis=-1)
            for one, other in (("upper_neck", "head_top"), ("shoulders", "head_top"))
        )
        if rows.any() and np.median(head) < _HEAD * np.median(below):
            wrong.append("upper_neck and head_top nearly coincide")
    return wrong + _unequal_sides(points, there)


def _unequal_sides(points: Mapping[str, Array], there: Mapping[str, Array]) -> list[str]:
    """Limbs that are much longer on one side than on the other, over people enough for the views to level out."""
    wrong = []
    for one, other in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
        ends = [f"{side}_{name}" for side in ("left", "right") for name in (one, other)]
        rows = np.logical_and.reduce([there.get(end, np.zeros(1, bool)) for end in ends])
        if np.count_nonzero(rows) >= _ENOUGH:
            left, right = (
                float(np.median(np.linalg.norm(points[start][rows] - points[end][rows], axis=-1)))
                for start, end in (ends[:2], ends[2:])
            )
            if max(left, right) > _SIDES * min(left, right):
                wrong.append(f"{one} to {other} is {left:.0f} px on the left and {right:.0f} px on the right")
    return wrong


def by_fit(keypoints: Array, where: str) -> tuple[JointMap, str]:
    """The map for keypoints (N, K, 3) without names: the first order of their number that a body lies in.

    Returns the map, and a note if it is not the usual order of that number.

    Raises:
        UserError: no order has that number, or a body lies in none of them.
    """
    count = keypoints.shape[1]
    orders = [JointMap(order, names) for order, names in ORDERS.items() if len(names) == count]
    if not orders:
        raise UserError(
            f"{where}: {count} keypoints without names; known orders have "
            f"{', '.join(str(n) for n in sorted({len(names) for names in ORDERS.values()}))}"
        )
    wrong = {joint_map.order: misfits(joint_map, keypoints) for joint_map in orders}
    fitting = [joint_map for joint_map in orders if not wrong[joint_map.order]]
    usual = orders[0]
    if not fitting:
        raise UserError(
            f"{where}: no body lies in its {count} keypoints in the order of {' or '.join(wrong)} "
            f"({wrong[usual.order][0]}); if it is one of them all the same, say keypoints={usual.order}"
        )
    found = fitting[0]
    if found is usual:
        return found, ""
    return found, (
        f"the order of the {count} keypoints is not {usual.order} ({wrong[usual.order][0]}): taken to be {found.order}"
    )


def without_missing(poses: Array, scores: Array, minimum_score: float) -> tuple[Array, Array]:
    """Poses and scores in which a joint below ``minimum_score`` has score 0 and lies where its parent does."""
    poses, scores = poses.copy(), np.clip(scores, 0, 1)
    for joint in range(1, len(JOINTS)):
        missing = ~(scores[:, joint] >= minimum_score) | ~np.isfinite(poses[:, joint]).all(axis=-1)
        scores[missing, joint] = 0
        poses[missing, joint] = poses[missing, PARENT[joint]]
    scores[~(scores[:, J["hip"]] >= minimum_score), J["hip"]] = 0
    return poses, scores
