"""Ultralytics' pose results: ``Results.to_json()`` (``tojson()``), and the text files of ``save_txt=True``.

JSON: for each image the list of its people, ``keypoints`` with lists ``x``, ``y`` and ``visible``, px; one file for
each frame, or a list of such lists for a video. Text: for each image a file of lines ``class cx cy w h`` and x, y
(, score) of each keypoint, all as shares of the image, so it needs ``image_px``; a last number is the track.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tips_dist.data.importers import detections, json_folder
from tips_dist.data.importers.detections import Person, Place
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.json_stream import items
from tips_dist.files import UserError, check_file

USES = (*detections.USES_OF_VIDEOS, "image_px")
_COCO = 17


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read one file or a folder of one file for each frame.

    Raises:
        UserError: neither of the two layouts, or nobody in it; the message names the file and the person or line.
    """
    text = source.suffix == ".txt" or (source.is_dir() and not any(source.rglob("*.json")))
    paths = json_folder.files(source, ".txt" if text else ".json", "Ultralytics' results, one file for each frame")
    if text and options.image_px is None:
        raise UserError(f"{source}: shares of the image, so say its size: image_px=[width, height]")
    places = json_folder.file_places(source, paths)
    persons = _from_text(paths, options.image_px or (1, 1)) if text else _from_json(paths)
    people = detections.gather(source, persons, options, record)

    def place(image: Any) -> Place:
        path, frame = image
        spot = places[path]
        return spot if frame is None else spot._replace(frame=frame)

    return detections.opened(
        f"Ultralytics ({source.name})", people, place, options, record, image_px=options.image_px
    )  # fmt: skip


def _from_json(paths: list[Path]) -> Iterator[Person]:
    for path in paths:
        for number, (key, element) in enumerate(items(path)):
            if key != "":
                raise UserError(f"{path}: not Ultralytics' results; expected a list of people with 'keypoints'")
            if isinstance(element, list):  # a frame of a video
                for k, person in enumerate(element):
                    where = f"{path}: frame {number}, person {k}"
                    yield Person((path, number), _values(where, person), _track(person))
            else:
                yield Person((path, None), _values(f"{path}: person {number}", element), _track(element))


def _values(where: str, person: Any) -> Any:
    keypoints = person.get("keypoints") if isinstance(person, dict) else None
    if not isinstance(keypoints, dict):
        raise UserError(f"{where}: keypoints: none, expected lists x, y and visible (is this a pose model's result?)")
    x, y = keypoints.get("x"), keypoints.get("y")
    visible = keypoints.get("visible", [1.0] * len(x) if isinstance(x, list) else None)
    if not all(isinstance(values, list) for values in (x, y, visible)) or len({len(x), len(y), len(visible)}) != 1:  # type: ignore[arg-type]
        raise UserError(f"{where}: keypoints: expected lists x, y and visible of one length")
    return detections.keypoint_numbers(where, [value for triple in zip(x, y, visible, strict=True) for value in triple])  # type: ignore[arg-type]


def _track(person: Any) -> str:
    return str(person.get("track_id", "")) if isinstance(person, dict) else ""


def _from_text(paths: list[Path], size: tuple[int, int]) -> Iterator[Person]:
    for path in paths:
        check_file(path)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text ({error!s:.80})") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _line(path, number, line.split(), size)


def _line(path: Path, number: int, words: list[str], size: tuple[int, int]) -> Person:
    where = f"{path}: line {number}"
    try:
        values = array("d", map(float, words))
    except ValueError:
        raise UserError(f"{where}: not all are numbers; expected class, box and keypoints") from None
    width = 3 if len(values) - 5 >= 3 * _COCO else 2
    points, track = values[5:], ""
    if len(points) % width == 1:
        track = f"{points.pop():g}"
    if len(points) != width * _COCO:
        raise UserError(f"{where}: {len(values)} numbers, expected 5 and x, y (, score) of 17 keypoints (, a track)")
    flat = array("d")
    for k in range(_COCO):
        x, y = points[width * k : width * k + 2]
        flat.extend((x * size[0], y * size[1], points[width * k + 2] if width == 3 else 1.0))
    return Person((path, None), flat, track)
