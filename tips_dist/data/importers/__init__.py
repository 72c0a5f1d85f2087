"""Importers: one file per data set, all passing one contract suite; this is their registry."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from tips_dist.data.importers.pipeline import ImportRecord, Options, Source, convert
from tips_dist.data.importers.recognise import Recognised, recognise
from tips_dist.data.store import POSE_SUFFIX, SPLITS, TRUTH_SUFFIX
from tips_dist.data.writer import Writer, write_dataset
from tips_dist.files import JSON, UserError
from tips_dist.phases import phase
from tips_dist.registry import UnknownName, built_in, entries, entry, nearest, register
from tips_dist.sections import validate

_ALWAYS = ("minimum_change_mm", "minimum_change_2d", "stretches", "stretch_frames")

AUTO = "auto"

# Format -> what it reads; the module of the same name is the importer.
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


class Importer(Protocol):
    """What every importer offers; the contract suite in :mod:`tips_dist.testing` holds for each."""

    @property
    def USES(self) -> Collection[str]:  # noqa: N802 (a module's constant)
        """The options that it takes, of :class:`.pipeline.Options`."""
        ...

    def open_source(self, path: Path, options: Options, record: ImportRecord) -> Source:
        """What a data set holds, to be streamed; ``record`` notes what was seen, kept and dropped, and why.

        Raises:
            UserError: the source does not fit the layout.
        """
        ...


@dataclass(frozen=True)
class _Module:
    """A built-in importer, imported when it is used."""

    name: str

    @property
    def USES(self) -> Collection[str]:  # noqa: N802
        found: Collection[str] = self._module.USES
        return found

    def open_source(self, path: Path, options: Options, record: ImportRecord) -> Source:
        found: Source = self._module.open_source(path, options, record)
        return found

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.name}")


def _check(name: str, value: object) -> None:
    if not callable(getattr(value, "open_source", None)) or not hasattr(value, "USES"):
        raise UserError(f"expected a module or object with USES and open_source, got {value!r:.80}")


with built_in("importers", _check):
    for _name, _about in FORMATS.items():
        register("importers", _name, _Module(_name), about=_about)


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

    ``format`` is one of :data:`FORMATS`, that of a plug-in, or ``auto``: told by the content, and the summary says by
    what.

    Returns a summary: files, digest, and the record of what was seen, kept and dropped and why. It is a phase
    (:mod:`tips_dist.phases`) of so many clips.

    Raises:
        UserError: an unknown format or option, or a source that does not fit the layout; nothing is written.
    """
    recognised: Recognised | None = None
    if format == AUTO:
        recognised = recognise(source, FORMATS)
        format = recognised.format
    try:
        module: Importer = entry("importers", format).value
    except UnknownName:
        known = [AUTO, *(one.name for one in entries("importers"))]
        raise UserError(f"{format}: unknown format{nearest(format, known)}; known: {', '.join(known)}") from None
    chosen = validate(Options, dict(options or {}), where=f"options of {format}")
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
    opened = module.open_source(source, chosen, record)
    record.image_px = opened.image_px
    pose_path = prefix.with_name(prefix.name + POSE_SUFFIX)
    truth_path = prefix.with_name(prefix.name + TRUTH_SUFFIX) if opened.truth else None
    digests: list[str] = []
    splits: dict[str, int] = {}

    def fill(writer: Writer) -> None:
        with phase(f"importing {format}", opened.total) as told:
            digests.append(convert(opened, chosen, record, writer, lambda: told(told.phase.done + 1)))
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
