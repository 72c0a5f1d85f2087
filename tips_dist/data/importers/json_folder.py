"""Folders of JSON files, one for each frame, as several detectors write them: their place by folder and file name."""

from __future__ import annotations

import re
from pathlib import Path

from tips_dist.data.importers.detections import Place, padded
from tips_dist.files import UserError

_NUMBER = re.compile(r"(\d+)(?=\D*$)")
_FRAME_WORDS = re.compile(r"[_.\- ]*(keypoints|frame|pose|openpose|results?)?[_.\- ]*$", re.IGNORECASE)


def files(source: Path, suffix: str, what: str) -> list[Path]:
    """The files of a source, itself one or a folder of them at any depth, in natural order.

    Raises:
        UserError: there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(source.rglob(f"*{suffix}"), key=lambda path: padded(str(path.relative_to(source))))
    found = [path for path in found if path.is_file()]
    if not found:
        raise UserError(f"{source}: no {suffix} files in it; expected {what}")
    return found


def file_places(source: Path, paths: list[Path]) -> dict[Path, Place]:
    """Where each file belongs: the last number in its name is the frame, its folder the camera.

    ``FILE``: one camera. ``CAMERA/FILE``: a folder for each camera. ``SEQUENCE/CAMERA/FILE``: and one for each
    recording. Different words before the number in one folder are different recordings.
    """
    if source.is_file():
        return {source: Place(source.stem, "camera_0", source.name, 0)}
    split = {path: numbered(path.stem) for path in paths}
    words: dict[Path, set[str]] = {}
    for path, (word, _) in split.items():
        words.setdefault(path.parent, set()).add(word)
    found = {}
    for path in paths:
        *above, camera = path.parent.relative_to(source).parts or ("camera_0",)
        word, number = split[path]
        parts = [*above, word] if len(words[path.parent]) > 1 and word else above
        found[path] = Place("/".join(parts) or source.resolve().name, camera, path.name, number)
    if any(place.frame is None for place in found.values()):
        found = {path: place._replace(frame=None) for path, place in found.items()}
    return found


def numbered(stem: str) -> tuple[str, int | None]:
    """The words before the frame number of a file's name, and the number."""
    found = _NUMBER.search(stem)
    if found is None or (len(found[1]) > 9 and int(found[1]) >= 2**31):
        return stem, None
    return _FRAME_WORDS.sub("", stem[: found.start()]), int(found[1])
