"""What MMPose's inferencer writes to ``--pred-out-dir``: one JSON file for each video, or for each image.

A video's file holds ``instance_info``: for each frame ``frame_id`` and ``instances``, each with ``keypoints`` (K, 2)
px and ``keypoint_scores`` (K,). An image's file is the list of instances alone. Names, where the file states them
(``meta_info.keypoint_id2name``), say which keypoint is which.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tips_dist.data.importers import detections, json_folder
from tips_dist.data.importers.detections import Person, Place
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.json_stream import items
from tips_dist.files import UserError

USES = detections.USES_OF_VIDEOS


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read the file of a video, or a folder of files.

    Raises:
        UserError: not MMPose's JSON, or nobody in it; the message names the file, the frame and the person.
    """
    paths = json_folder.files(source, ".json", "what MMPose's inferencer wrote")
    images = json_folder.file_places(source, paths)
    people = detections.gather(source, _persons(paths), options, record)

    def place(image: Any) -> Place:
        path, frame = image
        if frame is None:
            return images[path]
        folder = path.relative_to(source).parent.parts if source.is_dir() else ()
        *above, camera = folder or ("camera_0",)
        return Place("/".join([*above, path.stem]), camera, path.name, frame)

    return detections.opened(f"MMPose ({source.name})", people, place, options, record)


def _persons(paths: list[Path]) -> Iterator[Person]:
    for path in paths:
        names: tuple[str, ...] | None = None
        number, found = 0, False
        for key, element in items(path):
            found |= key in ("instance_info", "")
            if key == "meta_info":
                names = _names(element)
            elif key == "instance_info" or (key == "" and isinstance(element, dict) and "instances" in element):
                if not isinstance(element, dict) or not isinstance(element.get("instances"), list):
                    raise UserError(f"{path}: instance_info {number}: expected frame_id and a list of instances")
                frame = detections.whole_frame(element.get("frame_id", number), f"{path}: instance_info {number}")
                for k, instance in enumerate(element["instances"]):
                    where = f"{path}: frame {frame}, person {k}"
                    yield Person((path, frame), _values(where, instance), _track(instance), names)
                number += 1
            elif key == "":
                yield Person((path, None), _values(f"{path}: person {number}", element), _track(element), names)
                number += 1
        if not found:
            raise UserError(f"{path}: not MMPose's JSON; expected 'instance_info', or a list of instances")


def _values(where: str, instance: Any) -> Any:
    keypoints = instance.get("keypoints") if isinstance(instance, dict) else None
    scores = instance.get("keypoint_scores") if isinstance(instance, dict) else None
    if not isinstance(keypoints, list) or not all(isinstance(xy, list) and len(xy) == 2 for xy in keypoints):
        raise UserError(f"{where}: keypoints: expected [x, y] of each")
    if not isinstance(scores, list) or len(scores) != len(keypoints):
        raise UserError(f"{where}: keypoint_scores: expected one for each of the {len(keypoints)} keypoints")
    return detections.keypoint_numbers(
        where, [value for xy, s in zip(keypoints, scores, strict=True) for value in (*xy, s)]
    )


def _names(meta: Any) -> tuple[str, ...] | None:
    """The names of the keypoints by number, where the file has them."""
    by_number = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(by_number, dict):
        return None
    names = [by_number.get(str(k)) for k in range(len(by_number))]
    return tuple(map(str, names)) if names and all(isinstance(name, str) for name in names) else None


def _track(instance: Any) -> str:
    identity = instance.get("track_id", "") if isinstance(instance, dict) else ""
    return str(identity)
