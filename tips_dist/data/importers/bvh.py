"""BVH motion capture, as the CMU database is usually repackaged: one file or a folder of them, no cameras.

Where the 17 joints are in a file's own skeleton is told by :mod:`.rigs`. Neither the unit nor the axis that points up
is written down in a BVH file: ``unit_mm`` and ``up`` state them, otherwise the unit is the usual one that makes the
legs most human, up is the axis along which people mostly stand, and the record says what was taken. A parser of our
own: the maintained ones still rename their functions from release to release, and errors here must name file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source, seen_by_rig
from tips_dist.data.importers.rigs import NAMED, Node, find_joints, joints_of, restore_thorax
from tips_dist.data.importers.splits import splits_by_person
from tips_dist.files import UserError, check_file
from tips_dist.skeleton import J

USES = (
    "cameras", "seed", "unit_mm", "up", "names",
    "validation_share", "test_share", "validation_subjects", "test_subjects",
)  # fmt: skip
UNITS_MM = {"mm": 1.0, "cm": 10.0, "inch": 25.4, "CMU (cgspeed)": 56.444, "m": 1000.0}
LEG_MM = 830.0  # thigh and shin of an adult
LEGS_MM = (300.0, 1300.0)  # of anybody
UPRIGHT = 0.5  # mean share of the trunk's direction that the up axis must have to be told
_MOST_JOINTS = 1000

Floats = npt.NDArray[np.float64]


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Find the BVH files and the frame rate of the first.

    Raises:
        UserError: no BVH files there, or the first is not one.
    """
    files = sorted(source.rglob("*.bvh"), key=str) if source.is_dir() else [source]
    if not files:
        raise UserError(f"{source}: no .bvh files below it")
    for joint in options.names:
        if joint not in NAMED:
            raise UserError(f"options of bvh: names: '{joint:.40}' is none of {', '.join(NAMED)}")
    names = {file: _sequence(file, source) for file in files}
    splits = splits_by_person({name: _subject(file, name) for file, name in names.items()}, options, record, source)
    rate = read_bvh(files[0])[2]
    record.note(f"virtual cameras: {options.cameras} per sequence at equal azimuths, seed {options.seed}")
    generator = np.random.default_rng(options.seed)
    clips = (
        clip
        for file, name in names.items()
        for clip in _clips(file, name, splits[name], rate, generator, options, record)
    )
    total = len(files) * options.cameras
    return Source(
        f"BVH motion capture ({source.name}), virtual cameras", rate, True, clips, total, (1000, 1000), synchronous=True
    )


def _sequence(file: Path, source: Path) -> str:
    return str(file.relative_to(source).with_suffix("")) if source.is_dir() else file.stem


def _subject(file: Path, name: str) -> str:
    """CMU names files 01_02.bvh after subject and trial; elsewhere the folder is the subject."""
    found = re.fullmatch(r"(\d+)_\d+", file.stem)
    return found[1] if found else str(Path(name).parent) if "/" in name else "subject_0"


def _clips(
    file: Path,
    name: str,
    split: str,
    rate: float,
    generator: np.random.Generator,
    options: Options,
    record: ImportRecord,
) -> Iterator[Clip]:
    nodes, values, own_rate = read_bvh(file)
    if abs(own_rate - rate) > 0.01 * rate:
        record.note(f"frame rates differ: {name} has {own_rate:g} Hz, the first file {rate:g} Hz")
    restore_thorax(nodes, record)
    places, turns = positions(nodes, values)
    joints = joints_of(find_joints(nodes, options.names, record, str(file)), places, turns)
    joints = _upright(joints, name, options, record)
    unit = _unit(joints, file, options, record)
    yield from seen_by_rig(_subject(file, name), name, split, joints * unit, generator, options.cameras)


def read_bvh(path: Path) -> tuple[list[Node], Floats, float]:
    """Parse a BVH file: its nodes, the channel values (T, channels) and the frame rate.

    Raises:
        UserError: the file is not BVH; the message names file and line.
    """
    check_file(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    motion = next((k for k, line in enumerate(lines) if line.strip() == "MOTION"), None)
    if not lines or not lines[0].strip().startswith("HIERARCHY") or motion is None:
        raise UserError(f"{path}: not a BVH file (no HIERARCHY or no MOTION)")
    nodes = _hierarchy(path, lines[1:motion])
    frames, rate = _timing(path, lines, motion)
    width = sum(len(node.channels) for node in nodes)
    rows = [line for line in lines[motion + 3 :] if line.strip()]
    if len(rows) < frames:
        raise UserError(f"{path}: {len(rows)} frames, but line {motion + 2} says {frames}; cut off?")
    values = np.empty((frames, width))
    for k, line in enumerate(rows[:frames]):
        try:
            values[k] = [float(word) for word in line.split()]
        except ValueError:
            raise UserError(f"{path}: frame {k}: expected {width} numbers") from None
    return nodes, values, rate


def positions(nodes: list[Node], values: Floats) -> tuple[Floats, list[Floats | None]]:
    """Forward kinematics: positions (T, nodes, 3) in the file's unit, and each node's turn (T, 3, 3; None: none)."""
    places = np.zeros((len(values), len(nodes), 3))
    rotations: list[Floats | None] = []
    column = 0
    for k, node in enumerate(nodes):
        offset, turn = np.broadcast_to(node.offset, (len(values), 3)).copy(), None
        for channel in node.channels:
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                offset[:, axis] = values[:, column]
            else:
                step = _turned(axis, values[:, column])
                turn = step if turn is None else turn @ step
            column += 1
        if node.parent < 0:
            places[:, k] = offset
            parent: Floats | None = None
        else:
            parent = rotations[node.parent]
            moved = offset if parent is None else np.einsum("tij,tj->ti", parent, offset)
            places[:, k] = places[:, node.parent] + moved
        rotations.append(turn if parent is None else parent if turn is None else parent @ turn)
    return places, rotations


def _turned(axis: int, degrees: Floats) -> Floats:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    result = np.zeros((len(degrees), 3, 3))
    result[:, axis, axis] = 1.0
    result[:, i, i], result[:, i, j], result[:, j, i], result[:, j, j] = c, -s, s, c
    return result


def _hierarchy(path: Path, lines: list[str]) -> list[Node]:
    nodes: list[Node] = []
    open_nodes: list[int] = []
    for number, line in enumerate(lines, start=2):
        words = line.split()
        where = f"{path}: line {number}"
        try:
            match words:
                case [] | ["{"]:
                    pass
                case ["}"]:
                    open_nodes.pop()
                case ["ROOT" | "JOINT" | "End", *name]:
                    parent = open_nodes[-1] if open_nodes else -1
                    if (words[0] == "ROOT") != (not nodes) or len(nodes) >= _MOST_JOINTS:
                        raise UserError(f"{where}: expected one ROOT and at most {_MOST_JOINTS} joints below it")
                    label = " ".join(name)
                    nodes.append(Node(f"end:{nodes[parent].name}" if words[0] == "End" else label, parent))
                    open_nodes.append(len(nodes) - 1)
                case ["OFFSET", x, y, z]:
                    nodes[open_nodes[-1]].offset = np.array([float(x), float(y), float(z)])
                case ["CHANNELS", count, *channels] if int(count) == len(channels) <= 6:
                    if not all(re.fullmatch("[XYZ](position|rotation)", channel) for channel in channels):
                        raise UserError(f"{where}: unknown channels {' '.join(channels):.80}")
                    nodes[open_nodes[-1]].channels = channels
                case _:
                    raise UserError(f"{where}: cannot be understood: {line.strip()!r:.60}")
        except (ValueError, IndexError):
            raise UserError(f"{where}: cannot be understood: {line.strip()!r:.60}") from None
    if not nodes:
        raise UserError(f"{path}: no ROOT in its hierarchy")
    return nodes


def _timing(path: Path, lines: list[str], motion: int) -> tuple[int, float]:
    try:
        frames = int(lines[motion + 1].removeprefix("Frames:"))
        seconds = float(lines[motion + 2].removeprefix("Frame Time:"))
    except (ValueError, IndexError):
        raise UserError(f"{path}: line {motion + 2}: expected 'Frames: n' and 'Frame Time: seconds'") from None
    if frames < 0 or not 1e-4 <= seconds <= 10:
        raise UserError(f"{path}: line {motion + 2}: {frames} frames of {seconds} s make no sense")
    return frames, 1 / seconds


def _upright(joints: Floats, name: str, options: Options, record: ImportRecord) -> Floats:
    """The joints turned so that y is up."""
    up: str | None = options.up
    if up is None:
        trunk = joints[:, J["thorax"]] - joints[:, J["hip"]]
        length = np.linalg.norm(trunk, axis=-1, keepdims=True)
        mean = (trunk / np.maximum(length, 1e-9)).mean(axis=0) if len(trunk) else np.array([0.0, 1.0, 0.0])
        axis = int(np.abs(mean).argmax())
        up = ("-" if mean[axis] < 0 else "") + "xyz"[axis]
        if abs(mean[axis]) < UPRIGHT:
            record.note(
                f"{name}: the body mostly lies or bends, so that up is hard to tell (taken: {up}); up= states it"
            )
        record.note(f"up taken to be {up} (no up given)")
    turn = np.zeros((3, 3))
    axis = "xyz".index(up[-1])
    turn[1, axis] = -1.0 if up.startswith("-") else 1.0
    turn[0, (axis + 2) % 3] = 1.0
    turn[2] = np.cross(turn[0], turn[1])
    return np.asarray(joints @ turn.T)


def _unit(joints: Floats, file: Path, options: Options, record: ImportRecord) -> float:
    """Millimetres per unit of the file."""
    if not len(joints):
        return 1.0
    leg = sum(
        float(np.linalg.norm(joints[0, J[a]] - joints[0, J[b]]))
        for a, b in (("left_hip", "left_knee"), ("left_knee", "left_ankle"))
    )
    if not leg > 0 or not np.isfinite(leg):
        raise UserError(f"{file}: its left leg has no length")
    low, high = LEGS_MM
    if options.unit_mm is not None:
        if not low <= leg * options.unit_mm <= high:
            raise UserError(
                f"{file}: its leg (thigh and shin) measures {leg * options.unit_mm:.0f} mm by unit_mm="
                f"{options.unit_mm:g}, which is no person's ({low:g} to {high:g}); state another unit_mm"
            )
        return options.unit_mm
    unit = min(UNITS_MM, key=lambda key: abs(np.log(leg * UNITS_MM[key] / LEG_MM)))
    if not low <= leg * UNITS_MM[unit] <= high:
        raise UserError(
            f"{file}: its leg (thigh and shin) measures {leg:.3g}, which no usual unit makes a person's ({low:g} to "
            f"{high:g} mm); state unit_mm, the millimetres per unit"
        )
    record.note(f"unit taken to be {unit} (no unit_mm given)")
    return UNITS_MM[unit]
