"""Looking at a pose file: counts, splits, ranges, hygiene findings, and a picture of some poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.data import hygiene
from tips_dist.data.store import SPLITS, Poses, normalisation_scale, read_poses, read_record
from tips_dist.drawing import bone_colours
from tips_dist.files import UserError, write_with
from tips_dist.skeleton import BONES, HEAD, ROOT


def inspect(path: Path) -> dict[str, Any]:
    """Describe a pose file in plain data: counts, splits, subjects, ranges in px, findings, the import's record.

    Raises:
        UserError: the file is missing, damaged or not a pose file.
    """
    poses, record = read_poses(path), read_record(path)
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
        "findings": [finding.plain(len(poses)) for finding in examine(poses, record)],
        "record": record,
    }


def examine(poses: Poses, record: dict[str, Any]) -> list[hygiene.Finding]:
    """What the hygiene checks found, with the image size that the import wrote down."""
    stated = record.get("image_px")
    known = isinstance(stated, list) and len(stated) == 2 and all(isinstance(side, int) for side in stated)
    return hygiene.examine(poses, (stated[0], stated[1]) if stated is not None and known else None)


def draw(path: Path, picture: Path, rows: int = 15) -> None:
    """Draw evenly spaced poses of a pose file into a PNG, then examples of what the hygiene checks found.

    The body's left is blue, its right red. Findings that concern two rows (a swap, a duplicate, a near-copy) show the
    row that was found.

    Raises:
        UserError: the pose file is bad, or the picture cannot be written.
    """
    if picture.suffix.lower() != ".png":
        raise UserError(f"{picture}: pictures are written as PNG; choose a name that ends in .png")
    poses = read_poses(path)
    spread = np.linspace(0, len(poses) - 1, min(rows, len(poses))).round().astype(int)
    shown = [(int(row), "") for row in spread]
    for finding in examine(poses, read_record(path)):
        shown += [(int(row), finding.check) for row in finding.rows[:: max(1, len(finding.rows) // 5)][:5]]
    titles = [f"{poses.sequence_names[poses.sequence[row]]}\nrow {row}, {SPLITS[poses.split[row]]}" for row, _ in shown]
    flags = [check for _, check in shown]
    chosen = poses.poses[[row for row, _ in shown]]
    write_with(picture, lambda temporary: _draw(chosen, titles, flags, poses.source, temporary))


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


def _draw(poses: Any, titles: list[str], flags: list[str], heading: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(5, len(poses))
    lines = -(-len(poses) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.1 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for k, (pose, title, flag) in enumerate(zip(poses, titles, flags, strict=True)):
        axes = figure.add_subplot(lines, columns, k + 1)
        for bone, colour in zip(BONES, bone_colours(), strict=True):
            share = [value / 255 for value in colour]
            axes.plot(*pose[list(bone)].T, color=share, linewidth=2, solid_capstyle="round")
        axes.set_title(f"{flag}\n{title}" if flag else title, fontsize=7, color="#c00000" if flag else "black")
        axes.set_aspect("equal", adjustable="datalim")
        axes.invert_yaxis()
        axes.tick_params(labelsize=6)
    figure.suptitle(f"{heading} (left blue, right red; pixels)", fontsize=9)
    figure.savefig(path, format="png", dpi=100)
