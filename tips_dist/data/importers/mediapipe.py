"""MediaPipe's pose landmarks (33 of BlazePose), in the JSON and CSV files that people write of them.

JSON: a list of frames or an object that holds one (``frames``, ``pose_landmarks``, ``landmarks``, ``results``); a frame
is a list of 33 landmarks, a list of such lists (several people), or an object with one of these and perhaps ``frame``.
A landmark is ``{"x", "y", "visibility"}`` or ``[x, y, z, visibility]``. CSV: a row for each landmark (``frame``,
``landmark`` or ``id``, ``x``, ``y``, ``visibility``) or for each frame (``x0``, ``y0``, ``visibility0`` or ``v0``, …;
``NOSE_x``, …). Coordinates are shares of the image unless larger, so they need ``image_px``.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tips_dist.data import joint_maps
from tips_dist.data.importers import detections
from tips_dist.data.importers.detections import Person, Place
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.json_stream import items
from tips_dist.files import UserError, check_file

USES = (*detections.USES_OF_VIDEOS, "image_px")
NAMES = joint_maps.ORDERS["mediapipe"]
HOLDERS = ("frames", "pose_landmarks", "poseLandmarks", "landmarks", "results")
_LARGEST_SHARE = 4.0  # landmarks may lie outside of the image, but not this far
_CSV_FIELD = re.compile(r"(?:(x|y|v|vis|visibility)_?(\d+)|(.+)_(x|y|v|vis|visibility))", re.IGNORECASE)
_CSV_LIMIT = 1 << 20

Landmarks = list[tuple[float, float, float]]


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read the landmarks of all frames.

    Raises:
        UserError: neither of the layouts, or shares of an image of unknown size; the message names the frame.
    """
    rows = _from_csv(source) if source.suffix.lower() == ".csv" else _from_json(source)
    people = detections.gather(source, _persons(source, rows, options), options, record)

    def place(frame: Any) -> Place:
        assert isinstance(frame, int)
        return Place(source.stem, "camera_0", str(frame), frame)

    return detections.opened(
        f"MediaPipe ({source.name})", people, place, options, record, image_px=options.image_px
    )  # fmt: skip


def _persons(path: Path, rows: Iterator[tuple[int, Landmarks]], options: Options) -> Iterator[Person]:
    width, height = options.image_px or (0, 0)
    for frame, marks in rows:
        shares = all(abs(value) <= _LARGEST_SHARE for x, y, _ in marks for value in (x, y))
        if shares and options.image_px is None:
            raise UserError(f"{path}: frame {frame}: shares of the image, so say its size: image_px=[width, height]")
        flat = array("d")
        for x, y, score in marks:
            flat.extend((x * width, y * height, score) if shares else (x, y, score))
        yield Person(frame, flat)


def _from_json(path: Path) -> Iterator[tuple[int, Landmarks]]:
    number, loose = 0, []
    for key, element in items(path):
        if key not in ("", *HOLDERS):
            continue
        if key in ("pose_landmarks", "poseLandmarks", "landmarks", "") and _is_landmark(element):
            loose.append(element)  # one frame's landmarks, not in a list of frames
            continue
        where = f"{path}: frame {number}"
        frame, people = number, element
        if isinstance(element, dict):
            stated = element.get("frame", element.get("frame_id", element.get("frame_number", number)))
            frame = detections.whole_frame(stated, where)
            people = next((element[name] for name in HOLDERS if name in element), None)
        if people is not None and not isinstance(people, list):
            raise UserError(f"{where}: expected a list of {len(NAMES)} landmarks")
        people = [people] if people and _is_landmark(people[0]) else people or []
        for person in people:
            yield frame, _landmarks(where, person)
        number += 1
    if loose:
        yield 0, _landmarks(f"{path}: frame 0", loose)
    elif not number:
        raise UserError(f"{path}: no landmarks in it; expected a list of frames, or one of {', '.join(HOLDERS)}")


def _is_landmark(element: Any) -> bool:
    if isinstance(element, dict):
        return "x" in element and "y" in element
    return isinstance(element, list) and len(element) in (2, 3, 4, 5) and not isinstance(element[0], list | dict)


def _landmarks(where: str, marks: Any) -> Landmarks:
    if not isinstance(marks, list) or len(marks) != len(NAMES):
        have = len(marks) if isinstance(marks, list) else "no"
        raise UserError(f"{where}: {have} landmarks, expected the {len(NAMES)} of a pose")
    found = []
    for mark in marks:
        values: tuple[Any, ...] = (None,)
        if isinstance(mark, dict):
            values = (mark.get("x"), mark.get("y"), mark.get("visibility", 1.0))
        elif isinstance(mark, list) and len(mark) >= 2:
            values = (mark[0], mark[1], mark[3] if len(mark) > 3 else 1.0)
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            raise UserError(f"{where}: expected numbers x, y and visibility of each landmark")
        try:
            found.append((float(values[0]), float(values[1]), float(values[2])))
        except OverflowError:
            raise UserError(f"{where}: a number is too large") from None
    return found


def _from_csv(path: Path) -> Iterator[tuple[int, Landmarks]]:
    check_file(path)
    csv.field_size_limit(_CSV_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            fields = [str(field) for field in reader.fieldnames or []]
            lower = {field.strip().lower(): field for field in fields}
            if "x" in lower and "y" in lower:
                yield from _long(path, reader, lower)
            else:
                yield from _wide(path, reader, fields)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error!s:.80})") from None


def is_header(line: str) -> bool:
    """Whether the first line of a CSV file names columns of landmarks."""
    fields = [field.strip().strip('"').lower() for field in line.split(",")]
    if {"x", "y"} <= {*fields}:
        return any(name in fields for name in ("landmark", "landmark_id", "landmark_name", "id", "visibility"))
    return sum(_CSV_FIELD.fullmatch(field) is not None for field in fields) >= 2 * len(NAMES)


def _long(path: Path, reader: csv.DictReader[str], lower: dict[str, str]) -> Iterator[tuple[int, Landmarks]]:
    """A row for each landmark; the rows of a frame follow each other."""
    score = next((lower[name] for name in ("visibility", "v", "score", "presence") if name in lower), None)
    frame_field = next((lower[name] for name in ("frame", "frame_id", "image") if name in lower), None)
    marks: Landmarks = []
    frame = 0
    for number, row in enumerate(reader, start=2):
        where = f"{path}: line {number}"
        now = int(_number(where, row.get(frame_field), largest=detections.LARGEST_FRAME)) if frame_field else 0
        if marks and (now != frame or len(marks) == len(NAMES)):
            yield frame, _whole(path, frame, marks)
            marks = []
        frame = now
        x, y = (_number(where, row.get(lower[axis])) for axis in "xy")
        marks.append((x, y, _number(where, row.get(score)) if score else 1.0))
    if marks:
        yield frame, _whole(path, frame, marks)


def _wide(path: Path, reader: csv.DictReader[str], fields: list[str]) -> Iterator[tuple[int, Landmarks]]:
    """A row for each frame."""
    columns: dict[tuple[int, str], str] = {}
    for field in fields:
        if found := _CSV_FIELD.fullmatch(field.strip()):
            index = int(found[2]) if found[2] and len(found[2]) < 4 else _index(found[3] or "")
            columns[index, (found[1] or found[4])[0].lower()] = field
    base = min((index for index, _ in columns if index >= 0), default=0)
    wanted = [[columns.get((base + k, axis)) for axis in "xyv"] for k in range(len(NAMES))]
    if any(x is None or y is None for x, y, _ in wanted):
        raise UserError(f"{path}: no columns x and y of {len(NAMES)} landmarks, by number (x0) or by name (NOSE_x)")
    frame_field = next((field for field in fields if field.strip().lower() in ("frame", "frame_id")), None)
    for number, row in enumerate(reader, start=2):
        where = f"{path}: line {number}"
        frame = number - 2
        if frame_field:
            frame = int(_number(where, row.get(frame_field), largest=detections.LARGEST_FRAME))
        yield (
            frame,
            [
                (_number(where, row.get(x)), _number(where, row.get(y)), _number(where, row.get(v)) if v else 1.0)
                for x, y, v in wanted
            ],
        )


def _index(name: str) -> int:
    name = joint_maps.canonical(name)
    return NAMES.index(name) if name in NAMES else -1


def _whole(path: Path, frame: int, marks: Landmarks) -> Landmarks:
    if len(marks) != len(NAMES):
        raise UserError(f"{path}: frame {frame}: {len(marks)} landmarks, expected the {len(NAMES)} of a pose")
    return marks


def _number(where: str, text: Any, largest: float | None = None) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {text!r:.40} is not a number") from None
    if largest is not None and not 0 <= value <= largest:
        raise UserError(f"{where}: frame number {text!r:.40}; expected a whole number from 0 up")
    return value
