"""What every importer shares: clips in, a checked, thinned, streamed data set out.

An importer is one function ``open_source(source, options, record) -> Source`` whose clips this module takes: it
drops what is broken, thins near-copies, numbers the names and writes both files clip by clip, so memory stays that
of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tips_dist.config import Count, NonNegative, Positive, Section, Share
from tips_dist.data.cameras import rig
from tips_dist.data.store import SPLITS, Writer
from tips_dist.files import UserError
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
    # Some formats: each module's USES names those that mean something to it
    cameras: Count = 4  # virtual cameras per sequence, where a data set has motion but no cameras
    seed: Annotated[int, Field(ge=0)] = 0  # of the virtual cameras
    leave_out: tuple[str, ...] = ()  # actions of which nothing is learnt from or decided on: all of it is test
    validation_subjects: tuple[str, ...] = ("S8",)  # subjects of the training set held out for validation
    validation_share: Share = 0.15  # share of sequences held out for validation
    test_share: Share = 0.15  # share of sequences held out for testing
    minimum_score: Share = 0.3  # a detected joint below this score counts as missing
    minimum_joints: Annotated[int, Field(ge=2, le=17)] = 12  # a detected person with fewer joints is dropped
    keypoints: str | None = None  # the order of a detector's keypoints, where the file does not name them
    people: Literal["main", "all"] = "main"  # of several people in a frame: the one seen longest, or each of them
    image_px: tuple[Count, Count] | None = None  # width and height of the images, where the file lacks it
    unit_mm: Positive | None = None  # millimetres per unit of the source's 3D
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


@dataclass
class Record:
    """What an import read, kept and dropped, and why; stored in the pose file."""

    format: str
    source: str
    options: dict[str, Any]
    image_px: tuple[int, int] | None = None
    seen: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, why: str, frames: int) -> None:
        """Count frames that were left out for this reason."""
        if frames:
            self.dropped[why] = self.dropped.get(why, 0) + int(frames)

    def note(self, text: str) -> None:
        """Write down something a reader of the data should know."""
        if text not in self.notes:
            self.notes.append(text)


def stream(source: Source, options: Options, record: Record, writer: Writer, done: Callable[[], None]) -> str:
    """Clean, thin and append every clip of a source; returns the digest of the poses.

    Raises:
        UserError: nothing was left to write.
    """
    codes: dict[str, dict[str, int]] = {"subject": {}, "sequence": {}, "camera": {}}
    for clip in source.clips:
        kept = _kept(clip, source, options, record)
        if kept.size:
            columns: dict[str, Array] = {"poses": clip.poses[kept], "frame": clip.frames[kept]}
            for column, known in codes.items():
                name = getattr(clip, column)
                columns[column] = np.full(kept.size, known.setdefault(name, len(known)))
            columns["split"] = np.full(kept.size, SPLITS.index(clip.split))
            if clip.scores is not None:
                columns["score"] = clip.scores[kept]
            writer.append(columns, None if clip.joints is None else clip.joints[kept])
        done()
    record.kept = writer.rows
    if writer.rows == 0:
        dropped = "; ".join(f"{count} {why}" for why, count in record.dropped.items()) or "the source has no frames"
        raise UserError(f"{record.source}: no pose is left to write ({dropped})")
    for split, count in zip(SPLITS, writer.split_counts, strict=True):
        if count == 0:
            record.note(f"the {split} split is empty")
    names = {f"{column}_names": list(known) for column, known in codes.items()}
    return writer.finish(names, source.name, source.frame_rate_hz, vars(record))


def seen_by_rig(
    subject: str, sequence: str, split: str, world: Array, generator: np.random.Generator, count: int
) -> Iterator[Clip]:
    """Motion without cameras (T, 17, 3), mm, y up, seen by a rig of virtual cameras: one clip for each."""
    cameras = rig(generator, count)
    truth, pixels = cameras.view(np.broadcast_to(world, (count, *world.shape)))
    for view in range(count):
        yield Clip(subject, sequence, f"view_{view}", split, np.arange(len(world)), pixels[view], truth[view])


def splits_by_name(names: Sequence[str], options: Options, record: Record) -> dict[str, str]:
    """A split for every sequence of a data set without a convention of its own: evenly spaced names are held out."""
    names = list(dict.fromkeys(names))
    test = hold_out(names, options.test_share)
    rest = [name for name in names if name not in test]
    validation = hold_out(rest, options.validation_share)
    record.note(
        f"no splits in the source: of {len(names)} sequences, {len(validation)} held out for validation "
        f"and {len(test)} for test"
    )
    return {name: "test" if name in test else "validation" if name in validation else "train" for name in names}


def check_subjects(chosen: Sequence[str], known: Sequence[str], where: Path) -> None:
    """Refuse validation subjects that the data set does not have."""
    for subject in chosen:
        if subject not in known:
            raise UserError(f"{where}: validation_subjects: no subject '{subject}' here; there are {', '.join(known)}")


def hold_out(names: Sequence[str], share: float) -> set[str]:
    """Evenly spaced ``share`` of ``names``: at least one of two or more unless the share is 0, and never all."""
    count = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 and len(names) > 1 else 0
    return {names[int((k + 0.5) * len(names) / count)] for k in range(count)}


def _check(clip: Clip, source: Source, record: Record) -> None:
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


def _kept(clip: Clip, source: Source, options: Options, record: Record) -> npt.NDArray[np.int64]:
    """Rows of a clip that are worth keeping."""
    record.seen += len(clip.poses)
    _check(clip, source, record)
    rows = np.arange(len(clip.poses))

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
        shape = clip.joints[rows] - clip.joints[rows, :1]
        kept = thin(shape, options.minimum_change_mm)
        why = f"near-copies (no joint moved {options.minimum_change_mm:g} mm since the last kept frame)"
    else:
        shape = clip.poses[rows] - clip.poses[rows, :1]
        side = np.ptp(clip.poses[rows], axis=1).max(axis=-1)
        kept = thin(shape / side[:, None, None], options.minimum_change_2d)
        why = f"near-copies (no joint moved {options.minimum_change_2d:g} of the pose's size since the last kept frame)"
    mask = np.zeros(len(rows), dtype=bool)
    mask[kept] = True
    keep(mask, why)
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


def thin(shapes: Array, threshold: float) -> npt.NDArray[np.int64]:
    """Rows of a clip (T, 17, D) to keep: the first, then each where a joint moved > ``threshold`` since the last."""
    if threshold <= 0 or len(shapes) == 0:
        return np.arange(len(shapes))
    shapes = np.ascontiguousarray(shapes, dtype=np.float32)
    square = threshold**2
    leap = (((shapes[1:] - shapes[:-1]) ** 2).sum(axis=-1).max(axis=-1) > square).tolist()  # from each to the next
    kept, last, start, block = [0], 0, 1, 16
    while start < len(shapes):
        if start == last + 1 and leap[last]:
            last = start
        else:
            moved = ((shapes[start : start + block] - shapes[last]) ** 2).sum(axis=-1).max(axis=-1) > square
            if not moved.any():
                start, block = start + block, min(2 * block, 1024)
                continue
            last = start + int(moved.argmax())
        kept.append(last)
        start, block = last + 1, 16
    return np.array(kept)
