"""Stick figures, their colours, and small pictures of poses and matrices that are quick to draw during training.

Every picture of a body takes its colours from here: the body's left is blue, its right red, its trunk grey.
N poses of 17 joints; camera frame: x right, y down, z away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tips_dist.skeleton import BONES, JOINTS

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]  # (height, width, 3)

Colour = tuple[int, int, int]  # red, green, blue
SIDE_COLOUR: dict[str, Colour] = {"left": (72, 92, 225), "right": (214, 39, 40), "trunk": (118, 118, 118)}
BONE_SIDES: tuple[str, ...] = tuple(  # of each bone, (16): that of the joint at its far end
    next((side for side in SIDE_COLOUR if JOINTS[child].startswith(side)), "trunk") for _, child in BONES
)
COLUMN_TITLES = ("2D input", "lifted: front", "lifted: side")
_LINES: tuple[Colour, ...] = ((0, 90, 145), (184, 74, 0), (0, 128, 96), (150, 70, 120), (90, 90, 90), (130, 100, 0))
_LEGEND = 4  # names in a row
_NAMES = 104  # pixels
_CELL, _HEAD, _FINE = 110, 14, 2  # pixels of a cell, of a heading; drawn larger by this factor, for smooth lines


def bone_colours() -> list[Colour]:
    """The colour of each bone, (16) RGB triples."""
    return [SIDE_COLOUR[side] for side in BONE_SIDES]


def stick_figure(
    draw: ImageDraw.ImageDraw, pixels: NDArray[np.floating], width: int, depths: NDArray[np.floating] | None = None
) -> None:
    """Draw the bones of one pose, ``pixels`` (17, 2), as lines of ``width`` pixels.

    With ``depths`` (17) the farthest bone comes first, and a white rim sets each apart from those behind it.
    """
    order = range(len(BONES))
    if depths is not None:
        order = np.argsort([-float(depths[parent] + depths[child]) for parent, child in BONES], kind="stable").tolist()
    points = [(float(x), float(y)) for x, y in pixels]
    colours = bone_colours()
    for index in order:
        ends = [points[joint] for joint in BONES[index]]
        if depths is not None:
            draw.line(ends, fill="white", width=2 * width)
        draw.line(ends, fill=colours[index], width=width)
        if depths is not None:
            for x, y in ends:
                draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=colours[index])


def pose_picture(poses: Floats, lifted: Floats) -> Picture:
    """Draw a row per pose: the 2D input (N, 17, 2) beside its lift (N, 17, 3) from the front and from the side.

    In the side view the camera stands to the left, so a knee that bends forward points to it in a walking pose.
    """
    columns = (poses, lifted[..., :2], lifted[..., [2, 1]])
    size = (len(columns) * _CELL * _FINE, (len(poses) * _CELL + _HEAD) * _FINE)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for column, points in enumerate(columns):
        reach = 2.2 * max(float(np.abs(points).max(initial=0.0, where=np.isfinite(points))), 1e-6)
        for row, pose in enumerate(points):
            middle = np.array([column + 0.5, row + 0.5]) * _CELL + (0, _HEAD)
            pixels = (np.nan_to_num(pose).clip(-reach, reach) / reach * _CELL + middle) * _FINE
            stick_figure(draw, pixels, 2 * _FINE)
    image = image.resize((size[0] // _FINE, size[1] // _FINE), Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(COLUMN_TITLES):
        draw.text((column * _CELL + 4, 1), name, fill="black")
    return np.asarray(image)


def matrix_picture(values: Floats, heading: str = "", cell: int = 15) -> Picture:
    """Draw a matrix (17, 17) of shares 0..1 as squares, white to dark blue.

    Each row has its joint's number and name before it, each column the number above it; ``heading`` is the first line.
    """
    share = np.nan_to_num(values).clip(0, 1)[..., None]
    colours = (255 * (1 - share) + np.array([8, 48, 107]) * share).astype(np.uint8)
    squares = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    image = Image.new("RGB", (_NAMES + squares.shape[1], 2 * cell + squares.shape[0]), "white")
    image.paste(Image.fromarray(squares), (_NAMES, 2 * cell))
    draw = ImageDraw.Draw(image)
    draw.text((2, cell // 2), heading, fill="black", anchor="lm")
    for index, name in enumerate(JOINTS):
        place = index * cell + cell // 2
        draw.text((2, 2 * cell + place), f"{index} {name.replace('_', ' ')}", fill="black", anchor="lm")
        draw.text((_NAMES + place, cell + cell // 2), str(index), fill="black", anchor="mm")
    return np.asarray(image)


def curve_picture(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], heading: str, width: int = 640, height: int = 320
) -> Picture:
    """Draw lines, name -> (x, y), y may hold NaN, in frames of their common range, each named below in its colour."""
    names = 16 * -(-len(lines) // _LEGEND)
    image = Image.new("RGB", (width, height + names), "white")
    draw = ImageDraw.Draw(image)
    table = [np.array(line, float) for line in lines.values()]
    finite = [line[:, np.isfinite(line[1])] for line in table]
    known = np.concatenate(finite, axis=1) if finite else np.empty((2, 0))
    draw.text((8, 6), heading, fill="black")
    if known.shape[1]:
        low = known.min(axis=1)
        span = np.maximum(known.max(axis=1) - low, 1e-12)
        corner, size = np.array([64, height - 24]), np.array([width - 80, height - 56])
        draw.rectangle([corner[0], corner[1] - size[1], corner[0] + size[0], corner[1]], outline=(160, 160, 160))
        for index, line in enumerate(finite):
            places = corner + (line.T - low) / span * size * (1, -1)
            colour = _LINES[index % len(_LINES)]
            draw.line([(float(x), float(y)) for x, y in places], fill=colour, width=2)
        for end, anchor in ((low, "ld"), (low + span, "la")):
            place = corner[1] - (end[1] - low[1]) / span[1] * size[1]
            draw.text((6, float(place)), f"{end[1]:.4g}", fill="black", anchor=anchor)
        draw.text((float(corner[0]), height - 20), f"{low[0]:g}", fill="black")
        draw.text((float(corner[0] + size[0]), height - 20), f"{low[0] + span[0]:g}", fill="black", anchor="ra")
    for index, name in enumerate(lines):
        place = (8 + index % _LEGEND * (width // _LEGEND), height + index // _LEGEND * 16)
        draw.text(place, name, fill=_LINES[index % len(_LINES)])
    return np.asarray(image)


def depth_correlation(depths: NDArray[np.floating]) -> Floats:
    """How far the predicted depths of two joints move together: |correlation| over poses, mean over seeds.

    ``depths`` (S, V, 17) to (17, 17); 0 for the root, whose depth is fixed, and for seeds that are not finite.
    """
    found = []
    for values in depths.astype(np.float64):
        centred = values - values.mean(axis=0)
        norm = np.sqrt((centred**2).sum(axis=0))
        scale = np.outer(norm, norm)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(scale > 1e-12, np.abs(centred.T @ centred) / scale, 0.0))
    return np.asarray(np.nan_to_num(np.mean(found, axis=0)), np.float32)


def stick_mesh(lifted: Floats, thickness: float = 0.02) -> tuple[Floats, Picture, NDArray[np.int32]]:
    """Poses (N, 17, 3) side by side as one mesh of three-sided bars: vertices (M, 3), colours (M, 3), faces (F, 3).

    y points up in the mesh, as viewers expect.
    """
    poses = np.nan_to_num(lifted).clip(-5, 5) * np.array([1, -1, -1], np.float32)
    poses = poses + np.arange(len(poses), dtype=np.float32)[:, None, None] * np.array([1.5, 0, 0], np.float32)
    parents, children = (poses[:, [bone[end] for bone in BONES]] for end in (0, 1))  # (N, 16, 3)
    along = children - parents
    across = np.cross(along, np.array([0.3, 0.2, 1.0], np.float32))
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)
    other = np.cross(along, across) / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    turns = np.array([0, 2, 4]) * np.pi / 3
    corners = thickness * (across[..., None, :] * np.cos(turns)[:, None] + other[..., None, :] * np.sin(turns)[:, None])
    vertices = np.concatenate([parents[..., None, :] + corners, children[..., None, :] + corners], axis=-2)
    side = np.array([[0, 1, 3], [1, 4, 3], [1, 2, 4], [2, 5, 4], [2, 0, 5], [0, 3, 5]])
    bars = vertices.shape[0] * vertices.shape[1]
    faces = (side + 6 * np.arange(bars)[:, None, None]).reshape(-1, 3).astype(np.int32)
    colours = np.tile(np.array(bone_colours(), np.uint8).repeat(6, axis=0), (len(poses), 1))
    return vertices.reshape(-1, 3).astype(np.float32), colours, faces
