"""Lift 2D poses from files: a student and poses in, 3D poses out, with a picture or an animation on request.

For the command line: ``lift_file(student, poses, output, ...)`` does all of it and returns what to print.

**Scale.** Monocular lifting has no absolute scale: one unit of the result is the mean root-to-head distance of people
in the training data (roughly 0.6 to 0.7 m of an adult). Poses are root-relative; x right, y down, z away.

**Size in the image.** A student knows people of one size, so 2D poses are divided by ten times a root-to-head
distance in pixels. Which one is ``size``: ``trained`` (that of the training data; right for the same cameras),
``mean`` (the mean over the file; right for one person in front of one camera) or ``each`` (each pose's own; right
for pictures of people at any distance, and for a single pose, at the price that a bent trunk looks near).
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tips_dist.data import npz
from tips_dist.data.hdf5 import is_hdf5
from tips_dist.data.importers import coco
from tips_dist.data.store import read_poses
from tips_dist.escaping import for_csv
from tips_dist.files import JSON, UserError, check_file, read_text, write_text, write_with
from tips_dist.models.student import Student
from tips_dist.skeleton import HEAD, JOINTS, ROOT, J

Size = Literal["trained", "mean", "each"]
Floats = npt.NDArray[np.float32]
OUTPUTS = (".npz", ".json", ".csv")
UNIT = "one unit is the mean root-to-head distance of people in the training data; there is no absolute scale"
FRAME = "root-relative, camera frame: x right, y down, z away"


@dataclass(frozen=True)
class Input:
    """2D poses (N, 17, 2) in pixels, y down, with a label each, and the size that suits where they came from."""

    poses: Floats
    labels: list[str]
    size: Size
    digest: str | None = None  # of a pose2d file
    frame_rate_hz: float = 0.0  # 0: unknown


@dataclass(frozen=True)
class LiftAnswer:
    """What was lifted, in which conventions, and what was written."""

    poses: int
    size: Size
    signs: str
    output: str | None = None
    picture: Drawn | None = None
    animation: Animated | None = None
    uncertainty: float | None = None  # mean over poses and joints, where it was asked for

    unit: str = UNIT
    frame: str = FRAME


@dataclass(frozen=True)
class Drawn:
    """A picture, and how many poses are on it."""

    path: str
    poses: int


@dataclass(frozen=True)
class Animated:
    """An animation and its number of frames."""

    path: str
    frames: int


def lift_file(
    student: Path,
    poses: Path,
    output: Path | None,
    *,
    size: Size | None = None,
    minimum_score: float = 0.3,
    picture: Path | None = None,
    animation: Path | None = None,
    signs: Literal["network", "pose"] = "network",
    uncertainty: bool = False,
    device: str = "cpu",
) -> LiftAnswer:
    """Lift the poses of a file and write what is asked for.

    Args:
        student: ``student.safetensors``, or any candidate's weights.
        poses: pose2d HDF5, COCO keypoint JSON, ``.npz`` with an array ``poses`` (N, 17, 2), or CSV of one pose.
        output: ``.npz``, ``.json`` or ``.csv``; None writes none.
        size: which root-to-head distance makes the poses comparable (see the module); None chooses by the file.
        minimum_score: people with a COCO joint below this score are left out.
        picture: a PNG of the first poses, 2D beside two 3D views.
        animation: a GIF of the poses in their order.
        signs: whose depth signs: those recorded with the ``network``, or told ``pose`` by pose from knees and elbows.
        uncertainty: write the student's spread of each joint's depth too (:meth:`.Student.uncertainty`).
        device: where the network lifts.

    Raises:
        UserError: a file cannot be read, holds no usable pose, or a name has an unknown ending; nothing is written.
    """
    for path, endings in ((output, OUTPUTS), (picture, (".png",)), (animation, (".gif",))):
        if path is not None and path.suffix not in endings:
            raise UserError(f"{path}: unknown ending '{path.suffix}'; known: {', '.join(endings)}")
    network, found = Student.load(student, device), read_input(poses, minimum_score)
    chosen = size or ("trained" if found.digest == network.record.data_digest else found.size)
    seen = sized(found.poses, network.record.scale, chosen, poses)
    lifted, spread = network.lift(seen, signs=signs), network.uncertainty(seen) if uncertainty else None
    result = LiftAnswer(len(lifted), chosen, signs)
    if spread is not None:
        result = replace(result, uncertainty=float(spread[:, 1:].mean()))
    if output is not None:
        write_output(output, found, lifted, spread, {"size": chosen, "signs": signs, "student": network.record.plain()})
        result = replace(result, output=str(output))
    if picture is not None or animation is not None:
        from tips_dist import views

        if picture is not None:
            result = replace(result, picture=Drawn(str(picture), views.write_picture(picture, found.poses, lifted)))
        if animation is not None:
            frames = views.write_animation(animation, found.poses, lifted, found.frame_rate_hz)
            result = replace(result, animation=Animated(str(animation), frames))
    return result


def sized(poses: Floats, scale: float, size: Size, where: Path) -> Floats:
    """Resize poses (N, 17, 2) px to the size that a student of training ``scale`` px expects.

    Raises:
        UserError: a pose, or all together, has no extent from root to head.
    """
    if size == "trained":
        return poses
    lengths = np.linalg.norm((poses[:, HEAD] - poses[:, ROOT]).astype(np.float64), axis=-1)
    if size == "mean":
        lengths = np.full_like(lengths, lengths.mean())
    if not (lengths > 0).all():
        raise UserError(f"{where}: pose {int(np.argmin(lengths))}: root and head coincide, so its size is unknown")
    centred = poses - poses[:, ROOT : ROOT + 1]
    return np.asarray(centred * (scale / 10.0 / lengths)[:, None, None], dtype=np.float32)


# --- reading -----------------------------------------------------------------------------------------------------


def read_input(path: Path, minimum_score: float = 0.3) -> Input:
    """Read 2D poses of any known kind, told by the content (HDF5) or by the ending (.json, .npz, .csv).

    Raises:
        UserError: the file is missing, of no known kind, or holds no usable pose.
    """
    check_file(path, "file of poses")
    if is_hdf5(path) or path.suffix in (".h5", ".hdf5"):
        found = read_poses(path)
        names = [found.sequence_names[code] for code in found.sequence]
        labels = [f"{name}@{frame}" for name, frame in zip(names, found.frame.tolist(), strict=True)]
        return Input(found.poses, labels, "mean", found.digest, found.frame_rate_hz)
    readers: dict[str, Callable[[Path], Input]] = {
        ".json": functools.partial(_read_coco, minimum_score=minimum_score),
        ".npz": _read_npz,
        ".csv": _read_csv,
    }
    if path.suffix not in readers:
        kinds = "pose2d HDF5 (.h5), COCO keypoints (.json), arrays (.npz) or one pose (.csv)"
        raise UserError(f"{path}: unknown ending '{path.suffix}'; expected {kinds}")
    given = readers[path.suffix](path)
    finite = np.isfinite(given.poses).all(axis=(1, 2))
    if not finite.all():
        raise UserError(f"{path}: pose {int(finite.argmin())} holds non-finite values; remove it or fill it in first")
    if not len(given.poses):
        raise UserError(f"{path}: no poses in it")
    return given


def _read_coco(path: Path, minimum_score: float) -> Input:
    poses, _, labels = coco.read_coco(path, minimum_score)
    return Input(poses.astype(np.float32), labels, "each")


def _read_npz(path: Path) -> Input:
    with npz.archive(path) as opened:
        column = npz.Column(opened, path, "poses")
        if column.shape[1:] != (len(JOINTS), 2) or column.dtype.kind != "f":
            raise UserError(f"{path}: poses is {column.dtype} {column.shape}, expected floats (N, 17, 2)")
        poses = column.take(column.shape[0]).astype(np.float32)
    return Input(poses, [str(row) for row in range(len(poses))], "mean")


def _read_csv(path: Path) -> Input:
    """One pose: 17 lines of ``x,y`` in joint order, or of ``joint,x,y`` in any order; a header line may stand first."""
    try:
        text = read_text(path, "CSV file", 2**20).removeprefix("\ufeff")
        lines = [line for line in csv.reader(io.StringIO(text)) if any(map(str.strip, line))]
    except csv.Error as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from None
    if lines and not _is_number(lines[0][-1]):
        lines = lines[1:]
    if len(lines) != len(JOINTS) or len({len(line) for line in lines}) != 1 or len(lines[0]) not in (2, 3):
        raise UserError(f"{path}: expected one pose: 17 lines of 'x,y' or 'joint,x,y', found {len(lines)} lines")
    pose = np.full((1, len(JOINTS), 2), np.nan, dtype=np.float32)
    for number, line in enumerate(lines):
        name = line[0].strip() if len(line) == 3 else JOINTS[number]
        if name not in J:
            raise UserError(f"{path}: line {number + 1}: no joint '{name}'; known: {', '.join(JOINTS)}")
        if not all(_is_number(cell) for cell in line[-2:]):
            raise UserError(f"{path}: line {number + 1} ({name}): expected two numbers, found {line[-2:]}")
        pose[0, J[name]] = [float(cell) for cell in line[-2:]]
    missing = [name for name, point in zip(JOINTS, pose[0], strict=True) if np.isnan(point).any()]
    if missing:
        raise UserError(f"{path}: no finite position for {', '.join(missing)}")
    return Input(pose, [path.stem], "each")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# --- writing -----------------------------------------------------------------------------------------------------


def write_output(path: Path, found: Input, lifted: Floats, spread: Floats | None, record: Mapping[str, JSON]) -> None:
    """Write 3D poses (N, 17, 3) with their labels and the conventions, in the format that the ending names.

    ``spread`` (N, 17), where it is asked for, goes beside them under the name ``uncertainty``.
    """
    conventions = {"unit": UNIT, "frame": FRAME, "joint_names": list(JOINTS), **record}
    if path.suffix == ".npz":
        write_with(path, lambda temporary: _write_npz(temporary, found, lifted, spread, conventions))
    elif path.suffix == ".json":
        poses = [
            {"label": label, "joints": np.round(pose, 5).tolist()}
            | ({} if spread is None else {"uncertainty": np.round(spread[row].astype(np.float64), 5).tolist()})
            for row, (label, pose) in enumerate(zip(found.labels, lifted.astype(np.float64), strict=True))
        ]
        write_text(path, json.dumps({"schema": 1, **conventions, "poses": poses}) + "\n")
    else:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        table = lifted if spread is None else np.concatenate((lifted, spread[..., None]), axis=-1)
        writer.writerow(["pose", "joint", "x", "y", "z", *([] if spread is None else ["uncertainty"])])
        for label, pose in zip(found.labels, table, strict=True):
            writer.writerows(
                [for_csv(label), name, *(f"{value:.5f}" for value in point)]
                for name, point in zip(JOINTS, pose, strict=True)
            )
        write_text(path, text.getvalue())


def _write_npz(
    path: Path, found: Input, lifted: Floats, spread: Floats | None, conventions: Mapping[str, JSON]
) -> None:
    extra = {} if spread is None else {"uncertainty": spread}
    with path.open("wb") as stream:
        np.savez_compressed(
            stream,
            joints=lifted,
            **extra,  # type: ignore[arg-type]
            poses=found.poses,
            labels=np.array(found.labels),
            joint_names=np.array(JOINTS),
            conventions=np.array(json.dumps(conventions)),
        )
