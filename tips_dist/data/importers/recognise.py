"""Which format a file or folder is in, told by its content."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from tips_dist.data import npz
from tips_dist.data.importers import mediapipe
from tips_dist.data.json_stream import items
from tips_dist.files import UserError, check_file, shown

_LOOKED_AT = 200  # elements of a JSON file, entries of a folder


class Recognised(NamedTuple):
    """A format, and what it was told by."""

    format: str
    by: str


def recognise(source: Path, formats: dict[str, str]) -> Recognised:
    """The format of a source.

    Raises:
        UserError: none that is known; the message says what was seen and which formats there are.
    """
    folder = os.path.isdir(source)  # noqa: PTH112 (False, not an error, for a name that no file can have)
    if not folder:
        check_file(source, "file or folder")
    found, seen = (_folder if folder else _file)(source)
    if found is None:
        raise UserError(
            f"{source}: not recognised ({seen}); name its format instead of auto, one of {', '.join(formats)}"
        )
    return Recognised(found, seen)


def _file(path: Path) -> tuple[str | None, str]:
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    kinds: tuple[tuple[bool, Callable[[Path], tuple[str | None, str]]], ...] = (
        (head.startswith(b"\x89HDF\r\n\x1a\n"), _hdf5),
        (head.startswith(b"PK"), _archive),
        (text[:1] in (b"{", b"["), _json),
        (text[:9].upper() == b"HIERARCHY", lambda _: ("bvh", "HIERARCHY at its start")),
    )
    for here, look in kinds:
        if here:
            return look(path)
    if path.suffix.lower() == ".csv" or b"," in text.split(b"\n")[0]:
        line = text.split(b"\n")[0].decode("utf-8", "replace")
        if mediapipe.is_header(line):
            return "mediapipe", "a CSV file of landmarks"
        return None, f"a CSV file with the columns {line.strip():.80}"
    if path.suffix.lower() == ".txt" and _is_label(text):
        return "ultralytics", "a text file of a class, a box and keypoints"
    if head.startswith(b"MATLAB"):
        if path.name == "annot_data.mat":
            return None, "a MATLAB file; give the folder that holds TS1 … TS6"
        return None, "a MATLAB file; of MPI-INF-3DHP give the folder that holds S1 … S8"
    return None, "an empty file" if not head else f"it starts with {head[:12]!r}"


def _folder(folder: Path) -> tuple[str | None, str]:
    patterns = (
        ("S*/*/annot.h5", "h36m_fetch"),
        ("processed/S*/*/annot.h5", "h36m_fetch"),
        ("S*/Seq*/annot.mat", "mpi_inf_3dhp"),
        ("TS*/annot_data.mat", "mpi_inf_3dhp_test"),
        ("data_3d_h36m.npz", "h36m_videopose3d"),
    )
    for pattern, format in patterns:
        if next(folder.glob(pattern), None) is not None:
            return format, f"{pattern} in it"
    endings: dict[str, Path] = {}
    for path in itertools.islice(folder.rglob("*"), 20 * _LOOKED_AT):
        if path.is_file():
            endings.setdefault(path.suffix.lower(), path)
    if ".bvh" in endings:
        return "bvh", ".bvh files in it"
    for suffix in (".json", ".txt"):
        if suffix in endings:
            found, seen = _file(endings[suffix])
            if found in ("openpose", "mmpose", "ultralytics"):
                return found, f"{endings[suffix].relative_to(folder)}: {seen}"
            return None, f"a folder whose {endings[suffix].relative_to(folder)} is {found or seen}; give a file"
    return None, f"a folder of {_named(sorted(endings)) or 'nothing'} files"


def _hdf5(path: Path) -> tuple[str | None, str]:
    try:
        with h5py.File(path) as file:
            names = list(file)
            if "poses" in file and "schema_version" in file.attrs:
                return None, "it is a pose file already"
            if "poses" in file:
                return "arrays", "an array 'poses' at its top"
            if names and set(names) <= {"train", "test"}:
                return "cmu", "groups train and test"
            if "pose" in file and "camera" in file:
                return None, "one recording of h36m-fetch; give the folder 'processed'"
            if "annot2" in file:
                return None, "one recording of MPI-INF-3DHP's test set; give the folder that holds TS1 … TS6"
    except Exception as error:  # whatever a damaged file makes of HDF5
        return None, f"a damaged HDF5 file ({error!s:.80})"
    return None, f"an HDF5 file with {_named(names) or 'nothing in it'}"


def _archive(path: Path) -> tuple[str | None, str]:
    with npz.archive(path) as file:
        names = npz.array_names(file)
    if "poses" in names:
        return "arrays", "an array 'poses' in an .npz"
    if "positions_2d" in names:
        if path.with_name("data_3d_h36m.npz").is_file() and "h36m" in path.name:
            return "h36m_videopose3d", "positions_2d in an .npz, data_3d_h36m.npz beside it"
        return "videopose3d_custom", "positions_2d in an .npz"
    if "positions_3d" in names:
        return None, "VideoPose3D's 3D file; give its folder, or the 2D file beside it"
    return None, f"an archive with {_named(names) or 'no arrays'}"


def _json(path: Path) -> tuple[str | None, str]:
    keys: dict[str, object] = {}
    for key, element in itertools.islice(items(path), _LOOKED_AT):
        if not keys.get(key):
            keys[key] = element
    if "" in keys:
        return _of_element(keys[""])
    if "people" in keys or {"version", "canvas_width"} & keys.keys():
        return "openpose", "'people' in it"
    if "version" in keys:
        return "openpose", "'version', and nobody"
    if "instance_info" in keys or "meta_info" in keys:
        return "mmpose", "'instance_info' in it"
    if {"annotations", "images", "categories"} & keys.keys():
        return "coco", "'annotations' or 'images' in it"
    if holder := next((name for name in mediapipe.HOLDERS if name in keys), None):
        return "mediapipe", f"'{holder}' in it"
    return None, f"a JSON object of {_named(keys) or 'nothing'}"


def _of_element(element: Any) -> tuple[str | None, str]:
    """By the first element of a list."""
    if isinstance(element, list):
        first = element[0] if element else None
        if isinstance(first, dict) and "keypoints" in first:
            return _of_element(first)
        return "mediapipe", "a list of lists of landmarks"
    if not isinstance(element, dict):
        return None, f"a JSON list of {type(element).__name__}"
    keypoints = element.get("keypoints")
    if "instances" in element or "keypoint_scores" in element:
        return "mmpose", "a list of instances with scores of their keypoints"
    if isinstance(keypoints, dict):
        return "ultralytics", "a list of people with x, y of their keypoints"
    if isinstance(keypoints, list) and ("box" in element or "idx" in element):
        return "alphapose", "a list of people with image_id, keypoints and box"
    if isinstance(keypoints, list):
        return "coco", "a list of results with image_id and keypoints"
    if ("x" in element and "y" in element) or any(name in element for name in mediapipe.HOLDERS):
        return "mediapipe", "a list of landmarks"
    return None, f"a JSON list of objects with {_named(element) or 'nothing'}"


def _named(names: Iterable[object]) -> str:
    """The first names of a file, which may hold anything, for one line."""
    return ", ".join(shown(name, 40) for name in itertools.islice(names, 8))


def _is_label(text: bytes) -> bool:
    try:
        return len([float(word) for word in text.split(b"\n")[0].split()]) >= 5 + 2 * 17
    except ValueError:
        return False
