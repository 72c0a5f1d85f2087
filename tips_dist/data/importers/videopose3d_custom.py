"""2D detections in the layout of VideoPose3D: ``data_2d_custom_<name>.npz`` of its ``prepare_data_2d_custom.py``.

``positions_2d``: video → ``custom`` → list of one array (T, K, 2) px. ``metadata`` states ``layout_name`` and the size
of each video. The archive is pickled, so this needs ``allow_pickle=true``; see :mod:`.unpickling`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.data import joint_maps
from tips_dist.data.importers import detections
from tips_dist.data.importers.detections import Person, Place
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source
from tips_dist.data.importers.unpickling import load_object
from tips_dist.data.npz import archive
from tips_dist.files import UserError

USES = (*detections.USES_OF_VIDEOS, "allow_pickle")


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read the archive.

    Raises:
        UserError: unpickling is not allowed, or the content is laid out differently.
    """
    if not options.allow_pickle:
        raise UserError(
            f"{source}: this layout is pickled; say allow_pickle=true to read it with an unpickler that knows "
            "arrays and plain containers only"
        )
    with archive(source) as file:
        videos, metadata = load_object(file, source, "positions_2d"), load_object(file, source, "metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not isinstance(videos, dict) or not videos:
        raise UserError(f"{source}: positions_2d: expected video → 'custom' → list of arrays (T, K, 2)")
    layout = str(metadata.get("layout_name", ""))
    if options.keypoints is None and layout in joint_maps.ORDERS:
        record.note(f"layout_name says {layout}")
    people = detections.gather(source, _persons(source, videos), options, record)

    def place(image: Any) -> Place:
        video, camera, frame = image
        return Place(video, f"camera_{camera}", video, frame)

    return detections.opened(
        f"VideoPose3D detections ({source.name})", people, place, options, record, image_px=_size(metadata)
    )


def _persons(path: Path, videos: dict[Any, Any]) -> Iterator[Person]:
    for video, actions in videos.items():
        views = actions.get("custom") if isinstance(actions, dict) else None
        where = f"{path}: positions_2d, {video!s:.60}"
        if isinstance(views, np.ndarray) and views.ndim == 4:
            views = list(views)
        if not isinstance(views, list):
            raise UserError(f"{where}: expected 'custom' → a list of arrays (T, K, 2)")
        for camera, view in enumerate(views):
            if not isinstance(view, np.ndarray) or view.ndim != 3 or view.shape[2] not in (2, 3):
                raise UserError(f"{where}, camera {camera}: expected an array (T, K, 2)")
            if view.dtype.kind != "f":
                raise UserError(f"{where}, camera {camera}: is {view.dtype}, expected floats")
            for frame, points in enumerate(view):
                scored = points if points.shape[1] == 3 else np.column_stack([points, np.ones(len(points))])
                yield Person((str(video), camera, frame), array("d", scored.ravel().astype(np.float64).tobytes()))


def _size(metadata: dict[Any, Any]) -> tuple[int, int] | None:
    """The largest width and height of the videos, where stated."""
    stated = metadata.get("video_metadata")
    sizes = [size for size in stated.values() if isinstance(size, dict)] if isinstance(stated, dict) else []
    sides = [[side for size in sizes if isinstance(side := size.get(name), int) and 0 < side < 10**6] for name in "wh"]
    return (max(sides[0]), max(sides[1])) if all(sides) else None
