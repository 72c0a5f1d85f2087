"""What every importer shares: clips in, a checked, thinned, streamed data set out.

An importer is one function ``open_source(source, options, record) -> Source`` whose clips this module takes: it
drops what is broken, thins near-copies, numbers the names and writes both files clip by clip, so memory stays that
of a clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tips_dist.config import Count, NonNegative, Positive, Share
from tips_dist.data.anatomy import Examination
from tips_dist.data.cameras import rig
from tips_dist.data.importers.thinning import stretches, thin_together
from tips_dist.data.instants import out_of_time
from tips_dist.data.store import LEAST_VALIDATION_SEQUENCES, ORDINARY, SPLITS
from tips_dist.data.writer import Writer
from tips_dist.files import JSON, UserError
from tips_dist.sections import Section
from tips_dist.skeleton import HEAD, JOINTS

Array = npt.NDArray[Any]
FASTEST_MM_PER_S = 15_000.0  # no joint moves faster against the hip; a sprinter's ankle reaches about 10 m/s
SMALLEST_PX = 1.0
FARTHEST_PX = 100_000.0  # no image is as large
REACH_MM = (300.0, 3000.0)
TRUNK_MM = (150.0, 1500.0)  # from hip to head, of any person: anything else is not in millimetres


class Options(Section):
    """Knobs of an import; each data set uses those that make sense for it."""

    # All formats
    minimum_change_mm: NonNegative = 40.0  # keep a frame if a joint moved further against the hip since the last kept
    minimum_change_2d: NonNegative = 0.02  # the same without truth, as a share of the pose's larger side
    stretches: Annotated[int, Field(ge=0)] = 3  # of neighbouring frames kept at full rate, of each validation sequence
    stretch_frames: Annotated[int, Field(ge=2)] = 16  # length of each
    # Some formats: each module's USES names those that mean something to it
    cameras: Count = 4  # virtual cameras per sequence, where a data set has motion but no cameras
    seed: Annotated[int, Field(ge=0)] = 0  # of the virtual cameras
    leave_out: tuple[str, ...] = ()  # actions of which nothing is learnt from or decided on: all of it is test
    validation_subjects: tuple[str, ...] | None = None  # persons held out for validation; None: the format's way
    test_subjects: tuple[str, ...] | None = None  # persons held out for testing; None: the format's way
    validation_share: Share = 0.15  # share of sequences held out for validation
    test_share: Share = 0.15  # share of sequences held out for testing
    minimum_score: Share = 0.3  # a detected joint below this score counts as missing
    minimum_joints: Annotated[int, Field(ge=2, le=17)] = 12  # a detected person with fewer joints is dropped
    keypoints: str | None = None  # the order of a detector's keypoints, where the file does not name them
    people: Literal["main", "all"] = "main"  # of several people in a frame: the one seen longest, or each of them
    image_px: tuple[Count, Count] | None = None  # width and height of the images, where the file lacks it
    unit_mm: Positive | None = None  # millimetres per unit of the source's 3D
    up: Literal["x", "y", "z", "-x", "-y", "-z"] | None = None  # the axis of the source that points up
    names: dict[str, str] = Field(
        default_factory=dict
    )  # which of the source's joints a joint is, where its name does not tell
    universal: bool = False  # take the joints scaled to one universal skeleton instead of the subject's own
    allow_pickle: bool = False  # read object arrays, with an unpickler that knows arrays and plain containers only


@dataclass
class Clip:
    """Consecutive frames of one sequence seen by one camera.

    ``frames`` (T,) int, ``poses`` (T, 17, 2) px, ``joints`` (T, 17, 3) mm in the camera's frame, or None without
    truth; ``scores`` (T, 17) of a detector, where there was one.
    """

    subject: str
    sequence: str
    camera: str
    split: str
    frames: Array
    poses: Array
    joints: Array | None
    scores: Array | None = None


@dataclass
class Source:
    """An opened data set: name, frame rate (0 if unknown), whether truth comes with it, clips and their number."""

    name: str
    frame_rate_hz: float
    truth: bool
    clips: Iterator[Clip]
    total: int | None = None
    image_px: tuple[int, int] | None = None  # width and height, where known
    scores: bool = False
    synchronous: bool = False  # by construction; otherwise the poses are asked
    neighbours: bool = True  # frame numbers that follow each other are neighbours in time


@dataclass
class ImportRecord:
    """What an import read, kept and dropped, and why; stored in the pose file."""

    format: str
    source: str
    options: dict[str, JSON]
    image_px: tuple[int, int] | None = None
    seen: int = 0
    kept: int = 0  # ordinary rows
    stretches: int = 0  # runs of neighbouring frames kept beside them
    in_stretches: int = 0  # rows of all stretches
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    findings: list[dict[str, str]] = field(default_factory=list)  # what is not human, for 'data inspect'

    def drop(self, why: str, frames: int) -> None:
        """Count frames that were left out for this reason."""
        if frames:
            self.dropped[why] = self.dropped.get(why, 0) + int(frames)

    def note(self, text: str) -> None:
        """Write down something a reader of the data should know."""
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, text: str) -> None:
        """Write down something that must not be missed; an import ends by showing it."""
        if text not in self.warnings:
            self.warnings.append(text)


def convert(source: Source, options: Options, record: ImportRecord, writer: Writer, done: Callable[[], None]) -> str:
    """Clean, thin and append every clip of a source; returns the digest of the poses.

    Clips of one sequence that follow each other are thinned together, so that all views of an instant stay or go.

    Raises:
        UserError: nothing was left to write.
    """
    codes, examination = _Codes(), Examination()
    for _, group in itertools.groupby(source.clips, key=lambda clip: (clip.subject, clip.sequence, clip.split)):
        views = []
        for clip in group:
            views.append((clip, _clean(clip, source, record)))
            done()
        if not source.synchronous:
            _keep_apart(views, record)
        for (clip, rows), kept in zip(views, _thinned(views, options, record), strict=True):
            record.kept += len(kept)
            if clip.joints is not None:
                examination.add(clip.subject, clip.joints[rows[kept]])
            _append(writer, codes, clip, rows[kept], ORDINARY)
        if source.neighbours and views[0][0].split == "validation":
            frames = [clip.frames[rows] for clip, rows in views]
            for run in stretches(frames, options.stretches, options.stretch_frames):
                for clip, rows in views:
                    chosen = rows[np.isin(clip.frames[rows], run)]
                    _append(writer, codes, clip, chosen, record.stretches)
                    record.in_stretches += len(chosen)
                record.stretches += 1
    if record.kept == 0:
        dropped = "; ".join(f"{count} {why}" for why, count in record.dropped.items()) or "the source has no frames"
        raise UserError(f"{record.source}: no pose is left to write ({dropped})")
    for found in examination.findings():
        record.findings.append(found)
        record.warn(f"{found['subject']}: {found['text']}.")
    for split, count in zip(SPLITS, writer.split_counts, strict=True):
        if count == 0:
            record.note(f"the {split} split is empty")
    if len(codes.validation) < LEAST_VALIDATION_SEQUENCES:
        held = f"a single sequence ({codes.validation.pop()})" if codes.validation else "nothing"
        record.warn(
            f"The validation split holds {held}, so a study of this data could decide nothing and 'run' refuses it: "
            "hold out more (validation_share, validation_subjects), or import more sequences."
        )
    return writer.finish(codes.names(), source.name, source.frame_rate_hz, vars(record))


def _keep_apart(views: list[tuple[Clip, Array]], record: ImportRecord) -> None:
    """Give views that share frame numbers but not the time a sequence of their own, so that they make no instants."""
    apart = out_of_time([(clip.frames[rows], clip.poses[rows]) for clip, rows in views])
    for (clip, _), alone in zip(views, apart, strict=True):
        if alone:
            record.note(
                f"{clip.sequence}: {clip.camera} does not show the body that the other cameras show at the same frame "
                "numbers, so it is kept as a sequence of its own"
            )
            clip.sequence = f"{clip.sequence} ({clip.camera})"


class _Codes:
    """Numbers for the names of subjects, sequences and cameras, in the order of their first row."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, int]] = {"subject": {}, "sequence": {}, "camera": {}}
        self.validation: set[str] = set()

    def columns(self, clip: Clip, rows: int) -> dict[str, Array]:
        """The three columns of a clip."""
        if clip.split == "validation":
            self.validation.add(clip.sequence)
        return {
            column: np.full(rows, known.setdefault(getattr(clip, column), len(known)))
            for column, known in self._known.items()
        }

    def names(self) -> dict[str, list[str]]:
        """The names by number, as the file stores them."""
        return {f"{column}_names": list(known) for column, known in self._known.items()}


def _append(writer: Writer, codes: _Codes, clip: Clip, rows: Array, stretch: int) -> None:
    if not rows.size:
        return
    columns: dict[str, Array] = {"poses": clip.poses[rows], "frame": clip.frames[rows]} | codes.columns(clip, len(rows))
    columns["split"] = np.full(len(rows), SPLITS.index(clip.split))
    columns["stretch"] = np.full(len(rows), stretch)
    if clip.scores is not None:
        columns["score"] = clip.scores[rows]
    writer.append(columns, None if clip.joints is None else clip.joints[rows])


def _thinned(views: list[tuple[Clip, Array]], options: Options, record: ImportRecord) -> list[Array]:
    """Which of its clean rows each clip keeps."""
    shapes = []
    if views[0][0].joints is not None:
        threshold = options.minimum_change_mm
        why = f"near-copies (no joint moved {threshold:g} mm since the last kept frame)"
        for clip, rows in views:
            assert clip.joints is not None
            shapes.append(clip.joints[rows] - clip.joints[rows, :1])
    else:
        threshold = options.minimum_change_2d
        why = f"near-copies (no joint moved {threshold:g} of the pose's size since the last kept frame)"
        for clip, rows in views:
            side = np.ptp(clip.poses[rows], axis=1).max(axis=-1, initial=0.0)
            shapes.append((clip.poses[rows] - clip.poses[rows, :1]) / side[:, None, None])
    frames = [clip.frames[rows] for clip, rows in views]
    kept = thin_together(list(zip(frames, shapes, strict=True)), threshold)
    for (_, rows), chosen in zip(views, kept, strict=True):
        record.drop(why, len(rows) - len(chosen))
    return kept


def seen_by_rig(
    subject: str, sequence: str, split: str, world: Array, generator: np.random.Generator, count: int
) -> Iterator[Clip]:
    """Motion without cameras (T, 17, 3), mm, y up, seen by a rig of virtual cameras: one clip for each."""
    cameras = rig(generator, count)
    truth, pixels = cameras.view(np.broadcast_to(world, (count, *world.shape)))
    for view in range(count):
        yield Clip(subject, sequence, f"view_{view}", split, np.arange(len(world)), pixels[view], truth[view])


def _check(clip: Clip, source: Source, record: ImportRecord) -> None:
    """Refuse clips of a wrong shape or in a unit that is not millimetres; what no importer may let through."""
    rows, where = len(clip.poses), f"{record.source}: {clip.sequence}, {clip.camera}"
    if clip.poses.shape != (rows, len(JOINTS), 2) or clip.frames.shape != (rows,):
        raise UserError(f"{where}: poses {clip.poses.shape}, frames {clip.frames.shape}; expected (T, 17, 2) and (T,)")
    if rows and not -(2**31) <= clip.frames.min() <= clip.frames.max() < 2**31:
        raise UserError(f"{where}: frame numbers from {clip.frames.min()} to {clip.frames.max()} do not fit 32 bits")
    if clip.joints is None or not rows:
        return
    if clip.joints.shape != (rows, len(JOINTS), 3):
        raise UserError(f"{where}: joints {clip.joints.shape} beside {rows} poses; expected ({rows}, 17, 3)")
    trunk = np.linalg.norm(clip.joints[:, HEAD] - clip.joints[:, 0], axis=-1)
    trunk = trunk[np.isfinite(trunk)]
    low, high = TRUNK_MM
    if trunk.size and not low <= np.median(trunk) <= high:
        hint = " (metres?)" if 0.15 <= np.median(trunk) <= 1.5 else ""
        raise UserError(f"{where}: hip to head measures {np.median(trunk):.3g}, which is not in millimetres{hint}")


def _clean(clip: Clip, source: Source, record: ImportRecord) -> npt.NDArray[np.int64]:
    """Rows of a clip that are whole poses of a person, in the order of their frames."""
    record.seen += len(clip.poses)
    _check(clip, source, record)
    rows = np.argsort(clip.frames, kind="stable")

    def keep(good: Array, why: str) -> None:
        nonlocal rows
        record.drop(why, int(len(rows) - np.count_nonzero(good)))
        rows = rows[good]

    finite = np.asarray(np.isfinite(clip.poses).all(axis=(1, 2)))
    if clip.joints is not None:
        finite &= np.isfinite(clip.joints).all(axis=(1, 2))
    keep(finite, "frames with values that are not finite")
    size = np.ptp(clip.poses[rows], axis=1).max(axis=-1) if rows.size else np.zeros(0)
    keep(size >= SMALLEST_PX, f"frames with a pose smaller than {SMALLEST_PX:g} px")
    far = np.abs(clip.poses[rows]).max(axis=(1, 2)) if rows.size else np.zeros(0)
    keep(far <= FARTHEST_PX, f"frames with a joint beyond {FARTHEST_PX:g} px")
    if clip.joints is not None:
        reach = np.linalg.norm(clip.joints[rows] - clip.joints[rows, :1], axis=-1).max(axis=-1, initial=0.0)
        low, high = REACH_MM
        text = f"frames whose farthest joint from the hip is not {low:g} to {high:g} mm away, as in any person"
        keep((reach >= low) & (reach <= high), text)
        keep(_calm(clip, rows, source.frame_rate_hz), "frames beside a jump faster than a body moves (15 m/s)")
    return rows


def _calm(clip: Clip, rows: Array, frame_rate_hz: float) -> Array:
    """False for both frames beside a jump that no body makes (calibration poses, marker swaps)."""
    assert clip.joints is not None
    calm = np.ones(len(rows), dtype=bool)
    if frame_rate_hz <= 0 or len(rows) < 2:
        return calm
    joints = clip.joints[rows] - clip.joints[rows, :1]
    seconds = np.maximum(np.diff(clip.frames[rows]), 1) / frame_rate_hz
    jump = np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=-1) > FASTEST_MM_PER_S * seconds
    calm[:-1] &= ~jump
    calm[1:] &= ~jump
    return calm
