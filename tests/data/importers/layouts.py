"""Small data sets in the true layouts of the public ones, made of procedural motion, and what an import must find.

Every builder embeds 17-joint motion into its layout's own joints, so that an import without thinning gives it back.
``spoil`` may change a clip's poses and joints before they are embedded.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import scipy.io
from scipy.spatial.transform import Rotation

from tests.data.importers import detectors
from tips_dist.data import joint_maps, procedural
from tips_dist.data.cameras import Cameras
from tips_dist.data.importers import h36m_fetch, mpi_inf_3dhp, mpi_inf_3dhp_test
from tips_dist.skeleton import BONES as BONES_BY_INDEX
from tips_dist.skeleton import JOINTS, J

FRAMES = 25
H36M = [("S1", "Walking-1"), ("S1", "Eating-2"), ("S8", "Posing-1"), ("S9", "Sitting-1")]
Array = Any
Spoil = Callable[[Array, Array], None]


@dataclass
class Expected:
    """A clip as an import without thinning must find it; joints None where the layout has none."""

    split: str
    frames: Array
    poses: Array
    joints: Array | None


@dataclass
class Layout:
    """A data set on disk and what is in it, by (sequence, camera)."""

    format: str
    source: Path
    options: dict[str, Any] = field(default_factory=dict)
    clips: dict[tuple[str, str], Expected] = field(default_factory=dict)


@functools.cache
def _motion() -> Array:
    """Root-relative motion (sequences, FRAMES, 17, 3) in mm, y up."""
    slow = mock.patch.object(procedural, "FRAME_RATE_HZ", 50.0)
    with slow:
        poses, truth = procedural.generate(FRAMES * 2 * 16, seed=11)
    rooted = (truth - truth[:, :1]) * [1, -1, -1]
    return np.stack([rooted[(poses.sequence == k) & (poses.camera == 0)][:FRAMES] for k in range(16)])


# Bones of one synthetic person in mm, by their lower end; the trunk has the proportions of Human3.6M.
BONES = {
    "right_hip": 120.0, "right_knee": 440.0, "right_ankle": 430.0, "left_hip": 120.0, "left_knee": 440.0,
    "left_ankle": 430.0, "spine": 248.0, "thorax": 262.0, "neck": 81.0, "head": 105.0, "left_shoulder": 155.0,
    "left_elbow": 290.0, "left_wrist": 250.0, "right_shoulder": 155.0, "right_elbow": 290.0, "right_wrist": 250.0,
}  # fmt: skip


def motion(number: int) -> Array:
    """The motion of one sequence (FRAMES, 17, 3) in mm, y up, root at the origin, on :data:`BONES`."""
    drawn = _motion()[number % 16]
    joints = np.zeros_like(drawn)
    for parent, child in BONES_BY_INDEX:
        bone = drawn[:, child] - drawn[:, parent]
        length = BONES[JOINTS[child]]
        joints[:, child] = joints[:, parent] + length * bone / np.linalg.norm(bone, axis=-1, keepdims=True)
    return joints


def seen(number: int, cameras: int, spoil: Spoil | None = None) -> tuple[Array, Array]:
    """A sequence seen by cameras: poses (cameras, FRAMES, 17, 2) px, joints (cameras, FRAMES, 17, 3) mm."""
    azimuth = np.arange(cameras) * 2 * np.pi / cameras + 0.3
    rig = Cameras(azimuth, np.full(cameras, 0.15), np.full(cameras, 5000.0))
    joints, poses = rig.view(np.broadcast_to(motion(number), (cameras, FRAMES, 17, 3)))
    joints, poses = joints.astype(np.float64), poses.astype(np.float64)
    if spoil is not None:
        spoil(poses, joints)
    return poses, joints


def _embedded(values: Array, joints: int, places: tuple[int, ...]) -> Array:
    """17 joints put where a layout of more joints has them; the others get something else."""
    result = np.full((*values.shape[:-2], joints, values.shape[-1]), 77.0)
    result[..., places, :] = values
    return result


def cmu(folder: Path, spoil: Spoil | None = None) -> Layout:
    """train|test/<action>/<sequence>/joints_3d in one HDF5 file."""
    layout = Layout("cmu", folder / "cmu.h5", {"cameras": 2})
    names = ["train/walking/walking_1", "train/walking/walking_2", "train/jumping/jumping_1", "test/walking/walking_3"]
    with h5py.File(layout.source, "w") as file:
        file.attrs["frame_rate_hz"] = 60.0
        for k, name in enumerate(names):
            world = motion(k)
            if spoil is not None:
                spoil(world[None, ..., :2].copy(), world[None])
            file[f"{name}/joints_3d"] = world.astype("f4")
    return layout


def h36m(folder: Path, spoil: Spoil | None = None) -> Layout:
    """processed/<subject>/<action>/annot.h5 of h36m-fetch."""
    layout = Layout("h36m_fetch", folder)
    ids = ("54138969", "55011271", "58860488", "60457274")
    for k, (subject, action) in enumerate(
        [("S1", "Walking-1"), ("S5", "Eating-2"), ("S8", "Posing-1"), ("S9", "Sitting-1")]
    ):
        poses, joints = seen(k, 4, spoil)
        path = folder / "processed" / subject / action / "annot.h5"
        path.parent.mkdir(parents=True)
        frames = np.arange(FRAMES) + 1
        with h5py.File(path, "w") as file:
            file["pose/2d"] = _embedded(poses, 32, h36m_fetch.JOINTS_OF_32).reshape(-1, 32, 2)
            file["pose/3d"] = _embedded(joints, 32, h36m_fetch.JOINTS_OF_32).reshape(-1, 32, 3)
            file["pose/3d-univ"] = 0.9 * file["pose/3d"][:]
            file["camera"] = np.repeat([int(name) for name in ids], FRAMES)
            file["frame"] = np.tile(frames, 4)
            for name, value in (("subject", int(subject[1:])), ("action", 13), ("subaction", 1)):
                file[name] = np.full(4 * FRAMES, value)
            for name in ids:
                file[f"intrinsics/{name}"] = np.array([1145.0, 500.0, 1145.0, 500.0])
        split = {"S8": "validation", "S9": "test"}.get(subject, "train")
        for c, name in enumerate(ids):
            layout.clips[f"{subject}/{action}", name] = Expected(split, frames, poses[c], joints[c])
    return layout


def videopose3d(folder: Path, spoil: Spoil | None = None) -> Layout:
    """data_3d_h36m.npz and data_2d_h36m_gt.npz: pickled dictionaries; static cameras with lens distortion."""
    layout = Layout("h36m_videopose3d", folder, {"allow_pickle": True})
    positions_3d: dict[str, Any] = {}
    positions_2d: dict[str, Any] = {}
    walk = np.stack([np.linspace(-900, 900, FRAMES), np.full(FRAMES, 900.0), np.linspace(600, -700, FRAMES)], axis=-1)
    for k, (subject, action) in enumerate(H36M):
        world = motion(k) * [1, 1, 1] + (walk if k % 2 else walk[::-1] * [1, 1, -1])[:, None]
        world = world[..., [0, 2, 1]] * [1, -1, 1]  # z up, as in Human3.6M
        views = []
        for c, azimuth in enumerate((0.4, 1.9, 3.6, 5.1)):
            joints = _static(azimuth, world)
            poses = _through_lens(joints)
            if spoil is not None:
                spoil(poses[None], joints[None])
            views.append(poses.astype("f4"))
            split = {"S8": "validation", "S9": "test"}.get(subject, "train")
            name = (f"{subject}/{action}", f"camera_{c}")
            layout.clips[name] = Expected(split, np.arange(FRAMES), poses, joints)
        positions_3d.setdefault(subject, {})[action] = (_embedded(world, 32, h36m_fetch.JOINTS_OF_32) / 1000).astype(
            "f4"
        )
        positions_2d.setdefault(subject, {})[action] = views
    metadata = {
        "layout_name": "h36m", "num_joints": 17,
        "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    }  # fmt: skip
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(positions_3d))
    np.savez_compressed(
        folder / "data_2d_h36m_gt.npz", positions_2d=np.array(positions_2d), metadata=np.array(metadata)
    )
    return layout


def _static(azimuth: float, world: Array) -> Array:
    """World (z up) in the frame of a camera that stands 5 m from the middle, 1.5 m high."""
    place = np.array([5000 * np.cos(azimuth), 5000 * np.sin(azimuth), 1500.0])
    away = np.array([0, 0, 900.0]) - place
    away /= np.linalg.norm(away)
    right = np.cross(away, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return (world - place) @ np.stack([right, np.cross(away, right), away]).T


def _through_lens(joints: Array) -> Array:
    flat = joints[..., :2] / joints[..., 2:]
    square = (flat**2).sum(axis=-1, keepdims=True)
    return 1145 * flat * (1 - 0.2 * square + 0.24 * square**2) + [512, 515]


def mpi_train(folder: Path, spoil: Spoil | None = None) -> Layout:
    """S<n>/Seq<n>/annot.mat, MATLAB 5, cells of 14 cameras."""
    layout = Layout("mpi_inf_3dhp", folder)
    for k, (subject, sequence) in enumerate([("S1", "Seq1"), ("S1", "Seq2"), ("S8", "Seq1")]):
        poses, joints = seen(k, 14, spoil)
        (folder / subject / sequence).mkdir(parents=True)
        content = {
            "annot2": _cells(_embedded(poses, 28, mpi_inf_3dhp.JOINTS_OF_28).reshape(14, FRAMES, 56)),
            "annot3": _cells(_embedded(joints, 28, mpi_inf_3dhp.JOINTS_OF_28).reshape(14, FRAMES, 84)),
            "univ_annot3": _cells(_embedded(0.9 * joints, 28, mpi_inf_3dhp.JOINTS_OF_28).reshape(14, FRAMES, 84)),
            "frames": np.arange(FRAMES)[:, None],
            "cameras": np.arange(14)[None],
        }
        scipy.io.savemat(folder / subject / sequence / "annot.mat", content, do_compression=True)
        for c in range(14):
            layout.clips[f"{subject}/{sequence}", f"camera_{c}"] = Expected(
                "validation" if subject == "S8" else "train", np.arange(FRAMES), poses[c], joints[c]
            )
    return layout


def _cells(values: Array) -> Array:
    cells = np.empty((len(values), 1), dtype=object)
    for k, value in enumerate(values):
        cells[k, 0] = value
    return cells


def mpi_test(folder: Path, spoil: Spoil | None = None) -> Layout:
    """TS<n>/annot_data.mat, MATLAB 7.3; some frames not valid."""
    layout = Layout("mpi_inf_3dhp_test", folder)
    for k in (1, 2):
        poses, joints = seen(k, 1, spoil)
        order = list(mpi_inf_3dhp_test.JOINTS_OF_17)
        valid = np.ones((FRAMES, 1))
        valid[3:5] = 0
        (folder / f"TS{k}").mkdir()
        with h5py.File(folder / f"TS{k}" / "annot_data.mat", "w", userblock_size=512) as file:
            file["annot2"] = _embedded(poses[0], 17, tuple(order))[:, None]
            file["annot3"] = _embedded(joints[0], 17, tuple(order))[:, None]
            file["univ_annot3"] = _embedded(0.9 * joints[0], 17, tuple(order))[:, None]
            file["valid_frame"] = valid
            file["activity_annotation"] = np.ones((FRAMES, 1))
        with (folder / f"TS{k}" / "annot_data.mat").open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
        rows = np.flatnonzero(valid)
        layout.clips[f"TS{k}", "camera_0"] = Expected("test", rows, poses[0][rows], joints[0][rows])
    return layout


def coco_results(folder: Path, spoil: Spoil | None = None) -> Layout:
    """images, annotations and categories; a wrist is missing in some frames, the hips in one."""
    layout = Layout("coco", folder / "keypoints.json", {"validation_share": 0.3, "test_share": 0.3})
    images: list[Any] = []
    annotations: list[Any] = []
    for k in range(4):
        poses, _ = seen(k, 1, spoil)
        keypoints, expected, rows = _detected(poses[0], "coco")
        for t in range(FRAMES):
            images.append({"id": len(images), "file_name": f"clip_{k}/{t}.jpg", "width": 1000, "height": 900})
            annotations.append(
                {"id": len(annotations), "image_id": len(images) - 1, "category_id": 1, "num_keypoints": 17,
                 "keypoints": keypoints[t].ravel().tolist()}
            )  # fmt: skip
        annotations.append({"id": 10**6 + k, "image_id": 0, "num_keypoints": 0, "keypoints": [0] * 51})
        layout.clips[f"clip_{k}", "camera_0"] = Expected(_HELD.get(k, "train"), rows + k * FRAMES, expected[rows], None)
    categories = [{"id": 1, "name": "person", "keypoints": list(joint_maps.ORDERS["coco"])}]
    layout.source.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return layout


_HELD = {2: "test", 1: "validation"}


def _detected(poses: Array, order: str, scores: bool = True) -> tuple[Array, Array, Array]:
    """Keypoints of a clip, the poses that an import makes of them, and the frames that it keeps.

    Where a detector gives scores, frame 7 lacks the left wrist, which then lies at the elbow; frame 9 lacks the hips.
    """
    found, expected = detectors.keypoints(poses, order), detectors.expected(poses, order)
    names, rows = joint_maps.ORDERS[order], np.arange(len(poses))
    if scores:
        found[7, names.index("left_wrist"), 2] = 0.1
        expected[7, J["left_wrist"]] = expected[7, J["left_elbow"]]
        found[9, [k for k, name in enumerate(names) if "hip" in name], 2] = 0.1
        rows = rows[rows != 9]
    return found, expected, rows


def detector(name: str, folder: Path, spoil: Spoil | None = None) -> Layout:
    """What a detector's tool writes."""
    format, order, write, options, several, cameras, scores = detectors.LAYOUTS[name]
    shares = {"validation_share": 0.3, "test_share": 0.3} if several else {}
    layout, films = Layout(format, folder, options | shares), {}
    for k in range(4 if several else 1):
        poses, _ = seen(k, len(cameras), spoil)
        for camera, pixels in zip(cameras, poses, strict=True):
            keypoints, expected, rows = _detected(pixels, order, scores)
            films[f"clip_{k}", camera] = keypoints
            layout.clips[f"clip_{k}", camera] = Expected(_HELD.get(k, "train"), rows, expected[rows], None)
    layout.source = write(folder, films)
    if not several:
        ((key, whole),) = layout.clips.items()
        layout.clips = _pieces(layout.source.stem, key[1], whole)
    return layout


def _pieces(name: str, camera: str, whole: Expected) -> dict[tuple[str, str], Expected]:
    """A single recording as ten pieces of time."""
    splits = {2: "test", 3: "validation", 7: "test", 8: "validation"}
    piece = whole.frames * 10 // FRAMES
    return {
        (f"{name}/{k}", camera): Expected(
            splits.get(k, "train"), whole.frames[piece == k], whole.poses[piece == k], None
        )
        for k in range(10)
    }


def _arrays(spoil: Spoil | None) -> tuple[dict[str, Array], dict[tuple[str, str], Expected]]:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("poses", "joints", "subject", "sequence", "camera", "frame", "split")
    }
    clips = {}
    for k, split in enumerate(("train", "validation", "test", "train")):
        poses, joints = seen(k, 2, spoil)
        for c in range(2):
            clips[f"walk_{k}", f"c{c}"] = Expected(split, np.arange(FRAMES), poses[c], joints[c])
            texts = ([text] * FRAMES for text in (f"p{k % 2}", f"walk_{k}", f"c{c}"))
            values = (poses[c], joints[c], *texts, range(FRAMES), [split] * FRAMES)
            for name, value in zip(columns, values, strict=True):
                columns[name].extend(value)
    return {name: np.array(values) for name, values in columns.items()}, clips


def npz(folder: Path, spoil: Spoil | None = None) -> Layout:
    """Named arrays in an .npz."""
    columns, clips = _arrays(spoil)
    np.savez_compressed(folder / "mine.npz", **columns)
    return Layout("arrays", folder / "mine.npz", {}, clips)


def hdf5(folder: Path, spoil: Spoil | None = None) -> Layout:
    """Named arrays in an HDF5 file, texts as HDF5 strings."""
    columns, clips = _arrays(spoil)
    with h5py.File(folder / "mine.h5", "w") as file:
        for name, values in columns.items():
            file[name] = values.astype("S") if values.dtype.kind == "U" else values
    return Layout("arrays", folder / "mine.h5", {}, clips)


# (name, parent, offset) of a rig with the names and proportions of the CMU database's BVH files, in their unit.
RIG = [
    ("Hips", -1, (0, 0, 0)), ("LHipJoint", 0, (0, 0, 0)), ("LeftUpLeg", 1, (1.4, -1.8, 0.8)),
    ("LeftLeg", 2, (2.2, -7.0, 0)), ("LeftFoot", 3, (2.2, -7.0, 0)), ("LeftToeBase", 4, (0.2, -0.5, 2.0)),
    ("End", 5, (0, 0, 1.0)), ("RHipJoint", 0, (0, 0, 0)), ("RightUpLeg", 7, (-1.4, -1.8, 0.8)),
    ("RightLeg", 8, (-2.2, -7.0, 0)), ("RightFoot", 9, (-2.2, -7.0, 0)), ("RightToeBase", 10, (-0.2, -0.5, 2.0)),
    ("End", 11, (0, 0, 1.0)), ("LowerBack", 0, (0, 0, 0)), ("Spine", 13, (0, 2.0, -0.2)),
    ("Spine1", 14, (0, 2.0, 0)), ("Neck", 15, (0, 0.1, 0)), ("Neck1", 16, (0, 1.5, 0.2)),
    ("Head", 17, (0, 1.6, -0.2)), ("End", 18, (0, 1.6, 0)), ("LeftShoulder", 15, (0, 0, 0)),
    ("LeftArm", 20, (3.3, 0.8, 0)), ("LeftForeArm", 21, (5.0, 0, 0)), ("LeftHand", 22, (3.4, 0, 0)),
    ("LeftFingerBase", 23, (0, 0, 0)), ("End", 24, (0.6, 0, 0)), ("RightShoulder", 15, (0, 0, 0)),
    ("RightArm", 26, (-3.3, 0.8, 0)), ("RightForeArm", 27, (-5.0, 0, 0)), ("RightHand", 28, (-3.4, 0, 0)),
    ("RightFingerBase", 29, (0, 0, 0)), ("End", 30, (-0.6, 0, 0)),
]  # fmt: skip


def bvh_text(angles: Array, root: Array, rig: Array = None) -> str:
    """A BVH file of a rig (:data:`RIG`): Zrotation Yrotation Xrotation degrees (T, nodes, 3), root positions (T, 3)."""
    rig = RIG if rig is None else rig
    lines, order = ["HIERARCHY"], []  # the motion's columns come in the order of the hierarchy

    def node(k: int, depth: int) -> None:
        name, parent, offset = rig[k]
        pad = "\t" * depth
        lines.append(pad + ("End Site" if name == "End" else f"{'ROOT' if parent < 0 else 'JOINT'} {name}"))
        lines.append(pad + "{")
        lines.append(f"{pad}\tOFFSET {offset[0]:.5f} {offset[1]:.5f} {offset[2]:.5f}")
        if name != "End":
            order.append(k)
            place = "6 Xposition Yposition Zposition" if parent < 0 else "3"
            lines.append(f"{pad}\tCHANNELS {place} Zrotation Yrotation Xrotation")
        for child, (_, above, _) in enumerate(rig):
            if above == k:
                node(child, depth + 1)
        lines.append(pad + "}")

    node(0, 0)
    lines += ["MOTION", f"Frames: {len(angles)}", "Frame Time: .0083333"]
    for place, turn in zip(root, angles, strict=True):
        lines.append(" ".join(f"{value:.6f}" for value in [*place, *turn[order].ravel()]))
    return "\n".join(lines) + "\n"


def bvh_positions(angles: Array, root: Array) -> dict[str, Array]:
    """Where the named nodes are (T, 3), by SciPy's rotations: what the importer's own kinematics must give."""
    turns: list[Rotation] = []
    places: list[Array] = []
    for k, (_, parent, offset) in enumerate(RIG):
        own = Rotation.from_euler("ZYX", angles[:, k], degrees=True)
        if parent < 0:
            turns.append(own)
            places.append(root)
        else:
            places.append(places[parent] + turns[parent].apply(np.array(offset, dtype=float)))
            turns.append(turns[parent] * own)
    return {name if name != "End" else f"End {RIG[parent][0]}": places[k] for k, (name, parent, _) in enumerate(RIG)}


def bvh_angles(seed: int) -> tuple[Array, Array]:
    """Angles (FRAMES, nodes, 3: Z, Y, X degrees) and root positions of a body that walks with its arms down."""
    generator = np.random.default_rng(seed)
    time = np.linspace(0, 6, FRAMES)
    angles = np.zeros((FRAMES, len(RIG), 3))
    names = [name for name, _, _ in RIG]
    for side, sign in (("Left", 1), ("Right", -1)):
        angles[:, names.index(f"{side}UpLeg"), 2] = -20 * sign * np.sin(time)
        angles[:, names.index(f"{side}Leg"), 2] = 25 + 20 * np.cos(time)
        angles[:, names.index(f"{side}Arm"), 0] = -sign * (70 + generator.normal())
        angles[:, names.index(f"{side}ForeArm"), 1] = -sign * (30 + 10 * np.sin(time))
    angles[:, 0, 1] = 20 * time + generator.normal()
    return angles, np.stack([10 * time, np.full(FRAMES, 17.0), 3 * time], axis=-1)


def bvh(folder: Path, spoil: Spoil | None = None) -> Layout:
    """A folder of BVH files named subject_trial.bvh."""
    layout = Layout("bvh", folder, {"cameras": 2})
    for k in range(4):
        angles, root = bvh_angles(k)
        if spoil is not None:
            spoil(root[None, :, None, :2].copy(), angles[None])
        (folder / f"0{1 + k // 2}_0{1 + k % 2}.bvh").write_text(bvh_text(angles, root))
    return layout


LAYOUTS: dict[str, Callable[..., Layout]] = {
    "cmu": cmu,
    "bvh": bvh,
    "h36m_fetch": h36m,
    "h36m_videopose3d": videopose3d,
    "mpi_inf_3dhp": mpi_train,
    "mpi_inf_3dhp_test": mpi_test,
    "coco": coco_results,
    **{name: functools.partial(detector, name) for name in detectors.LAYOUTS},
    "arrays_npz": npz,
    "arrays_hdf5": hdf5,
}
