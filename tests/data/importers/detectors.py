"""What detectors write, made of 17-joint motion: keypoints in any known order, and files in each tool's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.data import joint_maps
from tips_dist.skeleton import J

Array = Any
Films = Mapping[tuple[str, str], Array]  # (sequence, camera) -> keypoints (T, K, 3: x, y, score)
SIZE = (1000, 900)


def middles(poses: Array) -> tuple[Array, Array]:
    """The middle of the hips and of the shoulders, (T, 2) each."""
    hip = (poses[..., J["left_hip"], :] + poses[..., J["right_hip"], :]) / 2
    return hip, (poses[..., J["left_shoulder"], :] + poses[..., J["right_shoulder"], :]) / 2


def keypoints(poses: Array, order: str = "coco", score: float = 0.9) -> Array:
    """Keypoints (T, K, 3) of bodies (T, 17, 2) in an order; faces are put where neck and head are made from."""
    hip, thorax = middles(poses)
    neck, head = (poses[:, J[name]] - poses[:, J["thorax"]] for name in ("neck", "head"))
    nose, face = thorax + neck / joint_maps.NECK_SHARE, thorax + head / joint_maps.HEAD_SHARE
    special = {
        "hip": hip, "thorax": thorax, "neck": thorax, "spine": (hip + thorax) / 2, "head_top": thorax + head,
        "upper_neck": thorax + 0.3 * head, "nose": nose,
    }  # fmt: skip
    if order == "h36m":
        special = {}
    places = []
    for name in joint_maps.ORDERS[order]:
        side = name.split("_")[0]
        if name in special:
            places.append(special[name])
        elif name in J:
            places.append(poses[:, J[name]])
        elif any(word in name for word in ("eye", "ear", "mouth", "face")):
            places.append(face)
        elif any(word in name for word in ("toe", "heel", "foot")):
            places.append(poses[:, J[f"{side}_ankle"]])
        else:
            places.append(poses[:, J[f"{side}_wrist" if side in ("left", "right") else "left_wrist"]])
    xy = np.stack(places, axis=1)
    return np.concatenate([xy, np.full((*xy.shape[:2], 1), score)], axis=-1)


def expected(poses: Array, order: str = "coco") -> Array:
    """What an import must make of :func:`keypoints` of these bodies, by the definition in docs/data.md."""
    if order == "h36m":
        return poses.copy()
    hip, thorax = middles(poses)
    result = poses.copy()
    result[:, J["hip"]], result[:, J["thorax"]], result[:, J["spine"]] = hip, thorax, (hip + thorax) / 2
    for name in ("neck", "head"):
        result[:, J[name]] = thorax + poses[:, J[name]] - poses[:, J["thorax"]]
    if "nose" not in joint_maps.ORDERS[order]:
        result[:, J["neck"]] = thorax + 0.45 * (result[:, J["head"]] - thorax)
    return result


def openpose(folder: Path, films: Films) -> Path:
    """sequence/camera/<camera>_<frame>_keypoints.json."""
    for (sequence, camera), film in films.items():
        place = folder / sequence / camera
        place.mkdir(parents=True)
        for t, points in enumerate(film):
            person = {"person_id": [-1], "pose_keypoints_2d": points.ravel().tolist()}
            content = {"version": 1.3, "people": [person]}
            (place / f"{camera}_{t:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def mmpose(folder: Path, films: Films) -> Path:
    """A file for each video."""
    for (sequence, _), film in films.items():
        frames = [
            {
                "frame_id": t,
                "instances": [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist(), "bbox": [[0]]}],
            }
            for t, p in enumerate(film)
        ]
        (folder / f"{sequence}.json").write_text(json.dumps({"meta_info": {}, "instance_info": frames}))
    return folder


def ultralytics(folder: Path, films: Films) -> Path:
    """sequence/camera/frame_<n>.json."""
    for (sequence, camera), film in films.items():
        place = folder / sequence / camera
        place.mkdir(parents=True)
        for t, points in enumerate(film):
            x, y, visible = points.T.tolist()
            person = {"name": "person", "class": 0, "keypoints": {"x": x, "y": y, "visible": visible}}
            (place / f"frame_{t}.json").write_text(json.dumps([person]))
    return folder


def ultralytics_labels(folder: Path, films: Films) -> Path:
    """sequence/camera/video_<n>.txt with shares of the image."""
    for (sequence, camera), film in films.items():
        place = folder / sequence / camera
        place.mkdir(parents=True)
        for t, points in enumerate(film):
            shares = points / [*SIZE, 1]
            line = ["0", "0.5", "0.5", "0.3", "0.9", *(f"{value:.9f}" for value in shares.ravel())]
            (place / f"video_{t}.txt").write_text(" ".join(line) + "\n")
    return folder


def alphapose(folder: Path, films: Films) -> Path:
    """One list of everybody."""
    people = [
        {"image_id": f"{sequence}/{t}.jpg", "category_id": 1, "keypoints": points.ravel().tolist(), "score": 2.9,
         "box": [1, 2, 3, 4], "idx": [0.0]}
        for (sequence, _), film in films.items()
        for t, points in enumerate(film)
    ]  # fmt: skip
    path = folder / "alphapose-results.json"
    path.write_text(json.dumps(people))
    return path


def videopose3d(folder: Path, films: Films) -> Path:
    """Pickled: video -> custom -> [(T, 17, 2)]."""
    path = folder / "data_2d_custom_mine.npz"
    positions = {sequence: {"custom": [film[..., :2].astype("f4")]} for (sequence, _), film in films.items()}
    metadata = {
        "layout_name": "coco",
        "num_joints": 17,
        "video_metadata": {sequence: {"w": SIZE[0], "h": SIZE[1]} for sequence, _ in films},
    }
    np.savez_compressed(path, positions_2d=np.array(positions, dtype=object), metadata=np.array(metadata, dtype=object))
    return path


def mediapipe_json(folder: Path, films: Films) -> Path:
    """A list of frames of 33 landmarks, shares of the image."""
    (film,) = films.values()
    names = ("x", "y", "visibility")
    frames = [
        {"frame": t, "landmarks": [dict(zip(names, mark, strict=True)) for mark in (p / [*SIZE, 1]).tolist()]}
        for t, p in enumerate(film)
    ]
    path = folder / "landmarks.json"
    path.write_text(json.dumps(frames))
    return path


def mediapipe_csv(folder: Path, films: Films) -> Path:
    """A row for each landmark, shares of the image."""
    (film,) = films.values()
    lines = ["frame,landmark,x,y,z,visibility"]
    for t, points in enumerate(film):
        for k, (x, y, score) in enumerate(points / [*SIZE, 1]):
            lines.append(f"{t},{k},{x:.9f},{y:.9f},0.0,{score}")
    path = folder / "landmarks.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


# Layout -> (format, order, writer, options, several sequences?, cameras, has scores?).
LAYOUTS: dict[str, tuple[str, str, Callable[[Path, Films], Path], dict[str, Any], bool, tuple[str, ...], bool]] = {
    "openpose": ("openpose", "body_25", openpose, {}, True, ("cam1", "cam2"), True),
    "mmpose": ("mmpose", "coco_wholebody", mmpose, {}, True, ("camera_0",), True),
    "ultralytics_json": ("ultralytics", "coco", ultralytics, {}, True, ("cam1", "cam2"), True),
    "ultralytics_labels": (
        "ultralytics", "coco", ultralytics_labels, {"image_px": list(SIZE)}, True, ("cam1",), True,
    ),
    "alphapose": ("alphapose", "halpe_26", alphapose, {}, True, ("camera_0",), True),
    "videopose3d_custom": (
        "videopose3d_custom", "coco", videopose3d, {"allow_pickle": True}, True, ("camera_0",), False,
    ),
    "mediapipe_json": ("mediapipe", "mediapipe", mediapipe_json, {"image_px": list(SIZE)}, False, ("camera_0",), True),
    "mediapipe_csv": ("mediapipe", "mediapipe", mediapipe_csv, {"image_px": list(SIZE)}, False, ("camera_0",), True),
}  # fmt: skip
