"""Looking at a pose file: counts, splits, ranges, findings, and a picture of mean poses and of some rows.

What is wrong with single poses and with splits is found by :mod:`.hygiene`, what is not human about a person by
:mod:`.anatomy`: from 2D here, and from 3D by the import, which wrote it into the file's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from tips_dist.data import anatomy, hygiene
from tips_dist.data.store import ORDINARY, SPLITS, Poses, normalisation_scale, read_poses, read_record
from tips_dist.drawing import SIDE_COLOUR, bone_colours
from tips_dist.files import JSON, UserError, write_with
from tips_dist.skeleton import BONES, HEAD, ROOT, J

SEVERITIES = ("error", "warning", "note")


class Inspection(TypedDict):
    """What there is to say of a pose file, plain, for printing."""

    file: str
    source: str
    digest: str
    frame_rate_hz: float
    poses: int
    splits: dict[str, dict[str, int]]
    subjects: dict[str, dict[str, int]]  # name -> split -> poses
    cameras: dict[str, dict[str, int]]
    sequences: int
    ranges: dict[str, list[float]]  # x and y: least and most; root to head: least, mean and most
    normalisation_scale_px: float | None
    persons_examined: str
    findings: list[hygiene.FindingAnswer]
    record: dict[str, JSON]  # the import's
    picture: NotRequired[str]


def inspect(path: Path) -> Inspection:
    """Describe a pose file: counts, splits, subjects, ranges in px, findings, the import's record.

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
        "persons_examined": f"{len(examined(poses))} of {len(poses.subject_names)}",
        "findings": [finding.plain(len(poses)) for finding in findings_of(poses, record)],
        "record": record,
    }


def findings_of(poses: Poses, record: Mapping[str, JSON]) -> list[hygiene.Finding]:
    """Everything that was found, the worst first: by severity, then by how many rows it concerns."""
    image_px = None
    match record.get("image_px"):
        case [int(width), int(height)]:
            image_px = (width, height)
    findings = hygiene.examine(poses, image_px)
    findings += _of_persons(poses, record)
    return sorted(findings, key=lambda found: (SEVERITIES.index(found.severity), -len(found.rows)))


def examined(poses: Poses) -> list[tuple[str, Any]]:
    """Name and rows of every person of whom there are poses enough; those with fewer count together as the rest."""
    ordinary = np.flatnonzero(poses.stretch == ORDINARY)
    persons: list[tuple[str, Any]] = []
    rest: list[tuple[str, Any]] = []
    for code, name in enumerate(poses.subject_names):
        rows = ordinary[poses.subject[ordinary] == code]
        (persons if len(rows) >= anatomy.LEAST else rest).append((name, rows))
    if rest and (pooled := np.concatenate([rows for _, rows in rest])).size >= anatomy.LEAST:
        persons.append((f"{len(rest)} persons with few poses" if len(rest) > 1 else rest[0][0], np.sort(pooled)))
    return persons


def _body(poses: Poses, rows: Any) -> anatomy.Body:
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), anatomy.MOST)).round().astype(int)]
    group = poses.sequence[rows].astype(np.int64) * len(poses.camera_names) + poses.camera[rows]
    return anatomy.Body(poses.poses[rows].astype(np.float64), poses.present[rows], group)


def _of_persons(poses: Poses, record: Mapping[str, JSON]) -> list[hygiene.Finding]:
    """What is not human, one finding for each check with the rows of all persons that it concerns."""
    found: dict[str, list[tuple[str, Any, str]]] = {}
    everybody = np.flatnonzero(poses.stretch == ORDINARY)
    for name, rows in examined(poses):
        for check, text in anatomy.wrong_with(_body(poses, rows)):
            found.setdefault(check, []).append((name, rows, text))
    if (swapped := anatomy.sides_swapped(_body(poses, everybody))) is not None:
        found.setdefault(swapped.check, []).append(("", everybody, swapped.text))
    stated = record.get("findings")
    for entry in stated if isinstance(stated, list) else []:
        if isinstance(entry, dict) and {"check", "subject", "text"} <= entry.keys():
            name = str(entry["subject"])
            code = poses.subject_names.index(name) if name in poses.subject_names else -1
            rows = everybody[poses.subject[everybody] == code] if code >= 0 else everybody
            found.setdefault(str(entry["check"]), []).append((name, rows, str(entry["text"])))
    findings = []
    for check, cases in found.items():
        names = list(dict.fromkeys(name for name, _, _ in cases if name))
        who = f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: " if names else ""
        rows = np.unique(np.concatenate([rows for _, rows, _ in cases]))
        findings.append(hygiene.Finding(check, rows, who + cases[0][2]))
    return findings


def draw_picture(path: Path, picture: Path, rows: int = 15) -> None:
    """Draw mean poses from the front and the side into a PNG, then evenly spaced poses and examples of what was found.

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
    for finding in findings_of(poses, read_record(path)):
        shown += [(int(row), finding.check) for row in finding.rows[:: max(1, len(finding.rows) // 5)][:5]]
    titles = [f"{poses.sequence_names[poses.sequence[row]]}\nrow {row}, {SPLITS[poses.split[row]]}" for row, _ in shown]
    flags = [check for _, check in shown]
    chosen = poses.poses[[row for row, _ in shown]]
    means = anatomy.mean_poses(_body(poses, np.flatnonzero(poses.stretch == ORDINARY)))
    write_with(picture, lambda temporary: _draw(chosen, titles, flags, means, poses.source, temporary))


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


def _draw(poses: Any, titles: list[str], flags: list[str], means: Any, heading: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(5, max(len(poses), 3))
    lines = 1 + -(-len(poses) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.1 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for k, view in enumerate(("front", "side")):
        axes = figure.add_subplot(lines, columns, k + 1)
        if view in means:
            pose, count = means[view]
            _skeleton(axes, pose, names=True)
            where = "from the front" if view == "front" else "from the side, looking right"
            axes.set_title(f"mean {where}\n({count} poses; 1 = hip to head)", fontsize=7)
            axes.margins(0.2)
        else:
            axes.set_axis_off()
            axes.set_title("too few poses for a mean", fontsize=7)
    _legend(figure.add_subplot(lines, columns, 3))
    for k, (pose, title, flag) in enumerate(zip(poses, titles, flags, strict=True)):
        axes = figure.add_subplot(lines, columns, columns + k + 1)
        _skeleton(axes, pose)
        axes.set_title(f"{flag}\n{title}" if flag else title, fontsize=7, color="#c00000" if flag else "black")
    figure.suptitle(f"{heading} (pixels, but for the means)", fontsize=9)
    figure.savefig(path, format="png", dpi=100)


def _skeleton(axes: Any, pose: Any, *, names: bool = False) -> None:
    for bone, colour in zip(BONES, bone_colours(), strict=True):
        axes.plot(*pose[list(bone)].T, color=_shares(colour), linewidth=2, solid_capstyle="round")
    if names:
        axes.scatter(*pose.T, s=6, color="black", zorder=3)
        for joint in ("hip", "spine", "thorax", "neck", "head"):
            axes.annotate(joint, pose[J[joint]], (4, 0), textcoords="offset points", fontsize=5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_yaxis()
    axes.tick_params(labelsize=6)


def _shares(colour: tuple[int, int, int]) -> list[float]:
    return [value / 255 for value in colour]


def _legend(axes: Any) -> None:
    from matplotlib.lines import Line2D

    texts = {"left": "the body's left", "right": "the body's right", "trunk": "trunk and head"}
    handles = [Line2D([], [], color=_shares(SIDE_COLOUR[side]), linewidth=2) for side in texts]
    axes.set_axis_off()
    axes.legend(handles, texts.values(), loc="center", fontsize=8, frameon=False)
