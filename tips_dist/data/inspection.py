"""Looking at a pose file: counts, splits, ranges, hygiene findings, and a picture of some poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.data.store import SPLITS, Poses, normalisation_scale, read_poses, read_record
from tips_dist.files import UserError, write_with
from tips_dist.skeleton import BONES, HEAD, JOINTS, ROOT

COLOURS = {"left": "#1f77b4", "right": "#d62728", "middle": "#444444"}


def inspect(path: Path) -> dict[str, Any]:
    """Describe a pose file in plain data: counts, splits, subjects, ranges in px, findings, the import's record.

    Raises:
        UserError: the file is missing, damaged or not a pose file.
    """
    poses = read_poses(path)
    xy = poses.poses
    length = np.linalg.norm(xy[:, HEAD] - xy[:, ROOT], axis=-1)
    return {
        "file": str(path),
        "source": poses.source,
        "digest": poses.digest,
        "frame_rate_hz": poses.frame_rate_hz,
        "poses": len(poses),
        "splits": {split: _split(poses, code) for code, split in enumerate(SPLITS)},
        "subjects": _per_split(poses.subject, poses.split, poses.subject_names),
        "cameras": _per_split(poses.camera, poses.split, poses.camera_names),
        "sequences": len(poses.sequence_names),
        "ranges": {
            "x_px": [float(xy[..., 0].min()), float(xy[..., 0].max())],
            "y_px": [float(xy[..., 1].min()), float(xy[..., 1].max())],
            "root_to_head_px": [float(length.min()), float(length.mean()), float(length.max())],
        },
        "normalisation_scale_px": normalisation_scale(poses) if len(poses.rows("train")) else None,
        "findings": findings(poses),
        "record": read_record(path),
    }


def findings(poses: Poses) -> list[dict[str, Any]]:
    """Hygiene checks that found something: each names the check, the number of rows, their share and the first row."""
    flat = np.ascontiguousarray(poses.poses.reshape(len(poses), -1))
    _, first = np.unique(flat.view(np.dtype((np.void, flat.strides[0]))).ravel(), return_index=True)
    again = np.ones(len(poses), dtype=bool)
    again[first] = False
    size = np.ptp(poses.poses, axis=1).max(axis=-1)
    crossing = np.zeros(len(poses), dtype=bool)
    for code in range(len(poses.sequence_names)):
        rows = poses.sequence == code
        if np.unique(poses.split[rows]).size > 1:
            crossing |= rows
    checks = {
        "duplicates": (again, "the same pose stands in an earlier row"),
        "zero_size": (size < 1.0, "all joints lie within one pixel"),
        "sequence_in_two_splits": (crossing, "its sequence is in more than one split, so the splits leak"),
    }
    return [
        {
            "check": name,
            "rows": int(bad.sum()),
            "share": float(bad.mean()),
            "first_row": int(bad.argmax()),
            "text": text,
        }
        for name, (bad, text) in checks.items()
        if bad.any()
    ]


def draw(path: Path, picture: Path, rows: int = 15) -> None:
    """Draw evenly spaced poses of a pose file into a PNG: the body's left blue, its right red.

    Raises:
        UserError: the pose file is bad, or the picture cannot be written.
    """
    if picture.suffix.lower() != ".png":
        raise UserError(f"{picture}: pictures are written as PNG; choose a name that ends in .png")
    poses = read_poses(path)
    chosen = np.linspace(0, len(poses) - 1, min(rows, len(poses))).round().astype(int)
    titles = [f"{poses.sequence_names[poses.sequence[row]]}\nrow {row}, {SPLITS[poses.split[row]]}" for row in chosen]
    write_with(picture, lambda temporary: _draw(poses.poses[chosen], titles, f"{poses.source}", temporary))


def _split(poses: Poses, code: int) -> dict[str, int]:
    rows = poses.split == code
    return {
        "poses": int(rows.sum()),
        "sequences": int(np.unique(poses.sequence[rows]).size),
        "subjects": int(np.unique(poses.subject[rows]).size),
        "cameras": int(np.unique(poses.camera[rows]).size),
    }


def _per_split(codes: Any, split: Any, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    table = np.zeros((len(names), len(SPLITS)), dtype=int)
    np.add.at(table, (codes, split), 1)
    return {name: dict(zip(SPLITS, map(int, table[k]), strict=True)) for k, name in enumerate(names)}


def _draw(poses: Any, titles: list[str], heading: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(5, len(poses))
    lines = -(-len(poses) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.1 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for k, (pose, title) in enumerate(zip(poses, titles, strict=True)):
        axes = figure.add_subplot(lines, columns, k + 1)
        for parent, child in BONES:
            name = JOINTS[child].split("_")[0]
            colour = COLOURS.get(name, COLOURS["middle"])
            axes.plot(*pose[[parent, child]].T, color=colour, linewidth=2, solid_capstyle="round")
        axes.set_title(title, fontsize=7)
        axes.set_aspect("equal", adjustable="datalim")
        axes.invert_yaxis()
        axes.tick_params(labelsize=6)
    figure.suptitle(f"{heading} (left blue, right red; pixels)", fontsize=9)
    figure.savefig(path, format="png", dpi=100)
