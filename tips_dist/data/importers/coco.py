"""Detected 2D poses: COCO keypoint JSON, as annotations (``{"images", "annotations"}``) or as a list of results.

COCO has no hip, spine, thorax, neck and head joints of the kind used here, so these are approximated from what it
has: hip and thorax are the middles of hips and shoulders, the spine lies half-way between them, the neck lies on the
way from thorax to nose, the head just beyond the middle of the ears (or eyes). A joint below ``minimum_score`` counts
as missing, and a person with a missing joint is dropped; a derived joint has the least score of its sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.data.importers.pipeline import Clip, Options, Record, Source, splits_by_name
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, J

USES = ("minimum_score", "validation_share", "test_share")
NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
_K = {name: index for index, name in enumerate(NAMES)}
NECK_SHARE = 0.55  # of the way from thorax to nose
HEAD_SHARE = 1.1  # of the way from thorax to the middle of the ears
STRETCHES = 10  # a single recording is cut into so many stretches, which become its sequences

Array = npt.NDArray[np.float64]


def open_source(source: Path, options: Options, record: Record) -> Source:
    """Read the file and group its people into sequences: by folder of the image, and by track where there is one.

    Raises:
        UserError: not COCO keypoint JSON; the message names the entry.
    """
    people, size = _people(source)
    record.note("hip, spine, thorax, neck and head are approximated from COCO's joints")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for person in people:
        groups.setdefault((person["sequence"], person["track"]), []).append(person)
    for key in groups:
        groups[key].sort(key=lambda person: (person["order"], person["entry"]))
    sequences = {sequence for sequence, _ in groups}
    if len(sequences) == 1 and (options.validation_share or options.test_share):
        record.note(f"one recording, cut into {STRETCHES} stretches to hold some of them out")
        groups = _stretches(groups)
    ordered = sorted(groups, key=lambda key: (_natural(key[0]), _natural(key[1])))
    splits = splits_by_name([sequence for sequence, _ in ordered], options, record)
    clips = (clip for key in ordered for clip in _clips(key, groups[key], splits[key[0]], options, record))
    return Source(f"COCO keypoints ({source.name})", 0.0, False, clips, len(groups), size, scores=True)


def to_poses(keypoints: Array) -> tuple[Array, Array]:
    """COCO keypoints (N, 17, 3: x, y, score) as this program's poses (N, 17, 2) px and scores (N, 17)."""
    xy, score = keypoints[..., :2], keypoints[..., 2]

    def middle(left: str, right: str) -> tuple[Array, Array]:
        pair = [_K[left], _K[right]]
        return xy[:, pair].mean(axis=1), score[:, pair].min(axis=1)

    hip, hip_score = middle("left_hip", "right_hip")
    thorax, thorax_score = middle("left_shoulder", "right_shoulder")
    ears, ears_score = middle("left_ear", "right_ear")
    eyes, eyes_score = middle("left_eye", "right_eye")
    face = np.where((ears_score >= eyes_score)[:, None], ears, eyes)
    poses, scores = np.empty((len(xy), len(JOINTS), 2)), np.empty((len(xy), len(JOINTS)))

    def put(joint: str, place: Array, certainty: Array) -> None:
        poses[:, J[joint]], scores[:, J[joint]] = place, certainty

    for name in JOINTS:
        if name in _K:
            put(name, xy[:, _K[name]], score[:, _K[name]])
    nose, nose_score = xy[:, _K["nose"]], score[:, _K["nose"]]
    put("hip", hip, hip_score)
    put("thorax", thorax, thorax_score)
    put("spine", (hip + thorax) / 2, np.minimum(hip_score, thorax_score))
    put("neck", thorax + NECK_SHARE * (nose - thorax), np.minimum(nose_score, thorax_score))
    put("head", thorax + HEAD_SHARE * (face - thorax), np.minimum(np.maximum(ears_score, eyes_score), thorax_score))
    return poses, scores


def read(path: Path, minimum_score: float = 0.3) -> tuple[Array, Array, list[str]]:
    """All whole people of a file in its order: poses (N, 17, 2) px, scores (N, 17), and a label for each.

    Raises:
        UserError: not COCO keypoint JSON, or nobody is whole.
    """
    people, _ = _people(path)
    poses, scores = to_poses(np.array([person["keypoints"] for person in people]))
    whole = np.asarray((scores >= minimum_score).all(axis=1) & np.isfinite(poses).all(axis=(1, 2)))
    if not whole.any():
        raise UserError(f"{path}: no person with all joints at a score of {minimum_score} or more")
    labels = [f"{person['image']}#{person['entry']}" for person in people]
    return poses[whole], scores[whole], [label for label, good in zip(labels, whole, strict=True) if good]


def _clips(
    key: tuple[str, str], people: list[dict[str, Any]], split: str, options: Options, record: Record
) -> Iterator[Clip]:
    sequence, track = key
    poses, scores = to_poses(np.array([person["keypoints"] for person in people]))
    whole = (scores >= options.minimum_score).all(axis=1)
    dropped = int((~whole).sum())
    record.seen += dropped
    record.drop(f"people with a joint below a score of {options.minimum_score:g}", dropped)
    rows = np.flatnonzero(whole)
    subject = f"{sequence}/{track}" if track else sequence
    frames = np.array([person["order"] for person in people])[rows]
    yield Clip(subject, sequence, "camera_0", split, frames, poses[rows], None, scores[rows])


def _stretches(groups: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """One recording cut by time, the same cuts for everybody in it."""
    orders = sorted({person["order"] for people in groups.values() for person in people})
    stretch = {order: k * STRETCHES // len(orders) for k, order in enumerate(orders)}
    cut: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (sequence, track), people in groups.items():
        for person in people:
            cut.setdefault((f"{sequence}/{stretch[person['order']]}", track), []).append(person)
    return cut


def _people(path: Path) -> tuple[list[dict[str, Any]], tuple[int, int] | None]:
    """Everybody in the file, with image, sequence, track and order in time; and the images' size."""
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error!s:.100})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    images: dict[Any, dict[str, Any]] = {}
    entries, what = content, "entry"
    if isinstance(content, dict):
        entries, what = content.get("annotations"), "annotation"
        listed = content.get("images", [])
        if isinstance(listed, list):
            images = {_key(item.get("id")): item for item in listed if isinstance(item, dict)}
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list of results, or 'images' and 'annotations'")
    people = [
        _person(path, f"{what} {k}", k, entry, images)
        for k, entry in enumerate(entries)
        if not (isinstance(entry, dict) and entry.get("num_keypoints") == 0)
    ]
    if not people:
        raise UserError(f"{path}: nobody in it")
    names = sorted({person["image"] for person in people}, key=_natural)
    order = {name: k for k, name in enumerate(names)}
    for person in people:
        person["order"] = order[person["image"]]
    return people, _size(list(images.values()))


def _person(path: Path, where: str, number: int, entry: Any, images: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    keypoints = entry.get("keypoints") if isinstance(entry, dict) else None
    if not isinstance(keypoints, list) or len(keypoints) != 3 * len(NAMES):
        have = f"{len(keypoints)} numbers" if isinstance(keypoints, list) else "none"
        raise UserError(f"{path}: {where}: keypoints: {have}, expected 51 (17 joints of x, y, score)")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in keypoints):
        raise UserError(f"{path}: {where}: keypoints: not all are numbers")
    try:
        values = np.array(keypoints, dtype=np.float64).reshape(-1, 3)
    except OverflowError:
        raise UserError(f"{path}: {where}: keypoints: a number is too large") from None
    values[np.isnan(values[:, 2]), 2] = 0
    image = images.get(_key(entry.get("image_id")), {})
    name = str(image.get("file_name", entry.get("image_id", number)))
    sequence = str(Path(name).parent) if "/" in name else path.stem
    track = str(entry.get("track_id", entry.get("idx", "")))
    return {"keypoints": values, "image": name, "sequence": sequence, "track": track, "entry": number}


def _key(identity: Any) -> Any:
    return identity if isinstance(identity, int | str) else str(identity)


def _size(images: list[dict[str, Any]]) -> tuple[int, int] | None:
    sizes = [(image.get("width"), image.get("height")) for image in images]
    known = [(w, h) for w, h in sizes if isinstance(w, int) and isinstance(h, int)]
    return (max(w for w, _ in known), max(h for _, h in known)) if known else None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part[:18]), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
