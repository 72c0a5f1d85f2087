"""The student: one whole-pose network that lifts 2D poses in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tips_dist import geometry, pose_signs
from tips_dist.files import UserError
from tips_dist.models.base import BaseLifter
from tips_dist.models.lifter import Lifter
from tips_dist.models.plan import PlainLifter
from tips_dist.models.weights import load_weights
from tips_dist.runfolder.records import WeightsRecord
from tips_dist.skeleton import ROOT

_TOLD_TOGETHER = 65_536  # poses whose signs are told together: one estimate of how many are mirrored


class Student:
    """A trained whole-pose lifter, ready for use: ``Student.load(path).lift(poses)``."""

    def __init__(self, lifter: BaseLifter, record: WeightsRecord) -> None:
        self.lifter = lifter
        self.device = next(lifter.parameters()).device
        self.record = record
        self.predict = PlainLifter(lifter) if PlainLifter.fits(lifter) else lambda poses: lifter(poses[None])[0]

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Student:
        """Load ``student.safetensors`` (or any candidate's weights), to lift on ``device``.

        Raises:
            UserError: the file is missing, damaged, or holds no tips-dist weights.
        """
        lifter, record = load_weights(Path(path))
        return cls(lifter.to(device), record)

    @torch.inference_mode()
    def lift(
        self, poses: NDArray[Any], batch: int | None = None, *, signs: Literal["network", "pose"] = "network"
    ) -> NDArray[np.float32]:
        """Lift 2D poses (N, 17, 2), in pixels with y down, to root-relative 3D poses (N, 17, 3).

        One unit of the result is the mean root-to-head distance of people in the training data; x right, y down, z
        away. Monocular lifting has no absolute scale. Depth signs are resolved as recorded with the weights.
        ``signs="pose"`` tells them pose by pose instead, from knees and elbows, with the recorded ones as the prior
        (module ``pose_signs``): for networks caught between two mirror solutions; a sound one gains nothing by it.
        ``batch`` poses are lifted at a time: by default 512 per thread, whose features still fit the cache.

        Raises:
            UserError: the array has another shape or holds non-finite values.
        """
        array = np.asarray(poses, dtype=np.float32)
        if array.ndim != 3 or array.shape[1:] != (17, 2):
            raise UserError(f"poses: expected an array of shape (N, 17, 2), got {array.shape}")
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise UserError(f"poses: row {row} holds non-finite values; drop it or fill it in first")
        representation = self.lifter.representation
        own = torch.tensor(self.record.part_signs or [1.0] * len(representation.lifters))
        joint_signs = geometry.joint_signs(own, representation).to(self.device)
        lifted = np.empty((len(array), 17, 3), dtype=np.float32)
        batch = batch or 512 * torch.get_num_threads()
        for start in range(0, len(array), batch):
            chunk = torch.from_numpy(array[start : start + batch]).to(self.device)
            centred = (chunk - chunk[:, ROOT : ROOT + 1]) / self.record.scale
            offsets = self.predict(centred) * joint_signs
            lifted[start : start + batch] = geometry.lift(centred, offsets).cpu().numpy()
        if signs == "pose":
            for start in range(0, len(array), _TOLD_TOGETHER):
                part = lifted[start : start + _TOLD_TOGETHER]
                flat = geometry.project(torch.from_numpy(part))
                told = pose_signs.resolve_pose_signs(
                    flat, torch.from_numpy(part[None, ..., 2]), representation, signs=torch.ones(1, len(own))
                )
                offsets = torch.from_numpy(part[..., 2]) * told.joints(representation)[0]
                lifted[start : start + _TOLD_TOGETHER] = geometry.lift(flat, offsets).numpy()
        return lifted

    @property
    def knows_spread(self) -> bool:
        """Whether it was taught by several teachers, and so knows how far they were apart."""
        return isinstance(self.lifter, Lifter) and self.lifter.spread is not None

    @torch.inference_mode()
    def uncertainty(self, poses: NDArray[Any], batch: int = 16_384) -> NDArray[np.float32]:
        """How far the teachers would be apart about each joint's depth of poses (N, 17, 2) in pixels: (N, 17).

        A standard deviation in the unit of :meth:`lift` (0 for the root): large where a pose is unlike those it was
        taught on or depth is ambiguous. No error bar: what all teachers get wrong does not show
        (``evaluate`` says how many joints lie within it).

        Raises:
            UserError: the student was taught by one teacher, or before students knew, or the array is none of poses.
        """
        if not isinstance(self.lifter, Lifter) or self.lifter.spread is None:
            raise UserError("this network does not know its uncertainty; distil it again, from two teachers or more")
        array = np.asarray(poses, dtype=np.float32)
        if array.ndim != 3 or array.shape[1:] != (17, 2):
            raise UserError(f"poses: expected an array of shape (N, 17, 2), got {array.shape}")
        found = np.zeros(array.shape[:2], dtype=np.float32)
        for start in range(0, len(array), batch):
            chunk = torch.from_numpy(array[start : start + batch]).to(self.device)
            centred = (chunk - chunk[:, ROOT : ROOT + 1]) / self.record.scale
            found[start : start + batch] = self.lifter.with_spread(centred[None])[1][0].exp().cpu().numpy()
        found[:, ROOT] = 0.0
        return found
