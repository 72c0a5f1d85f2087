"""What is wrong with a set of 2D poses, as far as the poses alone can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from tips_dist.data.store import ORDINARY, Poses
from tips_dist.skeleton import MIRROR

SMALLEST_PX = 1.0
SWAP_SECONDS = 0.15  # neighbours further apart in time are not compared
SWAP_FRAMES = 3  # the same where the frame rate is unknown
SWAP_MOVE = 0.08  # of the pose's size: how far the joints jump at least in a swap
SWAP_RATIO = 0.4  # a swap explains the jump if relabelling leaves at most this share of it
LEAK_DISTANCE = 0.01  # root mean square joint distance, as a share of the pose's size
LEAK_SHARE = 0.05  # of held-out poses with a near-copy in train, before it is a finding
LEAK_SAMPLE, TRAIN_SAMPLE = 2000, 40_000

_MILDER = {
    "note": ("duplicates", "out_of_frame", "near_copy_in_train", "legs_up"),
    "warning": ("zero_size", "left_right_swap", "sides_unequal", "lying", "neck_misplaced", "spine_misplaced"),
}

Bools = npt.NDArray[np.bool_]


class FindingAnswer(TypedDict):
    """A finding as it is printed."""

    check: str
    severity: str
    rows: int
    share: float  # of all rows
    examples: list[int]
    text: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and the rows where it is."""

    check: str
    rows: npt.NDArray[np.int64]
    text: str

    @property
    def severity(self) -> str:
        """``note``, ``warning`` or ``error``: what training on it does to the result."""
        if self.check in ("duplicates", "out_of_frame", "near_copy_in_train", "legs_up"):
            return "note"
        if self.check in (
            "zero_size",
            "left_right_swap",
            "sides_unequal",
            "lying",
            "neck_misplaced",
            "spine_misplaced",
        ):
            return "warning"
        return "error"

    def plain(self, total: int) -> FindingAnswer:
        """As plain data, with the first twenty rows."""
        return {
            "check": self.check,
            "severity": self.severity,
            "rows": len(self.rows),
            "share": len(self.rows) / total,
            "examples": [int(row) for row in self.rows[:20]],
            "text": self.text,
        }


def examine(poses: Poses, image_px: tuple[int, int] | None = None) -> list[Finding]:
    """All checks of single poses and of splits; those that found something.

    ``image_px`` is the width and height of the images, where known.
    """
    leaks, shares = near_copies(poses)
    rates = ", ".join(f"{100 * share:.0f} % of {split}" for split, share in shares.items())
    checks = [
        Finding("duplicates", np.flatnonzero(duplicates(poses)), "the same pose stands in an earlier row"),
        Finding("zero_size", np.flatnonzero(size(poses) < SMALLEST_PX), "all joints lie within one pixel"),
        Finding("out_of_frame", np.flatnonzero(out_of_frame(poses, image_px)), _frame_text(image_px)),
        Finding(
            "left_right_swap",
            np.flatnonzero(left_right_swaps(poses)),
            "left and right seem to change places against the frame before",
        ),
        Finding(
            "sequence_in_two_splits",
            np.flatnonzero(sequences_across_splits(poses)),
            "its sequence is in more than one split, so the splits leak",
        ),
    ]
    if any(share > LEAK_SHARE for share in shares.values()):
        text = f"nearly the same pose (within {LEAK_DISTANCE:g} of its size) is in train: {rates}, by a sample"
        checks.append(Finding("near_copy_in_train", leaks, text))
    return [finding for finding in checks if len(finding.rows)]


def size(poses: Poses) -> npt.NDArray[np.float64]:
    """The larger side of each pose's bounding box in px, (N,)."""
    return np.asarray(np.ptp(poses.poses, axis=1).max(axis=-1), dtype=np.float64)


def duplicates(poses: Poses) -> Bools:
    """Ordinary rows whose pose stands, bit for bit, in an earlier row; rows of stretches are copies by design."""
    bits = np.ascontiguousarray(poses.poses).view(np.uint32).reshape(len(poses), -1)
    factors = np.random.default_rng(0).integers(1, 2**63, size=bits.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    keys = np.zeros(len(bits), np.uint64)  # a 64-bit hash: two different poses share one by a chance of 1 in 10^19
    for column, factor in zip(bits.T, factors, strict=True):
        keys = (keys ^ column) * factor
        keys ^= keys >> np.uint64(29)
    _, first = np.unique(keys, return_index=True)
    again = np.ones(len(poses), dtype=bool)
    again[first] = False
    return np.asarray(again & (poses.stretch == ORDINARY))


def out_of_frame(poses: Poses, image_px: tuple[int, int] | None) -> Bools:
    """Rows with a joint left of or above the image, or, where its size is known, right of or below it."""
    outside = (poses.poses < 0).any(axis=(1, 2))
    if image_px is not None:
        outside |= (poses.poses > np.asarray(image_px, dtype=np.float32)).any(axis=(1, 2))
    return np.asarray(outside)


def left_right_swaps(poses: Poses) -> Bools:
    """Rows whose joints jump against the frame before, unless left and right are exchanged."""
    order = np.lexsort((poses.frame, poses.camera, poses.subject, poses.sequence))
    before, after = order[:-1], order[1:]
    furthest = SWAP_SECONDS * poses.frame_rate_hz if poses.frame_rate_hz > 0 else SWAP_FRAMES
    gap = poses.frame[after] - poses.frame[before]
    together = (gap > 0) & (gap <= max(furthest, 1))
    for column in (poses.sequence, poses.camera, poses.subject):
        together &= column[before] == column[after]
    before, after = before[together], after[together]
    side = np.maximum(size(poses), SMALLEST_PX).astype(np.float32)
    shapes = (poses.poses - poses.poses[:, :1]) / side[:, None, None]
    kept = np.linalg.norm(shapes[after] - shapes[before], axis=-1).mean(axis=-1)
    exchanged = np.linalg.norm(shapes[after][:, MIRROR] - shapes[before], axis=-1).mean(axis=-1)
    swapped = np.zeros(len(poses), dtype=bool)
    swapped[after[(kept > SWAP_MOVE) & (exchanged < SWAP_RATIO * kept)]] = True
    return swapped


def sequences_across_splits(poses: Poses) -> Bools:
    """Rows of sequences that have rows in more than one split."""
    lowest = np.full(len(poses.sequence_names), 127)
    highest = np.full(len(poses.sequence_names), -1)
    np.minimum.at(lowest, poses.sequence, poses.split)
    np.maximum.at(highest, poses.sequence, poses.split)
    return np.asarray((lowest < highest)[poses.sequence])


def near_copies(poses: Poses) -> tuple[npt.NDArray[np.int64], dict[str, float]]:
    """Sampled validation and test rows with nearly the same pose in (a sample of) train, and their share by split."""
    train = _shapes(poses, _sampled(poses.rows("train"), TRAIN_SAMPLE))
    found, shares = [], {}
    for split in ("validation", "test"):
        rows = _sampled(poses.rows(split), LEAK_SAMPLE)
        if len(rows) and len(train):
            near = _nearest(_shapes(poses, rows), train) < LEAK_DISTANCE
            found.append(rows[near])
            shares[split] = float(near.mean())
    return np.concatenate(found) if found else np.zeros(0, np.int64), shares


def _sampled(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _shapes(poses: Poses, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    chosen = poses.poses[rows]
    side = np.maximum(np.ptp(chosen, axis=1).max(axis=-1), SMALLEST_PX)
    shapes: npt.NDArray[np.float32] = ((chosen - chosen[:, :1]) / side[:, None, None]).reshape(len(rows), 34)
    return shapes


def _nearest(shapes: npt.NDArray[np.float32], train: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Root mean square joint distance of each shape to the nearest of train."""
    square = (train**2).sum(axis=1)
    nearest = np.empty(len(shapes), np.float32)
    for start in range(0, len(shapes), 256):
        block = shapes[start : start + 256]
        distances = (block**2).sum(axis=1)[:, None] + square - 2 * block @ train.T
        nearest[start : start + 256] = np.sqrt(np.maximum(distances.min(axis=1), 0) / 17)
    return nearest


def _frame_text(image_px: tuple[int, int] | None) -> str:
    if image_px is None:
        return "a joint has a negative coordinate (the size of the images is not known)"
    return f"a joint lies outside the image of {image_px[0]} by {image_px[1]} px"
