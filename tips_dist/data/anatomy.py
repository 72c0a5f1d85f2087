"""Is this a human being, with every joint where Human3.6M has it? Checks of whole persons, in 2D and in 3D.

A single pose proves little (it may be foreshortened, bent, seen from anywhere), so everything here is asked of all
poses of a person together: medians of lengths along the trunk, upper quantiles of limbs, shares of poses. The ranges
are wide enough for people and for the differences between data sets (Human3.6M, MPI-INF-3DHP, CMU, detectors), and
narrow enough for a vertebra in the place of the thorax. What 3D says is asked while data is imported
(:class:`Examination`), because nothing but evaluation may open the truth afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tips_dist.skeleton import HEAD, JOINTS, ROOT, J

Array = npt.NDArray[Any]
LEAST = 30  # poses of a person, before anything is said about them
MOST = 3000  # poses of a person that are looked at

# Along the trunk, as shares of hip to head: (low, high). Human3.6M 0.74, 0.85; CMU's people 0.57 to 0.66, 0.86 to 0.89.
THORAX_HEIGHT = (0.52, 0.86)
NECK_HEIGHT = (0.70, 1.0)
SPINE_HEIGHT = (0.18, 0.55)
THORAX_OFF = 0.17  # of the middle of the shoulders at most; Human3.6M 0.08, CMU's people up to 0.11
# Limbs as shares of hip to head: (bone's ends on each side, low, high).
LIMBS: tuple[tuple[str, str, float, float], ...] = (
    ("hip", "knee", 0.38, 0.9),
    ("knee", "ankle", 0.38, 0.95),
    ("shoulder", "elbow", 0.24, 0.7),
    ("elbow", "wrist", 0.15, 0.6),
)
UNEQUAL = 1.25  # one side's limb against the other's
TRUNK_MM = (400.0, 1050.0)  # hip to head
SAME_PLACE = 0.005  # of the pose's size
SAME_PLACE_SHARE = 0.5  # of poses
MOST_POSES = 0.5
FORWARD_KNEES, BACKWARD_ELBOWS = 0.5, 0.3  # shares of clearly bent ones, at least; CMU's people 0.98 and 0.8
_CLEAR_BEND = 0.05  # of the limb's length
_FACING = 0.05  # of the pose's size: how far nose and knees must be to one side, before a body looks that way
_SWAPPED_BY, _SWAPPED_T = -0.005, -3.0  # see sides_swapped()


class Wrong(NamedTuple):
    """One thing that is not human about a person."""

    check: str
    text: str


@dataclass(frozen=True)
class Body:
    """Poses of one person: joints (N, 17, D) in px or mm, which are there (N, 17), and the recording of each (N,)."""

    joints: Array
    there: Array
    group: Array

    def length(self, one: int, other: int) -> Array:
        """The distance of two joints (N,), NaN where one is missing."""
        distance = np.linalg.norm(self.joints[:, one] - self.joints[:, other], axis=-1)
        return np.where(self.there[:, one] & self.there[:, other], distance, np.nan)


def wrong_with(body: Body) -> Iterator[Wrong]:
    """Everything that is not human about a person's poses, whatever the dimension: places, proportions, posture."""
    if len(body.joints) < LEAST:
        return
    trunk = body.length(ROOT, HEAD)
    known = np.isfinite(trunk)
    if known.sum() < LEAST:
        return
    long = known & (trunk >= np.nanmedian(trunk))  # seen from the side of the trunk, not along it
    yield from _places(body, trunk, long)
    yield from _proportions(body, trunk)
    yield from _merged(body)
    yield from _posture(body)


def _places(body: Body, trunk: Array, long: Array) -> Iterator[Wrong]:
    for joint, (low, high) in (("thorax", THORAX_HEIGHT), ("neck", NECK_HEIGHT), ("spine", SPINE_HEIGHT)):
        share = _median(body.length(ROOT, J[joint])[long] / trunk[long])
        if share < low or share > high:
            hint = " (a vertebra in its place?)" if joint == "thorax" and share < low else ""
            yield Wrong(
                f"{joint}_misplaced",
                f"the {joint} is at {share:.2f} of the way from hip to head, of people {low:g} to {high:g}{hint}",
            )
    shoulders = (body.joints[:, J["left_shoulder"]] + body.joints[:, J["right_shoulder"]]) / 2
    both = body.there[:, [J["left_shoulder"], J["right_shoulder"], J["thorax"]]].all(axis=1)
    off = np.linalg.norm(body.joints[:, J["thorax"]] - shoulders, axis=-1) / trunk
    share = _median(np.where(both, off, np.nan)[long])
    if share > THORAX_OFF:
        yield Wrong(
            "thorax_off_shoulders",
            f"the thorax is {share:.2f} of hip to head away from the middle of the shoulders, of people at most "
            f"{THORAX_OFF:g}",
        )


def _proportions(body: Body, trunk: Array) -> Iterator[Wrong]:
    """Upper quantiles: a limb that is seen often is seen in its full length now and then."""
    unit = np.ones(len(trunk))
    for code in np.unique(body.group):  # a recording of one camera has one scale
        rows = body.group == code
        unit[rows] = np.nanquantile(trunk[rows], 0.9) if np.isfinite(trunk[rows]).any() else np.nan
    unit[~(unit > 0)] = np.nan
    for one, other, low, high in LIMBS:
        sides = []
        for side in ("left", "right"):
            share = body.length(J[f"{side}_{one}"], J[f"{side}_{other}"]) / unit
            sides.append(float(np.nanquantile(share, 0.9)) if np.isfinite(share).sum() >= LEAST else float("nan"))
            if sides[-1] < low or sides[-1] > high:
                yield Wrong(
                    "proportions",
                    f"{side} {one} to {other} measures {sides[-1]:.2f} of hip to head, of people {low:g} to {high:g}",
                )
        if max(sides) > UNEQUAL * min(sides):
            yield Wrong("sides_unequal", f"{one} to {other} measures {sides[0]:.2f} on the left, {sides[1]:.2f} right")


def _merged(body: Body) -> Iterator[Wrong]:
    side = np.maximum(np.ptp(body.joints, axis=1).max(axis=-1), 1e-9)
    for one, other in itertools.combinations(range(len(JOINTS)), 2):
        near = body.length(one, other) / side
        near = near[np.isfinite(near)]
        if near.size >= LEAST and (near < SAME_PLACE).mean() > SAME_PLACE_SHARE:
            share = 100 * (near < SAME_PLACE).mean()
            yield Wrong("joints_in_one_place", f"{JOINTS[one]} and {JOINTS[other]} coincide in {share:.0f} % of poses")


def _posture(body: Body) -> Iterator[Wrong]:
    """y points down: in the image, and in the camera's frame."""
    there = body.there[:, HEAD] & body.there[:, ROOT]
    up = (body.joints[:, ROOT] - body.joints[:, HEAD])[there]
    aside = np.linalg.norm(np.delete(up, 1, axis=-1), axis=-1)
    if len(up) < LEAST:
        return
    down = float(((up[:, 1] < 0) & (-up[:, 1] > aside)).mean())
    lying = float((aside > 2 * np.abs(up[:, 1])).mean())  # further than a camera tilts or a trunk leans
    if down > MOST_POSES:
        yield Wrong("upside_down", f"the head is below the hips in {100 * down:.0f} % of poses (y must point down)")
    elif lying > MOST_POSES:
        yield Wrong("lying", f"the body lies in {100 * lying:.0f} % of poses (another axis up, or a turned camera?)")
    ankles = body.joints[:, [J["left_ankle"], J["right_ankle"]], 1].mean(axis=1) - body.joints[:, ROOT, 1]
    both = body.there[:, [J["left_ankle"], J["right_ankle"]]].all(axis=1)
    if both.sum() >= LEAST and down <= MOST_POSES and (ankles[both] < 0).mean() > MOST_POSES:
        yield Wrong("legs_up", f"both feet are above the hips in {100 * (ankles[both] < 0).mean():.0f} % of poses")


def facing(joints: Array) -> Array:
    """How clearly a body (N, 17, 2) looks to the right (> 0) or to the left of the image, as a share of its size.

    The nose lies before the neck and knees before the line from hip to ankle, whatever they are called.
    """
    x = joints[..., 0]
    ahead = 2 * x[:, J["neck"]] - x[:, J["thorax"]] - x[:, J["head"]]
    for side in ("left", "right"):
        ahead = ahead + x[:, J[f"{side}_knee"]] - (x[:, J[f"{side}_hip"]] + x[:, J[f"{side}_ankle"]]) / 2
    return np.asarray(ahead / np.maximum(np.ptp(joints, axis=1).max(axis=-1), 1e-9))


def sides_swapped(body: Body) -> Wrong | None:
    """Whether left and right are exchanged throughout, told from 2D alone, or None if it cannot be told.

    A camera looks down on feet, hips and mostly on shoulders, so of a body that looks to the right of the image the
    right side, which is the nearer, lies lower. Each recording gives one mean, and they must agree.
    """
    ahead = facing(body.joints)
    used = (np.abs(ahead) > _FACING) & body.there.all(axis=1)
    if used.sum() < LEAST:
        return None
    side = np.maximum(np.ptp(body.joints, axis=1).max(axis=-1), 1e-9)
    lower = np.zeros(len(side))
    for name in ("ankle", "hip", "shoulder"):
        lower += (body.joints[:, J[f"right_{name}"], 1] - body.joints[:, J[f"left_{name}"], 1]) / side
    _, group = np.unique(body.group[used], return_inverse=True)
    counts = np.bincount(group.ravel())
    means = np.bincount(group.ravel(), weights=(np.sign(ahead) * lower)[used]) / counts
    means = means[counts >= 3]
    if len(means) < 4:
        return None
    error = max(float(means.std(ddof=1)) / np.sqrt(len(means)), 1e-6)
    if means.mean() > _SWAPPED_BY or means.mean() / error > _SWAPPED_T:
        return None
    return Wrong(
        "sides_swapped",
        "left and right are exchanged: bodies that look to the right of the image have their left side nearer "
        f"(by its height, in {100 * (means < 0).mean():.0f} % of {len(means)} recordings)",
    )


# --- 3D, while it is imported --------------------------------------------------------------------------------------


class Examination:
    """What the 3D joints of an import say about each person, gathered clip by clip."""

    def __init__(self) -> None:
        self._taken: dict[str, list[Array]] = {}

    def add(self, subject: str, joints: Array) -> None:
        """Take in some of the joints (T, 17, 3) mm in the camera's frame that one recording shows of a person."""
        taken = self._taken.setdefault(subject, [])
        count = sum(map(len, taken))
        if len(joints) and count < MOST:
            step = max(1, len(joints) // 20)
            taken.append(np.asarray(joints[::step], dtype=np.float64))

    def findings(self) -> list[dict[str, str]]:
        """Everything that is not human about the persons: check, subject and text of each."""
        found = []
        for subject, taken in self._taken.items():
            joints = np.concatenate(taken)
            body = Body(joints, np.ones(joints.shape[:2], dtype=bool), np.zeros(len(joints), np.int64))
            for check, text in itertools.chain(wrong_with(body), _wrong_in_3d(body)):
                found.append({"check": check, "subject": subject, "text": f"{text} (3D)"})
        return found


def _wrong_in_3d(body: Body) -> Iterator[Wrong]:
    if len(body.joints) < LEAST:
        return
    trunk = _median(body.length(ROOT, HEAD))
    low, high = TRUNK_MM
    if not low <= trunk <= high:
        yield Wrong("body_size", f"hip to head measures {trunk:.0f} mm, of people {low:g} to {high:g}")
    knees = bends(body.joints, "hip", "knee", "ankle", ("hip", "thorax"))
    elbows = -bends(body.joints, "shoulder", "elbow", "wrist", ("hip", "thorax"))
    bent, arms = knees[np.abs(knees) > _CLEAR_BEND], elbows[np.abs(elbows) > _CLEAR_BEND]
    if bent.size >= LEAST and (bent > 0).mean() < FORWARD_KNEES:
        yield Wrong(
            "knees_backwards",
            f"{100 * (bent < 0).mean():.0f} % of bent knees bend backwards: left and right are exchanged, or depth is "
            "mirrored",
        )
    elif arms.size >= LEAST and (arms > 0).mean() < BACKWARD_ELBOWS:
        yield Wrong("elbows_backwards", f"{100 * (arms < 0).mean():.0f} % of bent elbows bend forward: arms exchanged?")


def bends(joints: Array, girdle: str, middle: str, end: str, trunk: tuple[str, str]) -> Array:
    """How far the middles of both limbs stand before the line of their ends, as shares of the limbs: (2 N,).

    Before is where the body looks: the cross product of its axis from right to left with the direction of the trunk.
    """
    axis = joints[:, J[f"left_{girdle}"]] - joints[:, J[f"right_{girdle}"]]
    forward = np.cross(axis, joints[:, J[trunk[1]]] - joints[:, J[trunk[0]]])
    forward /= np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-9)
    values = []
    for side in ("left", "right"):
        start = joints[:, J[f"{side}_{girdle}"]]
        limb, out = joints[:, J[f"{side}_{end}"]] - start, joints[:, J[f"{side}_{middle}"]] - start
        along = (out * limb).sum(axis=-1) / np.maximum((limb * limb).sum(axis=-1), 1e-9)
        out = out - along.clip(0, 1)[:, None] * limb
        values.append((out * forward).sum(axis=-1) / np.maximum(np.linalg.norm(limb, axis=-1), 1e-9))
    return np.concatenate(values)


# --- mean poses ----------------------------------------------------------------------------------------------------


def mean_poses(body: Body) -> dict[str, tuple[Array, int]]:
    """Mean pose (17, 2) from the front and from the side, in hip-to-head lengths about the hip, and of how many.

    From the front: the tenth of the poses whose left is furthest to the right of the image. From the side: those
    whose shoulders and hips are narrowest, all turned to look to the right.
    """
    whole = np.flatnonzero(body.there.all(axis=1))
    if len(whole) < 10:
        return {}
    poses, trunk = body.joints[whole], body.length(ROOT, HEAD)[whole]
    unit = np.ones(len(whole))
    for code in np.unique(body.group[whole]):
        rows = body.group[whole] == code
        unit[rows] = np.quantile(trunk[rows], 0.9)
    poses = (poses - poses[:, :1]) / np.maximum(unit, 1e-9)[:, None, None]
    width = sum(
        poses[:, J[f"left_{name}"], 0] - poses[:, J[f"right_{name}"], 0] for name in ("hip", "shoulder")
    )  # fmt: skip
    count = max(5, len(whole) // 10)
    front = np.argsort(-width, kind="stable")[:count]
    side = np.argsort(np.abs(width), kind="stable")[: 2 * count]
    ahead = facing(poses[side])
    turned = poses[side] * np.where(ahead < 0, -1.0, 1.0)[:, None, None] ** np.array([1, 0])
    clear = np.argsort(-np.abs(ahead), kind="stable")[:count]
    return {"front": (poses[front].mean(axis=0), len(front)), "side": (turned[clear].mean(axis=0), len(clear))}


def _median(values: Array) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size >= LEAST // 2 else float("nan")
