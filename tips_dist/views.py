"""Pictures of lifted poses: the 2D input beside the 3D pose from two new sides, as PNG or as an animated GIF.

The two views are what a camera would see after walking 45° and 90° around the person, looking slightly down; if the
depths are right, both look human. Left side blue, right side red, trunk grey; nearer bones are drawn over farther.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tips_dist.drawing import stick_figure
from tips_dist.files import write_with

Floats = npt.NDArray[np.float32]

CELL = 240  # pixels of one view
HEADING = 20
FINE = 2  # drawn larger by this factor, then reduced, for smooth lines
PICTURED_POSES = 8  # rows of a picture
MOST_FRAMES = 300  # of an animation
TITLES = ("2D input", "3D, from 45° to the side", "3D, from the side")
AZIMUTHS = (45.0, 90.0)
ELEVATION = 12.0
_GROUND, _GRID = (228, 228, 228), 5


def write_picture(path: Path, poses: Floats, lifted: Floats) -> int:
    """Draw the first poses (N, 17, 2), (N, 17, 3), at most :data:`PICTURED_POSES`, into a PNG; returns how many."""
    count = min(len(poses), PICTURED_POSES)
    rows = [row(pose, body) for pose, body in zip(poses[:count], lifted[:count], strict=True)]
    image = Image.new("RGB", (rows[0].width, HEADING + CELL * count), "white")
    _headings(image)
    for index, drawn in enumerate(rows):
        image.paste(drawn, (0, HEADING + index * CELL))
    write_with(path, lambda temporary: image.save(temporary, format="PNG"))
    return count


def write_animation(path: Path, poses: Floats, lifted: Floats, frame_rate_hz: float = 0.0) -> int:
    """Draw the first poses, at most :data:`MOST_FRAMES`, one a frame, into a GIF; returns how many.

    An unknown frame rate (0) plays as 10 Hz. All frames share one scale, so a person does not pulsate.
    """
    count = min(len(poses), MOST_FRAMES)
    reach = reaches(poses[:count], lifted[:count])
    frames = []
    for pose, body in zip(poses[:count], lifted[:count], strict=True):
        drawn = row(pose, body, reach)
        frame = Image.new("RGB", (drawn.width, HEADING + CELL), "white")
        _headings(frame)
        frame.paste(drawn, (0, HEADING))
        frames.append(frame.quantize(64))
    duration = max(20, round(1000 / (frame_rate_hz or 10.0)))  # viewers play shorter ones slowly

    def save(temporary: Path) -> None:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)

    write_with(path, save)
    return count


def reaches(poses: Floats, lifted: Floats) -> tuple[float, float]:
    """How far any joint is from its pose's middle: in 2D, and in 3D."""
    flat = poses - _middle(poses)
    body = lifted - _middle(lifted)
    return float(np.abs(flat).max()) or 1.0, float(np.linalg.norm(body, axis=-1).max()) or 1.0


def row(pose: Floats, body: Floats, reach: tuple[float, float] | None = None) -> Image.Image:
    """One pose (17, 2) and its lift (17, 3) as three views side by side."""
    flat_reach, body_reach = reach or reaches(pose[None], body[None])
    flat = np.concatenate([pose - _middle(pose), np.zeros((17, 1), np.float32)], axis=1)
    image = Image.new("RGB", (3 * CELL * FINE, CELL * FINE), "white")
    draw = ImageDraw.Draw(image)
    _skeleton(draw, flat / flat_reach, 0, ground=None)
    centred = (body - _middle(body)) / body_reach
    for column, azimuth in enumerate(AZIMUTHS, start=1):
        rotation = turn(azimuth, ELEVATION)
        _skeleton(draw, centred @ rotation.T, column, ground=_ground(centred) @ rotation.T)
    return image.resize((3 * CELL, CELL), Image.Resampling.LANCZOS)


def turn(azimuth: float, elevation: float) -> npt.NDArray[np.float64]:
    """The rotation (3, 3) into the frame of a camera that went ``azimuth`` degrees around and looks down."""
    a, e = np.radians(azimuth), np.radians(elevation)
    around = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    down = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return np.asarray(down @ around)


def _middle(points: Floats) -> Floats:
    return np.asarray((points.max(axis=-2, keepdims=True) + points.min(axis=-2, keepdims=True)) / 2)


def _ground(body: Floats) -> npt.NDArray[np.float64]:
    """End points (2 x 2 x grid, 3) of the lines of a square below the lowest joint."""
    side, level = np.linspace(-0.6, 0.6, _GRID), float(body[:, 1].max())
    ends = np.array([-0.6, 0.6])
    along = [[(x, level, z) for z in ends] for x in side]
    across = [[(x, level, z) for x in ends] for z in side]
    return np.array(along + across).reshape(-1, 3)


def _skeleton(
    draw: ImageDraw.ImageDraw,
    points: npt.NDArray[np.floating],
    column: int,
    ground: npt.NDArray[np.floating] | None,
) -> None:
    """Draw the bones, the farthest first, of points (17, 3) within a unit ball, on the lines of a ground."""

    def place(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return (np.asarray(values)[:, :2] * 0.46 + (column + 0.5, 0.5)) * CELL * FINE

    if ground is not None:
        ends = [(float(x), float(y)) for x, y in place(ground)]
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            draw.line([start, end], fill=_GROUND, width=FINE)
    stick_figure(draw, place(points), 4 * FINE, points[:, 2])


def _headings(image: Image.Image) -> None:
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(TITLES):
        draw.text((column * CELL + 6, 3), title, fill="black")
