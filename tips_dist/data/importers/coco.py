"""Detected 2D poses: COCO keypoint JSON, as annotations (``{"images", "annotations"}``) or as a list of results.

COCO has no hip, spine, thorax, neck and head joints of the kind used here, so these are approximated from what it
has: hip and thorax are the middles of hips and shoulders, the spine lies half-way between them, the neck lies on the
way from thorax to nose, the head just beyond the middle of the ears (or eyes). A joint below ``minimum_score`` counts
as missing, and a person with a missing joint is dropped; a derived joint has the least score of its sources.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.data.importers.pipeline import Clip, Options, Record, Source
from tips_dist.data.importers.splits import splits_by_name
from tips_dist.data.json_stream import items
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


Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]


@dataclass
class People:
    """Everybody in a file, in its order: keypoints (N, 17, 3: x, y, score), and the numbers of image and track."""

    keypoints: Array
    image: Codes
    track: Codes
    entry: Codes
    images: list[str]
    tracks: list[str]
    size: tuple[int, int] | None


def open_source(source: Path, options: Options, record: Record) -> Source:
    """Read the file and group its people into sequences: by folder of the image, and by track where there is one.

    Raises:
        UserError: not COCO keypoint JSON; the message names the entry.
    """
    people = _people(source)
    record.note("hip, spine, thorax, neck and head are approximated from COCO's joints")
    order = _ranks(people.images)[people.image]
    folders = [name.rpartition("/")[0] or source.stem for name in people.images]
    names = sorted(set(folders), key=_padded)
    code = {name: k for k, name in enumerate(names)}
    sequence = np.array([code[folder] for folder in folders])[people.image]
    if len(names) == 1 and (options.validation_share or options.test_share):
        record.note(f"one recording, cut into {STRETCHES} stretches of time to hold some of them out")
        sequence = order * STRETCHES // (order.max() + 1)
        names = [f"{names[0]}/{k}" for k in range(STRETCHES)]
    splits = splits_by_name([names[k] for k in np.unique(sequence)], options, record)
    rows = np.lexsort((people.entry, order, people.track, sequence))
    starts = np.flatnonzero(np.diff(sequence[rows]) | np.diff(people.track[rows])) + 1
    groups = np.split(rows, starts)
    clips = (
        clip
        for group in groups
        for clip in _clips(people, group, names[sequence[group[0]]], splits, order[group], options, record)
    )
    return Source(
        f"COCO keypoints ({source.name})", 0.0, False, clips, len(groups), people.size, scores=True, neighbours=False
    )


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
    people = _people(path)
    poses, scores = to_poses(people.keypoints)
    whole = np.flatnonzero((scores >= minimum_score).all(axis=1) & np.isfinite(poses).all(axis=(1, 2)))
    if not whole.size:
        raise UserError(f"{path}: no person with all joints at a score of {minimum_score} or more")
    labels = [f"{people.images[people.image[row]]}#{people.entry[row]}" for row in whole]
    return poses[whole], scores[whole], labels


def _clips(
    people: People,
    group: Codes,
    sequence: str,
    splits: dict[str, str],
    order: Codes,
    options: Options,
    record: Record,
) -> Iterator[Clip]:
    poses, scores = to_poses(people.keypoints[group])
    whole = np.asarray((scores >= options.minimum_score).all(axis=1))
    dropped = int((~whole).sum())
    record.seen += dropped
    record.drop(f"people with a joint below a score of {options.minimum_score:g}", dropped)
    track = people.tracks[people.track[group[0]]]
    subject = f"{sequence}/{track}" if track else sequence
    yield Clip(subject, sequence, "camera_0", splits[sequence], order[whole], poses[whole], None, scores[whole])


def _people(path: Path) -> People:
    """Read the file element by element."""
    keypoints, image, track, entry = array("f"), array("q"), array("q"), array("q")
    seen: dict[Any, int] = {}
    tracks: dict[str, int] = {}
    named: dict[Any, str] = {}
    width = height = number = 0
    for key, element in items(path):
        if key == "images" and isinstance(element, dict):
            named[_key(element.get("id"))] = str(element.get("file_name", element.get("id")))
            width, height = max(width, _side(element, "width")), max(height, _side(element, "height"))
        elif key in ("", "annotations"):
            if not (isinstance(element, dict) and element.get("num_keypoints") == 0):
                try:
                    keypoints.extend(_keypoints(path, number, element))
                except (TypeError, OverflowError) as error:
                    what = "not all are numbers" if isinstance(error, TypeError) else "a number is too large"
                    raise UserError(f"{path}: entry {number}: keypoints: {what}") from None
                identity = _key(element.get("image_id", number))
                image.append(seen.setdefault(identity, len(seen)))
                name = str(element.get("track_id", element.get("idx", "")))
                track.append(tracks.setdefault(name, len(tracks)))
                entry.append(number)
            number += 1
    if not entry:
        raise UserError(f"{path}: nobody in it; expected a list of results, or 'images' and 'annotations'")
    points = np.frombuffer(keypoints, np.float32).reshape(-1, len(NAMES), 3)
    points[..., 2][~np.isfinite(points[..., 2])] = 0
    return People(
        keypoints=points,
        image=np.frombuffer(image, np.int64),
        track=np.frombuffer(track, np.int64),
        entry=np.frombuffer(entry, np.int64),
        images=[named.get(identity, str(identity)) for identity in seen],
        tracks=list(tracks),
        size=(width, height) if width and height else None,
    )


def _keypoints(path: Path, number: int, element: Any) -> list[float]:
    """The list of a person's 51 numbers."""
    values = element.get("keypoints") if isinstance(element, dict) else None
    where = f"{path}: entry {number}: keypoints"
    if not isinstance(values, list) or len(values) != 3 * len(NAMES):
        have = f"{len(values)} numbers" if isinstance(values, list) else "none"
        raise UserError(f"{where}: {have}, expected 51 (17 joints of x, y, score)")
    return values


def _key(identity: Any) -> Any:
    return identity if isinstance(identity, int | str) else str(identity)


def _side(element: dict[str, Any], name: str) -> int:
    side = element.get(name)
    return side if isinstance(side, int) and 0 < side < 10**6 else 0


def _ranks(names: list[str]) -> Codes:
    """The place of every name in their natural order."""
    padded = [_padded(name) for name in names]
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=padded.__getitem__)] = np.arange(len(names))
    return ranks


def _padded(name: str) -> str:
    """The name with its numbers filled up, so that 9 comes before 10."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), name)
