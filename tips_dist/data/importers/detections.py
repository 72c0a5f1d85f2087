"""What the readers of detected 2D poses share: people one by one in, sequences of 17-joint poses out.

A reader yields a :class:`Person` for everybody in its files and says with a :class:`Place` to which sequence, camera
and frame an image belongs. Here keypoints become the 17 joints (:mod:`tips_dist.data.joint_maps`), missing joints get
score 0 and their parent's place, one person of each frame is chosen where there are several, and whole sequences are
held out. Only the 17 joints of everybody are kept in memory.
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from tips_dist.data import joint_maps
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.data.importers.splits import splits_by_name
from tips_dist.data.joint_maps import JointMap
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, J

USES = ("minimum_score", "minimum_joints", "keypoints", "validation_share", "test_share")
USES_OF_VIDEOS = (*USES, "people")
PIECES = 10  # a single recording is cut into so many pieces of time, which become its sequences
SAMPLE = 500  # people who are looked at to tell an order of keypoints
BLOCK = 4096
TRACK_GAP = 15  # frames after which a person who comes back is another
TRACK_MOVE = 0.3  # of the body's size: how far the joints of one person move from frame to frame at most
_ABSURD = 1e9  # no coordinate is as large
LARGEST_FRAME = 2**31 - 1

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]


class Person(NamedTuple):
    """One detected person: where, who (if the file says), and the numbers x, y, score of each keypoint."""

    image: Any  # hashable
    values: Sequence[float]
    track: str = ""
    names: tuple[str, ...] | None = None  # of the keypoints, where the file states them


class Place(NamedTuple):
    """Where an image belongs; without a frame number, the natural order of the names counts."""

    sequence: str
    camera: str
    name: str
    frame: int | None = None


@dataclass
class People:
    """Everybody in a source, in its order: joints (N, 17, 3: x, y, score), and the numbers of image and track."""

    joints: Array
    image: Codes
    track: Codes
    images: list[Any]
    tracks: list[str]
    order: JointMap

    def __len__(self) -> int:
        return len(self.image)


def gather(where: Path, persons: Iterator[Person], options: Options, record: ImportRecord) -> People:
    """Read everybody and make the 17 joints.

    Raises:
        UserError: nobody is there, or the keypoints are not a person's or not known.
    """
    sample = list(itertools.islice(persons, SAMPLE))
    if not sample:
        raise UserError(f"{where}: nobody in it")
    known: dict[tuple[int, tuple[str, ...] | None], JointMap] = {}
    first = _key(sample[0])
    for key in {_key(person): None for person in sample}:
        known[key] = _map(where, key, [person.values for person in sample if _key(person) == key], options, record)
    joints, image, track = array("f"), array("q"), array("q")
    images: dict[Any, int] = {}
    tracks: dict[str, int] = {}
    everybody = itertools.chain(sample, persons)
    while block := list(itertools.islice(everybody, BLOCK)):
        for key, group in itertools.groupby(block, key=_key):
            members = list(group)
            if key not in known:
                known[key] = _map(where, key, [person.values for person in members], options, record)
            joints.frombytes(_joints(where, known[key], members, options).tobytes())
        image.extend(images.setdefault(person.image, len(images)) for person in block)
        track.extend(tracks.setdefault(person.track, len(tracks)) for person in block)
    made = np.frombuffer(joints, np.float32).reshape(-1, len(JOINTS), 3)
    return People(
        made, np.frombuffer(image, np.int64), np.frombuffer(track, np.int64), list(images), list(tracks), known[first]
    )


def keypoint_numbers(where: str, values: Any) -> array[float]:
    """The flat list of x, y, score of every keypoint, or an error that says what stands there instead."""
    if not isinstance(values, list) or not values or len(values) % 3:
        have = f"{len(values)} numbers" if isinstance(values, list) else "none"
        raise UserError(f"{where}: keypoints: {have}, expected x, y, score of each (51 for the 17 joints of COCO)")
    try:
        return array("d", values)
    except TypeError:
        raise UserError(f"{where}: keypoints: not all are numbers") from None
    except OverflowError:
        raise UserError(f"{where}: keypoints: a number is too large") from None


def opened(
    name: str,
    people: People,
    place: Callable[[Any], Place],
    options: Options,
    record: ImportRecord,
    *,
    image_px: tuple[int, int] | None = None,
    frame_rate_hz: float = 0.0,
    videos: bool = True,
) -> Source:
    """Group everybody into sequences, subjects and cameras. ``videos``: images follow each other in time."""
    places = [place(image) for image in people.images]
    frame = _frames(places)[people.image]
    sequences = sorted({spot.sequence for spot in places}, key=padded)
    cameras = sorted({spot.camera for spot in places}, key=padded)
    code = {text: k for k, text in enumerate(sequences)}
    view = {text: k for k, text in enumerate(cameras)}
    recording = np.array([code[spot.sequence] for spot in places])[people.image]
    camera = np.array([view[spot.camera] for spot in places])[people.image]
    subject, subjects, keep = _subjects(people, recording, sequences, camera, frame, options, record, videos)
    sequence, names = recording, sequences
    if len(sequences) == 1 and (options.validation_share or options.test_share):
        record.note(f"one recording, cut into {PIECES} pieces of time to hold some of them out")
        moments, rank = np.unique(frame, return_inverse=True)
        sequence = rank.ravel() * PIECES // len(moments)
        names = [f"{sequences[0]}/{k}" for k in range(PIECES)]
    splits = splits_by_name([names[k] for k in np.unique(sequence)], options, record)
    rows = np.lexsort((np.arange(len(people)), frame, camera, subject, sequence))
    rows = rows[keep[rows]]
    keys = np.stack([sequence[rows], subject[rows], camera[rows]])
    groups = np.split(rows, np.flatnonzero(np.diff(keys, axis=1).any(axis=0)) + 1) if len(rows) else []
    _note(people.order, record)

    def clips() -> Iterator[Clip]:
        for group in groups:
            whole = _whole(people.joints[group], options, record)
            chosen, row = group[whole], group[0]
            label = names[sequence[row]]
            poses, scores = people.joints[chosen, :, :2], people.joints[chosen, :, 2]
            yield Clip(
                subjects[subject[row]], label, cameras[camera[row]], splits[label], frame[chosen], poses, None, scores
            )

    return Source(
        name, frame_rate_hz, False, clips(), len(groups), image_px, scores=True, neighbours=videos
    )  # fmt: skip


def padded(name: str) -> str:
    """The name with its numbers filled up, so that 9 comes before 10."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), name)


def whole_frame(value: Any, where: str) -> int:
    """A frame number, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_FRAME:
        raise UserError(f"{where}: frame number {value!r:.40}; expected a whole number from 0 up")
    return int(value)


def _key(person: Person) -> tuple[int, tuple[str, ...] | None]:
    return len(person.values) // 3, person.names


def _map(
    where: Path, key: tuple[int, tuple[str, ...] | None], values: list[Any], options: Options, record: ImportRecord
) -> JointMap:
    count, names = key
    if options.keypoints is not None:
        found = joint_maps.by_order(options.keypoints, count, str(where))
        if wrong := joint_maps.misfits(found, _points(where, values)):
            text = f"no body lies in keypoints in the order of {options.keypoints}: {'; '.join(wrong[:3])}"
            record.warn(text)
            record.findings.append({"check": "keypoint_order", "subject": "", "text": text})
        return found
    if names is not None:
        if len(names) != count:
            raise UserError(f"{where}: {count} keypoints, but its categories name {len(names)}")
        return joint_maps.by_names(names, str(where))
    found, note = joint_maps.by_fit(_points(where, values), str(where))
    if note:
        record.note(note)
    return found


def _points(where: Path, values: list[Any]) -> Array:
    """Keypoints (N, K, 3); what cannot be there (the corner of the image, no number) has score 0."""
    with np.errstate(over="ignore"):
        try:
            points = np.asarray(values, dtype=np.float64).reshape(len(values), -1, 3)
        except (OverflowError, ValueError, TypeError):
            raise UserError(f"{where}: keypoints: a number is too large") from None
        absent = ~(np.abs(points) < _ABSURD).all(axis=-1) | (points[..., :2] == 0).all(axis=-1)
    points[absent] = 0
    return points


def _joints(where: Path, order: JointMap, members: list[Person], options: Options) -> npt.NDArray[np.float32]:
    """The 17 joints (N, 17, 3: x, y, score) of people, with missing ones at their parent's place."""
    poses, scores = order.apply(_points(where, [person.values for person in members]), options.minimum_score)
    poses, scores = joint_maps.without_missing(poses, scores, options.minimum_score)
    with np.errstate(over="ignore"):
        return np.concatenate([poses, scores[..., None]], axis=-1).astype(np.float32)


def _whole(joints: Array, options: Options, record: ImportRecord) -> Array:
    """Which people (N, 17, 3) have a trunk and joints enough."""
    there = joints[..., 2] > 0
    trunk = there[:, J["hip"]] & there[:, J["thorax"]]
    enough = there.sum(axis=1) >= options.minimum_joints
    level = f"at a score of {options.minimum_score:g}"
    record.drop(f"people without hips and shoulders {level}", int((~trunk).sum()))
    record.drop(f"people with fewer than {options.minimum_joints} of 17 joints {level}", int((trunk & ~enough).sum()))
    record.seen += int((~(trunk & enough)).sum())
    return np.asarray(trunk & enough)


def _frames(places: list[Place]) -> Codes:
    """The frame number of every image: its own, or its place in the natural order of the names."""
    if all(spot.frame is not None for spot in places):
        return np.array([spot.frame for spot in places], np.int64)
    names = [padded(spot.name) for spot in places]
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks


def _subjects(
    people: People,
    recording: Codes,
    recordings: list[str],
    camera: Codes,
    frame: Codes,
    options: Options,
    record: ImportRecord,
    videos: bool,
) -> tuple[Codes, list[str], Array]:
    """The subject of every row, the subjects' names, and which rows to keep."""
    keep = np.ones(len(people), dtype=bool)
    tracked = any(people.tracks)
    if not videos:
        if not tracked:
            record.note("people are not told apart in the source: those of one folder count as one subject")
        pairs = np.stack([recording, people.track], axis=1)
        known, subject = np.unique(pairs, axis=0, return_inverse=True)
        names = [recordings[r] + (f"/{people.tracks[t]}" if people.tracks[t] else "") for r, t in known]
        return subject.ravel(), names, keep
    film = recording * (camera.max() + 1) + camera
    moment = np.stack([film, frame], axis=1)
    if len(np.unique(moment, axis=0)) == len(people):  # one person at a time
        return recording, recordings, keep
    track = people.track if tracked else _tracks(people, film, frame)
    if options.people == "all":
        known, subject = np.unique(np.stack([recording, camera, track], axis=1), axis=0, return_inverse=True)
        record.note(f"several people at a time: {len(known)} of them, each a subject of their own")
        several = len(np.unique(camera)) > 1
        names = [recordings[r] + (f"/view {c}" if several else "") + f"/person {t}" for r, c, t in known]
        return subject.ravel(), names, keep
    record.note("several people at a time: of each frame the one who is seen longest (people=all takes all)")
    _, film_track = np.unique(np.stack([film, track], axis=1), axis=0, return_inverse=True)
    weight = np.bincount(film_track.ravel(), weights=people.joints[..., 2].sum(axis=1))[film_track.ravel()]
    order = np.lexsort((film_track.ravel(), -weight, frame, film))
    keep[order[1:][(np.diff(moment[order], axis=0) == 0).all(axis=1)]] = False
    record.drop("people beside the one of their frame who is seen longest", int((~keep).sum()))
    record.seen += int((~keep).sum())
    return recording, recordings, keep


def _tracks(people: People, film: Codes, frame: Codes) -> Codes:
    """Numbers of people who are followed from frame to frame by where their joints are."""
    result = np.zeros(len(people), np.int64)
    order = np.lexsort((frame, film))
    starts = np.flatnonzero((np.diff(film[order]) != 0) | (np.diff(frame[order]) != 0)) + 1
    active: dict[int, tuple[int, int]] = {}  # track -> the row and the frame where it was seen last
    last, fresh = -1, 0
    for rows in np.split(order, starts):
        now = int(frame[rows[0]])
        if film[rows[0]] != last:
            active, last = {}, film[rows[0]]
        active = {track: seen for track, seen in active.items() if now - seen[1] <= TRACK_GAP}
        tracks = list(active)
        cost = _moves(people.joints, [active[track][0] for track in tracks], rows)
        pairs = {int(new): tracks[old] for old, new in zip(*linear_sum_assignment(cost), strict=True)
                 if cost[old, new] < TRACK_MOVE}  # fmt: skip
        for k, row in enumerate(rows):
            track = pairs.get(k, fresh)
            fresh += track == fresh
            active[track] = (int(row), now)
            result[row] = track
    return result


def _moves(joints: Array, before: list[int], rows: Codes) -> Array:
    """How far the joints of each person before are from each person now, as a share of the body's size."""
    if not before:
        return np.zeros((0, len(rows)))
    then, now = joints[before].astype(np.float64)[:, None], joints[rows].astype(np.float64)[None]
    both = (then[..., 2] > 0) & (now[..., 2] > 0)
    distance = np.where(both, np.linalg.norm(then[..., :2] - now[..., :2], axis=-1), 0).sum(axis=-1)
    size = np.maximum(np.ptp(now[..., :2], axis=2).max(axis=-1), 1e-6)
    return np.minimum(np.where(both.any(axis=-1), distance / np.maximum(both.sum(axis=-1), 1) / size, 9.0), 9.0)


def _note(order: JointMap, record: ImportRecord) -> None:
    made = order.approximate
    record.note(f"keypoints: {'named in the file' if order.order == 'named' else 'in the order of ' + order.order}")
    if made:
        record.note(f"{', '.join(made)} are approximated from other keypoints (docs/data.md, 'Detected poses')")
