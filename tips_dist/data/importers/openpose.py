"""OpenPose's ``--write_json``: one JSON file for each frame, in one folder or in a folder for each camera.

``people[].pose_keypoints_2d`` holds x, y, score of 25 keypoints (BODY_25, the default; BODY_25B) or 18 (COCO). The
last number in a file's name is its frame; see :mod:`.json_folder` for what folders mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tips_dist.data.importers import detections, json_folder
from tips_dist.data.importers.detections import Person
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.json_stream import items
from tips_dist.files import UserError

USES = detections.USES_OF_VIDEOS


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read the files of all frames.

    Raises:
        UserError: not OpenPose's JSON, or nobody in it; the message names the file and the person.
    """
    paths = json_folder.files(source, ".json", "OpenPose's <name>_<frame>_keypoints.json, in a folder for each camera")
    places = json_folder.file_places(source, paths)
    people = detections.gather(source, _persons(paths), options, record)
    return detections.opened(
        f"OpenPose ({source.name})", people, lambda image: places[image], options, record
    )  # fmt: skip


def _persons(paths: list[Path]) -> Iterator[Person]:
    for path in paths:
        number, found = 0, False
        for key, element in items(path):
            found |= key in ("people", "version")
            if key == "people":
                yield Person(path, _keypoints(f"{path}: person {number}", element), _track(element))
                number += 1
        if not found:
            raise UserError(f"{path}: not OpenPose's JSON; expected an object with 'version' and 'people'")


def _keypoints(where: str, element: Any) -> Any:
    values = element.get("pose_keypoints_2d") if isinstance(element, dict) else None
    if isinstance(values, list) and len(values) not in (54, 75):
        raise UserError(f"{where}: pose_keypoints_2d has {len(values)} numbers, expected 75 (BODY_25) or 54 (COCO)")
    return detections.keypoint_numbers(where, values)


def _track(element: Mapping[str, object]) -> str:
    """OpenPose's person_id, which is [-1] unless it tracks."""
    identity = element.get("person_id")
    if isinstance(identity, list) and len(identity) == 1:
        identity = identity[0]
    return "" if isinstance(identity, list | dict) or identity in (None, -1) else str(identity)
