"""Importers: one file per data set, all passing one contract suite; this is their registry."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from tips_dist.config import validate
from tips_dist.data.importers.pipeline import ImportRecord, Options, Source, convert
from tips_dist.data.importers.recognise import Recognised, recognise
from tips_dist.data.store import POSE_SUFFIX, SPLITS, TRUTH_SUFFIX, Writer, write_dataset
from tips_dist.files import JSON, UserError

_ALWAYS = ("minimum_change_mm", "minimum_change_2d", "stretches", "stretch_frames")

AUTO = "auto"

# Format -> what it reads; the module of the same name holds open_source().
FORMATS: dict[str, str] = {
    "cmu": "CMU motion capture as 17 joints in one HDF5 file, seen by virtual cameras",
    "bvh": "BVH motion capture, one file or a folder of them, seen by virtual cameras",
    "h36m_fetch": "Human3.6M as h36m-fetch leaves it: processed/<subject>/<action>/annot.h5",
    "h36m_videopose3d": "Human3.6M as VideoPose3D stores it: data_3d_h36m.npz and data_2d_h36m_*.npz (pickled)",
    "mpi_inf_3dhp": "MPI-INF-3DHP training set: S<n>/Seq<n>/annot.mat",
    "mpi_inf_3dhp_test": "MPI-INF-3DHP test set: TS<n>/annot_data.mat",
    "coco": "2D poses as COCO keypoint JSON, annotations or results, mapped by the names of its keypoints (no 3D)",
    "openpose": "OpenPose's JSON files, one for each frame; folders are cameras (no 3D)",
    "mmpose": "what MMPose's inferencer wrote, a file for each video or image (no 3D)",
    "ultralytics": "Ultralytics' pose results, JSON or text labels (no 3D)",
    "alphapose": "AlphaPose's alphapose-results.json (no 3D)",
    "mediapipe": "MediaPipe's 33 pose landmarks, JSON or CSV (no 3D)",
    "videopose3d_custom": "detections as VideoPose3D stores them: data_2d_custom_*.npz (pickled, no 3D)",
    "arrays": "named arrays in one .npz or HDF5 file",
}


class ImportSummary(TypedDict):
    """What an import wrote, and its :class:`.pipeline.ImportRecord`."""

    pose2d: str
    truth3d: str | None
    digest: str
    splits: dict[str, int]
    format: str
    source: str
    options: dict[str, JSON]
    image_px: tuple[int, int] | None
    seen: int
    kept: int
    stretches: int
    in_stretches: int
    dropped: dict[str, int]
    notes: list[str]
    warnings: list[str]
    findings: list[dict[str, str]]


def import_data(format: str, source: Path, prefix: Path, options: Mapping[str, JSON] | None = None) -> ImportSummary:
    """Convert a data set to ``PREFIX.pose2d.h5`` and, where it has 3D, ``PREFIX.truth3d.h5``; both or neither.

    ``format`` is one of :data:`FORMATS`, or ``auto``: told by the content, and the summary says by what.

    Returns a summary: files, digest, and the record of what was seen, kept and dropped and why. Progress is drawn
    while standard error is a terminal.

    Raises:
        UserError: an unknown format or option, or a source that does not fit the layout; nothing is written.
    """
    recognised: Recognised | None = None
    if format == AUTO:
        recognised = recognise(source, FORMATS)
        format = recognised.format
    if format not in FORMATS:
        near = difflib.get_close_matches(format, [AUTO, *FORMATS], n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"{format}: unknown format{hint}; known: {AUTO}, {', '.join(FORMATS)}")
    chosen = validate(Options, dict(options or {}), where=f"options of {format}")
    module = importlib.import_module(f"tips_dist.data.importers.{format}")
    uses = {*_ALWAYS, *module.USES}
    for key in options or {}:
        if key not in uses:
            raise UserError(f"options of {format}: {key} means nothing to it; it takes {', '.join(sorted(uses))}")
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    record = ImportRecord(
        format, source.name, {key: value for key, value in chosen.model_dump().items() if key in uses}
    )
    if recognised is not None:
        record.note(f"taken to be {format}: {recognised.by}")
    opened: Source = module.open_source(source, chosen, record)
    record.image_px = opened.image_px
    pose_path = prefix.with_name(prefix.name + POSE_SUFFIX)
    truth_path = prefix.with_name(prefix.name + TRUTH_SUFFIX) if opened.truth else None
    digests: list[str] = []
    splits: dict[str, int] = {}

    def fill(writer: Writer) -> None:
        with _progress(opened.total, format) as done:
            digests.append(convert(opened, chosen, record, writer, done))
        splits.update({split: writer.split_counts[code] for code, split in enumerate(SPLITS)})

    write_dataset(pose_path, truth_path, fill)
    if record.warnings:
        _warn(record.warnings)
    truth3d = None if truth_path is None else str(truth_path)
    return {
        "pose2d": str(pose_path),
        "truth3d": truth3d,
        "digest": digests[-1],
        "splits": splits,
        "format": record.format,
        "source": record.source,
        "options": record.options,
        "image_px": record.image_px,
        "seen": record.seen,
        "kept": record.kept,
        "stretches": record.stretches,
        "in_stretches": record.in_stretches,
        "dropped": record.dropped,
        "notes": record.notes,
        "warnings": record.warnings,
        "findings": record.findings,
    }


def _warn(warnings: list[str]) -> None:
    """What must not be missed, in a box on standard error."""
    from rich.panel import Panel
    from rich.text import Text

    from tips_dist.terminal import console

    console(stderr=True).print(Panel(Text("\n".join(warnings)), title="WARNING", border_style="bold red"))


@contextlib.contextmanager
def _progress(total: int | None, what: str) -> Iterator[Callable[[], None]]:
    """A bar of clips on standard error, or silence where that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import Progress

    from tips_dist.terminal import console

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"importing {what}", total=total)
        yield lambda: bar.advance(task)
