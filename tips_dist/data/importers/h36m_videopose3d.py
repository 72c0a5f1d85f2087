"""Human3.6M in the layout of VideoPose3D: ``data_3d_h36m.npz`` (world) and ``data_2d_h36m_<detector>.npz`` (px).

The archives hold pickled dictionaries, so this needs ``allow_pickle=true``; see :mod:`.unpickling` for what is then
allowed. ``positions_3d``: subject → action → (T, 32, 3) metres in the world. ``positions_2d``: subject → action →
list of cameras, each (T, 17, 2). The archives hold no cameras, so each is calibrated from the 3D-2D pairs themselves.
Split by subject as in :mod:`.h36m_fetch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.data.importers.calibration import Calibration, calibrate
from tips_dist.data.importers.h36m_fetch import (
    FRAME_RATE_HZ,
    IMAGE_PX,
    JOINTS_OF_32,
    SUBJECTS,
    TEST_SUBJECTS,
    VALIDATION_SUBJECTS,
)
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.data.importers.splits import check_subjects, splits_by_protocol
from tips_dist.data.importers.unpickling import load_object
from tips_dist.data.npz import archive
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS

USES = ("validation_subjects", "test_subjects", "validation_share", "allow_pickle")
WORLD = "data_3d_h36m.npz"
_CALIBRATION_FRAMES = 400  # per subject and camera
_WORST_PX = 15.0

Array = npt.NDArray[Any]
Tree = dict[str, dict[str, Array | list[Array]]]  # subject -> action -> what stands there, until it is checked


def open_source(source: Path, options: Options, record: ImportRecord) -> Source:
    """Read both archives: ``source`` is the 2D archive, or the folder with ``data_2d_h36m_gt.npz``.

    Raises:
        UserError: unpickling is not allowed, a file is missing, or the content is laid out differently.
    """
    if not options.allow_pickle:
        raise UserError(
            f"{source}: this layout is pickled; say allow_pickle=true to read it with an unpickler that knows "
            "arrays and plain containers only"
        )
    flat = source / "data_2d_h36m_gt.npz" if source.is_dir() else source
    world = flat.with_name(WORLD)
    poses, joints = _tree(flat, "positions_2d"), _tree(world, "positions_3d")
    found = [subject for subject in SUBJECTS if subject in poses]
    if not found:
        raise UserError(f"{flat}: positions_2d: none of the subjects {', '.join(SUBJECTS)}")
    check_subjects(options, found, source)
    missing = [subject for subject in found if subject not in joints]
    if missing:
        raise UserError(f"{world}: positions_3d: no subject {missing[0]}, which {flat.name} has")
    record.note(f"2D from {flat.name}; cameras calibrated from the 3D-2D pairs")
    total = sum(len(views) for subject in found for views in poses[subject].values())
    people = {f"{subject}/{action}": subject for subject in found for action in poses[subject]}
    splits = splits_by_protocol(people, options, record, VALIDATION_SUBJECTS, TEST_SUBJECTS)
    clips = _clips(poses, joints, found, splits, record, flat)
    return Source(f"Human3.6M (VideoPose3D, {flat.stem})", FRAME_RATE_HZ, True, clips, total, IMAGE_PX)


def _tree(path: Path, key: str) -> Tree:
    with archive(path) as opened:
        tree = load_object(opened, path, key)
    if not isinstance(tree, dict) or not all(isinstance(actions, dict) for actions in tree.values()):
        raise UserError(f"{path}: {key}: expected subject → action → arrays")
    return {str(subject): {str(name): value for name, value in actions.items()} for subject, actions in tree.items()}


def _clips(
    poses: Tree, joints: Tree, subjects: list[str], splits: dict[str, str], record: ImportRecord, path: Path
) -> Iterator[Clip]:
    errors = [0.0]
    for subject in subjects:
        paired = {action: _paired(subject, action, poses, joints, path) for action in poses[subject]}
        calibrations = _calibrations(paired, f"{path}: {subject}")
        errors += [calibration.error_px for calibration in calibrations]
        for action, (world, views) in paired.items():
            for camera, (pixels, calibration) in enumerate(zip(views, calibrations, strict=False)):
                frames = min(len(world), len(pixels))
                if len(world) != len(pixels):
                    record.drop("frames with 3D or 2D only", abs(len(world) - len(pixels)))
                truth = calibration.to_camera(world[:frames].astype(np.float64) * 1000)
                name = f"{subject}/{action}"
                yield Clip(subject, name, f"camera_{camera}", splits[name], np.arange(frames), pixels[:frames], truth)
    record.note(f"worst median reprojection error of a calibrated camera: {max(errors):.1f} px")


def _calibrations(paired: dict[str, tuple[Array, list[Array]]], where: str) -> list[Calibration]:
    """The cameras of a subject, in the order of the views."""
    result = []
    for camera in range(max((len(views) for _, views in paired.values()), default=0)):
        seen = {a: (world, views[camera]) for a, (world, views) in paired.items() if camera < len(views)}
        result.append(_calibrated(seen, f"{where}, camera {camera}"))
    return result


def _paired(subject: str, action: str, poses: Tree, joints: Tree, path: Path) -> tuple[Array, list[Array]]:
    """World joints (T, 17, 3) in metres, and px (T, 17, 2) per camera."""
    where = f"{path}: {subject}, {action}"
    world, views = joints[subject].get(action), poses[subject][action]
    if isinstance(views, np.ndarray) and views.ndim == 4:
        views = list(views)
    if not isinstance(world, np.ndarray) or world.ndim != 3 or world.shape[1:] not in ((32, 3), (17, 3)):
        raise UserError(f"{where}: {WORLD} has no (T, 32, 3) array for it")
    if not isinstance(views, list) or not views:
        raise UserError(f"{where}: expected a list of cameras")
    for view in views:
        if not isinstance(view, np.ndarray) or view.ndim != 3 or view.shape[1:] != (len(JOINTS), 2):
            raise UserError(f"{where}: expected (T, 17, 2) per camera")
        if view.dtype.kind != "f" or world.dtype.kind != "f":
            raise UserError(f"{where}: expected floats")
    return (world[:, JOINTS_OF_32] if world.shape[1] == 32 else world), views


def _calibrated(seen: dict[str, tuple[Array, Array]], where: str) -> Calibration:
    """The camera that explains evenly spaced frames of all recordings of a subject."""
    pairs = [(world[: len(pixels)], pixels[: len(world)]) for world, pixels in seen.values()]
    world = np.concatenate([pair[0] for pair in pairs]).astype(np.float64) * 1000
    pixels = np.concatenate([pair[1] for pair in pairs]).astype(np.float64)
    finite = np.isfinite(world).all(axis=(1, 2)) & np.isfinite(pixels).all(axis=(1, 2))
    rows = np.flatnonzero(finite)
    if len(rows) < 20:
        raise UserError(f"{where}: {len(rows)} whole frames are too few to calibrate its camera")
    rows = rows[np.linspace(0, len(rows) - 1, min(_CALIBRATION_FRAMES, len(rows))).astype(int)]
    calibration = calibrate(world[rows].reshape(-1, 3), pixels[rows].reshape(-1, 2))
    if not calibration.error_px < _WORST_PX:
        raise UserError(
            f"{where}: no camera explains the 2D poses by the 3D joints (error {calibration.error_px:.0f} px); "
            "do the two files belong together?"
        )
    return calibration
