"""Judge depth offsets against truth: the metrics of one split, and error curves over a run's history.

Depths are judged as predicted and sign-resolved. The sign of a part's depths is told from the 2D poses and the
prediction alone (knees and elbows bend forward), never from truth, so a resolved error is one that a user gets too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tips_dist import geometry
from tips_dist.bootstrap import cluster_interval
from tips_dist.data.store import Poses, normalised
from tips_dist.evaluation import metrics
from tips_dist.evaluation.metrics import Array
from tips_dist.models import Lifter
from tips_dist.skeleton import REPRESENTATIONS

_CHUNK_POSES = 16_384
CONVENTIONS = {
    "unit": "mm; the mean runs over all 17 joints, root included, and over all poses of the split",
    "mpjpe": "root-aligned, as predicted, one scale for the whole split (mean norm of truth over prediction)",
    "n_mpjpe": "root-aligned, each prediction rescaled to the norm of its truth",
    "pa_mpjpe": "rigid similarity per pose, reflection not allowed",
    "pa_mpjpe_reflected": "as pa_mpjpe, reflection allowed: blind to the depth sign, never to stand alone",
    "pck_150": "percent of joints below 150 mm, alignment of n_mpjpe",
    "auc_150": "mean of pck over 0, 5, ..., 150 mm, alignment of n_mpjpe",
    "_resolved": "depth signs of each part told from knees and elbows, without truth",
    "interval": "95 % percentile bootstrap of the mean, drawing whole sequences",
}


@dataclass(frozen=True)
class Bench:
    """The rows of a data set that predictions are judged on."""

    poses: Poses
    rows: npt.NDArray[np.int64]
    inputs: torch.Tensor  # (n, 17, 2) float64, normalised
    truth: Array  # (n, 17, 3) mm

    @staticmethod
    def of(poses: Poses, joints: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], scale: float) -> Bench:
        """Take ``rows`` of the poses, divided by ``scale`` px, and of the truth ``joints`` (N, 17, 3)."""
        inputs = torch.from_numpy(normalised(poses, rows, scale)).double()
        return Bench(poses, rows, inputs, joints[rows].astype(np.float64))

    def __len__(self) -> int:
        return len(self.rows)

    def lift(self, offsets: torch.Tensor) -> Array:
        """Lifted poses (..., n, 17, 3), unit of the mean root-head distance, from offsets (..., n, 17)."""
        return geometry.lift(self.inputs.expand(*offsets.shape, 2), offsets).numpy()

    def signs(self, offsets: torch.Tensor, representation: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Signs and confidences (E, P) of the independent parts of offsets (E, n, 17), told without truth."""
        return geometry.resolve_signs(self.inputs.float(), offsets.float(), REPRESENTATIONS[representation])


def signed(offsets: torch.Tensor, signs: torch.Tensor, representation: str) -> torch.Tensor:
    """Offsets (E, n, 17) with the depths of each independent part multiplied by its sign (E, P)."""
    return offsets * geometry.joint_signs(signs, REPRESENTATIONS[representation]).unsqueeze(-2)


def predict(lifter: Lifter, inputs: torch.Tensor) -> torch.Tensor:
    """Offsets (n, 17) float64 that a lifter of one seed predicts for ``inputs`` (n, 17, 2)."""
    lifter.eval()
    with torch.inference_mode():
        chunks = [lifter(chunk[None].float())[0].double() for chunk in torch.split(inputs, _CHUNK_POSES)]
    return torch.cat(chunks)


def judge(
    bench: Bench,
    offsets: torch.Tensor,
    representation: str,
    *,
    part_signs: Sequence[float] | None = None,
    detail: bool = False,
) -> dict[str, Any]:
    """All metrics of ``offsets`` (n, 17) on a bench.

    ``part_signs`` are those recorded with the weights, which a user of the weights gets; without them, the signs are
    told from the bench's own 2D poses. ``detail`` adds the breakdowns by joint, part, action and camera.
    """
    told, confidence = (values[0] for values in bench.signs(offsets[None], representation))
    signs = told if part_signs is None else torch.tensor([float(sign) for sign in part_signs])
    raw, resolved = bench.lift(offsets), bench.lift(signed(offsets[None], signs[None], representation)[0])
    errors = {
        "n_mpjpe": metrics.n_mpjpe(raw, bench.truth),
        "n_mpjpe_resolved": metrics.n_mpjpe(resolved, bench.truth),
        "pa_mpjpe": metrics.pa_mpjpe(raw, bench.truth),
        "pa_mpjpe_resolved": metrics.pa_mpjpe(resolved, bench.truth),
        "pa_mpjpe_reflected": metrics.pa_mpjpe(raw, bench.truth, reflection=True),
    }
    sequences = bench.poses.sequence[bench.rows]
    result: dict[str, Any] = {name: float(values.mean()) for name, values in errors.items()}
    result |= {
        "poses": len(bench),
        "mpjpe": float(metrics.mpjpe(raw * one_scale(raw, bench.truth), bench.truth).mean()),
        "mpjpe_resolved": float(metrics.mpjpe(resolved * one_scale(resolved, bench.truth), bench.truth).mean()),
        "part_signs": [int(sign) for sign in signs],
        "part_signs_told_here": [int(sign) for sign in told],
        "sign_confidence": confidence.tolist(),
        "interval": {name: cluster_interval(values.mean(axis=1), sequences) for name, values in errors.items()},
    }
    for suffix in ("", "_resolved"):
        result[f"pck_150{suffix}"] = metrics.pck(errors[f"n_mpjpe{suffix}"])
        result[f"auc_150{suffix}"] = metrics.auc(errors[f"n_mpjpe{suffix}"])
    if detail:
        result["by"] = breakdowns(bench, errors)
    return plain(result)


def breakdowns(bench: Bench, errors: dict[str, Array]) -> dict[str, dict[str, dict[str, float]]]:
    """Each metric's mean by joint, part, action and camera: {"joint": {"head": {"n_mpjpe": ...}}, ...}."""
    poses, rows = bench.poses, bench.rows
    actions = [metrics.action(name) for name in poses.sequence_names]
    tables = {
        "joint": {name: metrics.per_joint(values) for name, values in errors.items()},
        "part": {name: metrics.per_part(values) for name, values in errors.items()},
        "action": {name: metrics.per_group(values, poses.sequence[rows], actions) for name, values in errors.items()},
        "camera": {
            name: metrics.per_group(values, poses.camera[rows], poses.camera_names) for name, values in errors.items()
        },
    }
    return {
        kind: {group: {name: table[name][group] for name in table} for group in next(iter(table.values()))}
        for kind, table in tables.items()
    }


def one_scale(prediction: Array, truth: Array) -> float:
    """The factor that brings the mean norm of root-centred predictions to that of the truth."""
    norms = [np.linalg.norm(metrics.root_centred(poses), axis=(-2, -1)).mean() for poses in (prediction, truth)]
    return float(norms[1] / norms[0]) if norms[0] > 0 else 1.0


def curves(bench: Bench, depths: npt.NDArray[np.floating[Any]], representation: str) -> dict[str, Array]:
    """Mean errors (E,) of recorded offsets (E, n, 17), one evaluation step a row, as predicted and resolved."""
    raw = torch.from_numpy(np.asarray(depths, dtype=np.float64))
    turned = signed(raw, bench.signs(raw, representation)[0], representation)
    result = {}
    for suffix, offsets in (("", raw), ("_resolved", turned)):
        lifted = bench.lift(offsets)
        result[f"n_mpjpe{suffix}"] = metrics.n_mpjpe(lifted, bench.truth).mean(axis=(1, 2))
        result[f"pa_mpjpe{suffix}"] = metrics.pa_mpjpe(lifted, bench.truth).mean(axis=(1, 2))
    return result


def checkpoints(steps: Sequence[int], errors: dict[str, Array], selected: int | None) -> dict[str, Any]:
    """The errors of one run's checkpoints: as selected without truth, by the oracle, the last, and at random.

    ``best`` is the oracle's: the least sign-resolved N-MPJPE. ``random`` is the mean over all checkpoints whose
    error is finite; ``non_finite_steps`` counts the others.
    """
    finite = np.isfinite(errors["n_mpjpe_resolved"])

    def at(index: int) -> dict[str, Any]:
        return {"step": int(steps[index]), **{name: values[index] for name, values in errors.items()}}

    result: dict[str, Any] = {
        "steps": [int(step) for step in steps],
        **{name: values.tolist() for name, values in errors.items()},
        "selected": at(list(steps).index(selected)) if selected is not None and selected in steps else None,
        "best": at(int(np.nanargmin(errors["n_mpjpe_resolved"]))) if finite.any() else None,
        "last": at(-1) if len(steps) else None,
        "random": {name: values[finite].mean() for name, values in errors.items()} if finite.any() else None,
        "non_finite_steps": int((~finite).sum()),
    }
    return plain(result)


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON values: arrays as lists, NumPy numbers as Python's, non-finite numbers as None."""
    return {str(key): _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value
