"""COCO keypoint JSON, as annotations (``{"images", "annotations", "categories"}``) or as a list of results.

The names in ``categories[].keypoints`` say which keypoint is which, whatever their order and number; without them a
known order of that number is told by how a body lies in it (:mod:`tips_dist.data.joint_maps`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.data import joint_maps
from tips_dist.data.importers import detections
from tips_dist.data.importers.detections import Person, Place
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.json_stream import items
from tips_dist.files import UserError

USES = detections.USES

Array = npt.NDArray[Any]
_ANYBODY: tuple[str, ...] = ()


class _File:
    """A COCO file: its categories, read first, and its images, known once everybody was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.named: dict[Hashable, str] = {}
        self.width = self.height = 0
        self.others = 0  # annotations of categories that are not people
        self._names = _categories(path)

    def persons(self) -> Iterator[Person]:
        """Everybody, in the order of the file; images on the way."""
        number = 0
        for key, element in items(self.path):
            if key == "images" and isinstance(element, dict):
                self.named[_key(element.get("id"))] = str(element.get("file_name", element.get("id")))
                self.width = max(self.width, _side(element, "width"))
                self.height = max(self.height, _side(element, "height"))
            elif key in ("", "annotations"):
                person = self._person(element, number)
                if person is not None:
                    yield person
                number += 1

    def _person(self, element: Any, number: int) -> Person | None:
        where = f"{self.path}: entry {number}"
        if not isinstance(element, dict):
            raise UserError(f"{where}: keypoints: none, expected a person's")
        if element.get("num_keypoints") == 0:
            return None
        names = self._names.get(_key(element.get("category_id")), None if not self._names else _ANYBODY)
        if names == _ANYBODY:
            self.others += 1
            return None
        values = detections.keypoint_numbers(where, element.get("keypoints"))
        if names is None and len(values) // 3 not in {len(order) for order in joint_maps.ORDERS.values()}:
            raise UserError(f"{where}: keypoints: {len(values)} numbers, expected 51 (17 joints of x, y, score)")
        if names is not None and len(values) != 3 * len(names):
            raise UserError(f"{where}: keypoints: {len(values)} numbers, but its category names {len(names)} keypoints")
        track = str(element.get("track_id", element.get("idx", "")))
        return Person((_key(element.get("image_id", number)), number), values, track, names)


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read the file and group its people into sequences: by folder of the image, and by track where there is one.

    Raises:
        UserError: not COCO keypoint JSON, or not a person's keypoints; the message names the entry.
    """
    file = _File(source)
    people = detections.gather(source, _by_image(file.persons()), options, record)
    record.drop("annotations of something that is not a person", file.others)
    record.seen += file.others

    def place(image: Any) -> Place:
        name = file.named.get(image, str(image))
        return Place(name.rpartition("/")[0] or source.stem, "camera_0", name)

    size = (file.width, file.height) if file.width and file.height else None
    return detections.opened(
        f"COCO keypoints ({source.name})", people, place, options, record, image_px=size, videos=False
    )


def read_coco(path: Path, minimum_score: float = 0.3) -> tuple[Array, Array, list[str]]:
    """All whole people of a file in its order: poses (N, 17, 2) px, scores (N, 17), and a label for each.

    Raises:
        UserError: not COCO keypoint JSON, or nobody is whole.
    """
    file = _File(path)
    options, record = Options(minimum_score=minimum_score), ImportRecord("coco", path.name, {})
    people = detections.gather(path, file.persons(), options, record)
    poses, scores = people.joints[..., :2].astype(np.float64), people.joints[..., 2].astype(np.float64)
    whole = np.flatnonzero((scores > 0).all(axis=1) & np.isfinite(poses).all(axis=(1, 2)))
    if not whole.size:
        raise UserError(f"{path}: no person with all joints at a score of {minimum_score} or more")
    labels = []
    for row in whole:
        image, entry = people.images[people.image[row]]
        labels.append(f"{file.named.get(image, str(image))}#{entry}")
    return poses[whole], scores[whole], labels


def _by_image(persons: Iterator[Person]) -> Iterator[Person]:
    """Everybody of one image under the image alone."""
    for person in persons:
        image, _ = person.image
        yield person._replace(image=image)


def _categories(path: Path) -> dict[Hashable, tuple[str, ...]]:
    """The keypoint names of each category of the file that is a person's; :data:`_ANYBODY` for the others.

    Raises:
        UserError: none of the categories with keypoints is a person's.
    """
    found: dict[Hashable, tuple[str, ...]] = {}
    why: list[UserError] = []
    for key, element in items(path):
        if key == "":
            break  # a list of results has no categories
        if key != "categories" or not isinstance(element, dict):
            continue
        names = element.get("keypoints")
        found[_key(element.get("id"))] = _ANYBODY
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            try:
                joint_maps.by_names(names, f"{path}: category {element.get('name')!s:.40}")
                found[_key(element.get("id"))] = tuple(names)
            except UserError as error:
                why.append(error)
    if why and all(names == _ANYBODY for names in found.values()):
        raise why[0]
    return found if any(found.values()) else {}


def _key(identity: Any) -> Hashable:
    return identity if isinstance(identity, int | str) else str(identity)


def _side(element: Mapping[str, object], name: str) -> int:
    side = element.get(name)
    return side if isinstance(side, int) and 0 < side < 10**6 else 0
