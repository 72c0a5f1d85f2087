"""AlphaPose's ``alphapose-results.json``: a list of people.

Each has ``image_id`` (a file name), ``keypoints`` (x, y, score of each, flat), ``score`` and ``box``, and ``idx`` where
AlphaPose tracked. 17 (COCO), 26 or 136 (Halpe) or 133 (whole body) keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tips_dist.data.importers import detections
from tips_dist.data.importers.detections import Person, Place
from tips_dist.data.importers.json_folder import numbered
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.json_stream import items
from tips_dist.files import UserError

USES = detections.USES_OF_VIDEOS


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read the file; the number in an image's name is its frame.

    Raises:
        UserError: not AlphaPose's results, or nobody in it; the message names the entry.
    """
    people = detections.gather(source, _persons(source), options, record)
    counted = all(numbered(PurePosixPath(str(image)).stem)[1] is not None for image in people.images)

    def place(image: Any) -> Place:
        name = PurePosixPath(str(image))
        folder = "" if str(name.parent) == "." else str(name.parent)
        return Place(folder or source.stem, "camera_0", str(image), numbered(name.stem)[1] if counted else None)

    return detections.opened(f"AlphaPose ({source.name})", people, place, options, record)


def _persons(path: Path) -> Iterator[Person]:
    for number, (key, element) in enumerate(items(path)):
        where = f"{path}: entry {number}"
        if key != "" or not isinstance(element, dict) or "image_id" not in element:
            raise UserError(f"{where}: not AlphaPose's results; expected a list of people with image_id and keypoints")
        yield Person(
            str(element["image_id"]), detections.keypoint_numbers(where, element.get("keypoints")), _track(element)
        )


def _track(element: Mapping[str, object]) -> str:
    """AlphaPose's idx: a number, or a list of one, where it tracked; 0 everywhere where it did not."""
    identity = element.get("idx")
    while isinstance(identity, list) and len(identity) == 1:
        identity = identity[0]
    return f"{identity:g}" if isinstance(identity, int | float) and identity else ""
