"""Plausible human motion without any data: a kinematic tree with joint limits, driven by gait, reach, crouch and turn.

Every row is a pure function of its sequence's random parameters and of time, so all rows are computed at once.
World frame while posing: x to the body's left, y up, z forward, millimetres; angles in degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from tips_dist.data import cameras as rigs
from tips_dist.data.store import POSE_SUFFIX, TRUTH_SUFFIX, Poses
from tips_dist.data.writer import write_dataset
from tips_dist.files import JSON, UserError
from tips_dist.skeleton import JOINTS, MIRROR, J

Floats = npt.NDArray[np.float64]
Draw = Callable[[float, float], Floats]  # a parameter per sequence, uniform in a range, repeated for its rows
Angles = dict[str, Floats]

FRAME_RATE_HZ = 10.0
ACTIONS = ("gait", "reach", "crouch", "turn")
CAMERAS = 2  # that see each sequence at the same moments, unless more or fewer are asked for
CLIP = 25  # about as many rows per sequence and camera
SUBJECTS = 12
LEAST = 40  # poses: fewer would leave a split empty

# Joint limits in degrees; every channel of the tree is here. Legs and arms have theirs once for each side.
LIMITS: dict[str, tuple[float, float]] = {
    "heading": (-1e9, 1e9),
    "pelvis_lean": (-10, 60), "pelvis_side": (-15, 15), "pelvis_twist": (-30, 30),
    "chest_lean": (-15, 60), "chest_side": (-30, 30), "chest_twist": (-50, 50),
    "head_nod": (-35, 45), "head_side": (-25, 25), "head_twist": (-65, 65),
}  # fmt: skip
SIDED: dict[str, tuple[float, float]] = {
    "hip_flex": (-25, 120), "hip_spread": (-12, 40), "hip_rotation": (-25, 35), "knee": (0, 145),
    "shoulder_flex": (-45, 165), "shoulder_spread": (2, 140), "shoulder_rotation": (-70, 25), "elbow": (3, 145),
}  # fmt: skip
SIDES = ("left", "right")
LIMITS |= {f"{side}_{name}": limits for side in SIDES for name, limits in SIDED.items()}

# Mean bone vectors of an adult in the rest pose (mm), left side; the right side mirrors it.
REST: dict[str, float | tuple[float, float, float]] = {
    "hips": (125.0, -40.0, 0.0), "thigh": 445.0, "shin": 430.0, "spine": 230.0, "chest": 250.0,
    "neck": (0.0, 115.0, 45.0), "head": (0.0, 110.0, -15.0), "shoulders": (155.0, -15.0, 0.0),
    "upper_arm": 285.0, "forearm": 255.0,
}  # fmt: skip


@dataclass(frozen=True)
class Grouping:
    """Which rows belong together: one entry per sequence, and per row its sequence, camera and frame."""

    subject: npt.NDArray[np.int32]  # (sequences,)
    action: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    sequence: npt.NDArray[np.int32]  # (N,)
    view: npt.NDArray[np.int32]
    frame: npt.NDArray[np.int32]
    cameras: int  # per sequence

    @property
    def clip(self) -> npt.NDArray[np.int32]:
        """Which sequence by which camera, (N,)."""
        return self.sequence * np.int32(self.cameras) + self.view


def generate(poses: int, seed: int, cameras: int = CAMERAS) -> tuple[Poses, npt.NDArray[np.float32]]:
    """Make ``poses`` 2D poses and their truth (N, 17, 3) in mm, camera frame; the same for the same arguments.

    Each sequence is seen by so many ``cameras`` at the same moments: two or more give instants, whose views must agree.

    Raises:
        UserError: fewer poses than the three splits need.
    """
    least = max(LEAST, LEAST // CAMERAS * cameras)
    if poses < least:
        raise UserError(f"procedural.poses: {poses} are too few for three splits, ask for at least {least}")
    generator = np.random.default_rng(seed)
    plan = _plan(poses, cameras)
    bodies = _bodies(generator, plan)
    angles = _motion(generator, plan)
    joints = _posed(angles, bodies)
    mirrored = (generator.random(len(plan.subject)) < 0.5)[plan.sequence]
    joints[mirrored] = joints[mirrored][:, MIRROR] * [-1.0, 1.0, 1.0]
    clip = plan.clip
    views = rigs.scattered(generator, len(plan.subject) * cameras)
    views = rigs.Cameras(views.azimuth[clip], views.tilt[clip], views.distance[clip])
    truth, pixels = views.view(joints)
    return (
        Poses(
            poses=pixels,
            subject=plan.subject[plan.sequence],
            sequence=plan.sequence,
            camera=plan.view,
            frame=plan.frame,
            split=plan.split[plan.sequence],
            subject_names=tuple(f"subject_{k:02d}" for k in range(int(plan.subject.max()) + 1)),
            sequence_names=tuple(f"{ACTIONS[a]}_{k:04d}" for k, a in enumerate(plan.action)),
            camera_names=tuple(f"view_{k}" for k in range(cameras)),
            source=f"procedural motion, {poses} poses, seed {seed}"
            + ("" if cameras == CAMERAS else f", {cameras} cameras"),
            frame_rate_hz=FRAME_RATE_HZ,
        ),
        truth,
    )


class GenerationSummary(TypedDict):
    """What was generated; the first five keys stand in the pose file too."""

    source: str
    poses: int
    seed: int
    cameras: int
    dropped: dict[str, int]
    splits: dict[str, int]
    pose2d: str
    truth3d: str
    digest: str


def write(prefix: Path, poses: int, seed: int, cameras: int = CAMERAS) -> GenerationSummary:
    """Generate and write ``PREFIX.pose2d.h5`` and ``PREFIX.truth3d.h5``, both or neither; returns a summary."""
    made, joints = generate(poses, seed, cameras)
    pose_path, truth_path = (
        prefix.with_name(prefix.name + POSE_SUFFIX), prefix.with_name(prefix.name + TRUTH_SUFFIX),
    )  # fmt: skip
    record: dict[str, JSON] = {"source": made.source, "poses": poses, "seed": seed, "cameras": cameras, "dropped": {}}

    def fill(writer: Any) -> None:
        writer.append(vars(made), joints)
        names = {key: getattr(made, key) for key in ("subject_names", "sequence_names", "camera_names")}
        writer.finish(names, made.source, made.frame_rate_hz, record)

    write_dataset(pose_path, truth_path, fill)
    counts = {split: len(made.rows(split)) for split in ("train", "validation", "test")}
    return {
        "source": made.source,
        "poses": poses,
        "seed": seed,
        "cameras": cameras,
        "dropped": {},
        "splits": counts,
        "pose2d": str(pose_path),
        "truth3d": str(truth_path),
        "digest": made.digest,
    }


def _plan(poses: int, cameras: int) -> Grouping:
    sequences = max(10, round(poses / (CLIP * cameras)))
    subjects = int(np.clip(sequences // 12, 1, SUBJECTS))
    number = np.arange(sequences)
    turn = number // subjects  # the how-manieth sequence of its subject
    clips = np.array_split(np.arange(poses), sequences * cameras)
    lengths = np.array([len(clip) for clip in clips])
    clip = np.repeat(np.arange(len(clips)), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Grouping(
        subject=(number % subjects).astype(np.int32),
        action=((turn + number % subjects) % len(ACTIONS)).astype(np.int32),
        split=np.select([turn % 10 == 7, turn % 10 == 8], [1, 2], 0).astype(np.int8),
        sequence=(clip // cameras).astype(np.int32),
        view=(clip % cameras).astype(np.int32),
        frame=(np.arange(poses) - starts).astype(np.int32),
        cameras=cameras,
    )


def _bodies(generator: np.random.Generator, plan: Grouping) -> dict[str, Floats]:
    """Bone vectors or lengths per row, constant within a subject, symmetric."""
    subjects = int(plan.subject.max()) + 1
    height = generator.normal(1.0, 0.06, subjects).clip(0.85, 1.15)
    row = plan.subject[plan.sequence]
    bodies = {}
    for name, rest in REST.items():
        scale = height * generator.normal(1.0, 0.04, subjects).clip(0.88, 1.12)
        bodies[name] = (scale.reshape(-1, *[1] * np.ndim(rest)) * np.asarray(rest))[row]
    return bodies


# --- motion: angles over time ------------------------------------------------------------------------------------


def _motion(generator: np.random.Generator, plan: Grouping) -> Angles:
    """Every channel for every row: the action's cycle, individual sway on top, clipped to the joint limits."""
    n, time = len(plan.sequence), plan.frame / FRAME_RATE_HZ
    sequences = len(plan.subject)

    def draw(low: float, high: float) -> Floats:
        return generator.uniform(low, high, sequences)[plan.sequence]

    duration = np.bincount(plan.clip).max() / FRAME_RATE_HZ
    channels: Angles = {name: np.zeros(n) for name in LIMITS}
    for number, action in enumerate(_CYCLES):
        rows = plan.action[plan.sequence] == number
        for name, values in action(time, duration, draw).items():
            channels[name] = np.where(rows, values, channels[name])
    for name, (low, high) in LIMITS.items():
        if name != "heading":
            sway = draw(-4, 4) + draw(0, 3) * np.sin(2 * np.pi * draw(0.1, 0.6) * time + draw(0, 6.28))
            channels[name] = np.clip(channels[name] + sway, low, high)
    return channels


def _gait(time: Floats, duration: float, draw: Draw) -> Angles:
    """Walking and running: arms opposite to the legs, a knee bent most while its leg swings forward."""
    vigour = draw(0.15, 1.0) ** 1.3  # 0 strolls, 1 runs
    phase = 2 * np.pi * (0.7 + 0.7 * vigour) * time + draw(0, 6.28)
    stride, lift = 14 + 26 * vigour, 40 + 55 * vigour
    swing, bend = draw(6, 16) + 34 * vigour, draw(5, 30) + 65 * vigour**2
    angles: Angles = {
        "heading": draw(-25, 25) * time,
        "pelvis_twist": -(3 + 6 * vigour) * np.sin(phase),
        "pelvis_side": 3 * np.cos(phase),
        "pelvis_lean": 2 + 8 * vigour**2,
        "chest_lean": draw(-2, 8),
        "chest_twist": (6 + 10 * vigour) * np.sin(phase),
        "head_twist": draw(-20, 20),
        "head_nod": draw(-8, 15),
    }
    for side, cycle in zip(SIDES, (phase, phase + np.pi), strict=True):
        swinging = np.clip(np.cos(cycle - 0.4), 0, None) ** 1.5
        angles |= {
            f"{side}_hip_flex": 8 + 8 * vigour + stride * np.sin(cycle) + 10 * vigour * swinging,
            f"{side}_knee": 6 + 8 * vigour + lift * swinging,
            f"{side}_hip_spread": draw(-1, 5),
            f"{side}_hip_rotation": draw(0, 10),
            f"{side}_shoulder_flex": 2 - swing * np.sin(cycle),
            f"{side}_shoulder_spread": draw(5, 14),
            f"{side}_shoulder_rotation": -draw(0, 25),
            f"{side}_elbow": bend + 0.35 * swing * (1 - np.sin(cycle)),
        }
    return angles


def _reach(time: Floats, duration: float, draw: Draw) -> Angles:
    """Standing and reaching with one arm or both, out and back, the trunk and the gaze going along."""
    angles: Angles = {
        "heading": draw(-15, 15) * time,
        "pelvis_side": draw(-5, 5) * np.sin(2 * np.pi * draw(0.2, 0.5) * time),
        "head_nod": draw(-15, 15),
    }
    lean: Floats = np.zeros_like(time)
    twist: Floats = np.zeros_like(time)
    for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
        out = draw(-0.6, 1).clip(0, 1) ** 0.5 if side == "right" else draw(0.5, 1)
        out = out * np.sin(np.pi * (draw(0.25, 0.6) * time + draw(0, 1))) ** 2
        lean, twist = lean + draw(0, 14) * out, twist - sign * draw(0, 22) * out
        angles |= {
            f"{side}_hip_flex": draw(0, 8) + 6 * out,
            f"{side}_knee": draw(2, 12) + draw(0, 15) * out,
            f"{side}_hip_spread": draw(2, 14),
            f"{side}_hip_rotation": draw(0, 20),
            f"{side}_shoulder_flex": draw(-10, 15) + draw(25, 135) * out,
            f"{side}_shoulder_spread": draw(5, 20) + draw(-5, 75) * out,
            f"{side}_shoulder_rotation": -draw(0, 40),
            f"{side}_elbow": draw(10, 50) + draw(-10, 75) * (1 - out) * out * 2 + draw(0, 60) * (1 - out),
        }
    return angles | {"pelvis_lean": 0.5 * lean, "chest_lean": lean, "chest_twist": twist, "head_twist": 0.8 * twist}


def _crouch(time: Floats, duration: float, draw: Draw) -> Angles:
    """Squatting or sitting down and rising: ankles stay under the body, the trunk leans to keep balance."""
    depth = draw(0.3, 1) * np.sin(np.pi * (draw(0.2, 0.5) * time + draw(0, 1))) ** 2
    knee = 8 + 117 * depth
    sit, spread, turned, arms = draw(0, 0.35), draw(4, 18), draw(0, 20), draw(0, 80)
    angles: Angles = {
        "heading": draw(-12, 12) * time,
        "pelvis_lean": 28 * depth,
        "chest_lean": draw(0, 30) * depth,
        "chest_twist": draw(-15, 15) * depth,
        "head_nod": draw(-25, 10) * depth,
        "head_twist": draw(-25, 25),
    }
    for side in SIDES:
        lunge = draw(-8, 8)
        angles |= {
            f"{side}_hip_flex": (0.5 + 0.5 * sit) * knee + lunge * depth,
            f"{side}_knee": knee + lunge * depth,
            f"{side}_hip_spread": spread + 8 * depth,
            f"{side}_hip_rotation": turned,
            f"{side}_shoulder_flex": draw(-5, 15) + arms * depth + draw(-15, 15) * depth,
            f"{side}_shoulder_spread": draw(6, 22),
            f"{side}_shoulder_rotation": -draw(0, 45),
            f"{side}_elbow": draw(10, 70) + draw(-10, 50) * depth,
        }
    return angles


def _turn(time: Floats, duration: float, draw: Draw) -> Angles:
    """Turning on the spot in small steps: the gaze leads, the chest follows, arms gesture a little."""
    way = np.where(draw(-1, 1) < 0, -1.0, 1.0)
    phase = 2 * np.pi * draw(0.6, 1.0) * time + draw(0, 6.28)
    angles: Angles = {
        "heading": way * draw(40, 120) * time,
        "pelvis_twist": 3 * np.sin(phase),
        "chest_twist": way * draw(5, 25),
        "chest_lean": draw(-3, 12),
        "chest_side": draw(-6, 6),
        "head_twist": way * draw(5, 40),
        "head_nod": draw(-10, 15),
    }
    for side, cycle in zip(SIDES, (phase, phase + np.pi), strict=True):
        step = np.clip(np.sin(cycle), 0, None)
        angles |= {
            f"{side}_hip_flex": 4 + draw(8, 25) * step,
            f"{side}_knee": 6 + draw(15, 50) * step,
            f"{side}_hip_spread": draw(1, 10),
            f"{side}_hip_rotation": draw(0, 18),
            f"{side}_shoulder_flex": draw(-8, 60) - draw(0, 20) * np.sin(cycle),
            f"{side}_shoulder_spread": draw(6, 45),
            f"{side}_shoulder_rotation": -draw(0, 50),
            f"{side}_elbow": draw(10, 95) + draw(0, 15) * np.sin(cycle),
        }
    return angles


_CYCLES = (_gait, _reach, _crouch, _turn)


# --- the kinematic tree: angles to joints ------------------------------------------------------------------------


def _posed(angles: Angles, bodies: dict[str, Floats]) -> Floats:
    """Joint positions (N, 17, 3), hip at the origin, y up; at heading 0 the body faces +z and its left is +x."""
    heading = _turned("y", angles["heading"])
    pelvis = heading @ _oriented(angles, "pelvis_lean", "pelvis_side", "pelvis_twist")
    chest = pelvis @ _oriented(angles, "chest_lean", "chest_side", "chest_twist")
    halved = {name: angles[name] / 2 for name in ("chest_lean", "chest_side", "chest_twist")}
    middle = pelvis @ _oriented(halved, "chest_lean", "chest_side", "chest_twist")
    head = chest @ _oriented(angles, "head_nod", "head_side", "head_twist")
    joints = np.zeros((len(heading), len(JOINTS), 3))

    def put(joint: str, parent: str, rotation: Floats, bone: Floats) -> None:
        joints[:, J[joint]] = joints[:, J[parent]] + np.einsum("nij,nj->ni", rotation, bone)

    put("spine", "hip", middle, _along(1.0, bodies["spine"]))
    put("thorax", "spine", chest, _along(1.0, bodies["chest"]))
    put("neck", "thorax", head, bodies["neck"])
    put("head", "neck", head, bodies["head"])
    for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
        sided = {name: angles[f"{side}_{name}"] for name in SIDED}
        across = np.array([sign, 1.0, 1.0])
        # Legs hang from the pelvis but are posed against the vertical, which keeps the feet under the body.
        twist = heading @ _turned("y", angles["pelvis_twist"])
        hip = twist @ _limb(sided["hip_spread"], sided["hip_flex"], sided["hip_rotation"], sign)
        put(f"{side}_hip", "hip", pelvis, bodies["hips"] * across)
        put(f"{side}_knee", f"{side}_hip", hip, _along(-1.0, bodies["thigh"]))
        put(f"{side}_ankle", f"{side}_knee", hip @ _turned("x", sided["knee"]), _along(-1.0, bodies["shin"]))
        shoulder = chest @ _limb(sided["shoulder_spread"], sided["shoulder_flex"], sided["shoulder_rotation"], sign)
        put(f"{side}_shoulder", "thorax", chest, bodies["shoulders"] * across)
        put(f"{side}_elbow", f"{side}_shoulder", shoulder, _along(-1.0, bodies["upper_arm"]))
        lower = shoulder @ _turned("x", -sided["elbow"])
        put(f"{side}_wrist", f"{side}_elbow", lower, _along(-1.0, bodies["forearm"]))
    return joints


def _oriented(angles: Angles, lean: str, side: str, twist: str) -> Floats:
    """Lean forward, bend to the right side, twist to the left."""
    result: Floats = _turned("y", angles[twist]) @ _turned("x", angles[lean]) @ _turned("z", -angles[side])
    return result


def _limb(spread: Floats, flex: Floats, rotation: Floats, sign: float) -> Floats:
    """A hanging limb, sign +1 for the left: spread outward, swung forward, rotated about itself (outward positive)."""
    result: Floats = _turned("z", sign * spread) @ _turned("x", -flex) @ _turned("y", sign * rotation)
    return result


def _along(direction: float, lengths: Floats) -> Floats:
    """Bones of these lengths along the y axis: (N, 3)."""
    return np.stack([np.zeros_like(lengths), direction * lengths, np.zeros_like(lengths)], axis=-1)


def _turned(axis: str, degrees: Floats) -> Floats:
    """Right-handed rotations (N, 3, 3) about an axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    result = np.zeros((*np.shape(degrees), 3, 3))
    result[..., range(3), range(3)] = 1.0
    result[..., i, i], result[..., i, j], result[..., j, i], result[..., j, j] = c, -s, s, c
    return result
