"""Measure depth offsets against truth: the metrics of one split, and error curves over a run's history.

Depths are judged as predicted and sign-resolved. The sign of a part's depths is told from the 2D poses and the
prediction alone (knees and elbows bend forward), never from truth, so a resolved error is one that a user gets too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from tips_dist import geometry
from tips_dist.bootstrap import cluster_interval
from tips_dist.data.store import Poses, normalised
from tips_dist.evaluation import metrics
from tips_dist.evaluation.metrics import Array
from tips_dist.models import BaseLifter, Lifter
from tips_dist.runfolder.curves import METRICS, Curve
from tips_dist.runfolder.results import Errors, Metrics, SeedErrors, SpreadCheck
from tips_dist.skeleton import REPRESENTATIONS

_CHUNK_POSES = 16_384
CPU = torch.device("cpu")
MIRRORED = "mirrored"
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
    """The rows of a data set that predictions are measured on."""

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


def predict(lifter: BaseLifter, inputs: torch.Tensor, device: torch.device = CPU) -> torch.Tensor:
    """Offsets (n, 17) float64 that a lifter of one seed predicts, on ``device``, for ``inputs`` (n, 17, 2)."""
    lifter.eval().to(device)
    with torch.inference_mode():
        parts = torch.split(inputs, _CHUNK_POSES)
        chunks = [lifter(chunk[None].float().to(device))[0].cpu().double() for chunk in parts]
    return torch.cat(chunks)


def spread_of(lifter: Lifter, inputs: torch.Tensor, device: torch.device = CPU) -> torch.Tensor:
    """The spread (n, 17) float64 that a student predicts, on ``device``, for ``inputs`` (n, 17, 2)."""
    lifter.to(device)
    with torch.inference_mode():
        parts = torch.split(inputs, _CHUNK_POSES)
        chunks = [lifter.with_spread(chunk[None].float().to(device))[1][0].exp().cpu() for chunk in parts]
    return torch.cat(chunks).double()


def check_spread(bench: Bench, offsets: torch.Tensor, spread: torch.Tensor) -> SpreadCheck:
    """Compare a student's spread (n, 17) with the errors of its depths (n, 17), in mm by each pose's own scale."""
    lifted, truth = metrics.root_centred(bench.lift(offsets)), metrics.root_centred(bench.truth)
    norms = np.linalg.norm(lifted, axis=(-2, -1)).clip(1e-9)
    scale = ((lifted * truth).sum((-2, -1)) / norms**2).clip(0)[:, None]
    errors = np.abs(lifted[..., 2] * scale - truth[..., 2])[:, 1:]
    apart = (spread.numpy() * scale)[:, 1:]
    rank = spearmanr(apart.mean(1), errors.mean(1)).statistic if len(bench) > 2 else np.nan
    return SpreadCheck(
        within_1=float((errors <= apart).mean()),
        within_2=float((errors <= 2 * apart).mean()),
        mean_spread=float(apart.mean()),
        mean_error=float(errors.mean()),
        spearman=finite_or_none(float(rank)),
    )


def measure_errors(
    bench: Bench,
    offsets: torch.Tensor,
    representation: str,
    *,
    part_signs: Sequence[float] | None = None,
    detail: bool = False,
) -> Metrics:
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
    intervals = {name: cluster_interval(values.mean(axis=1), sequences) for name, values in errors.items()}
    scaled, scaled_resolved = (
        metrics.mpjpe(lifted * one_scale(lifted, bench.truth), bench.truth) for lifted in (raw, resolved)
    )
    return Metrics(
        poses=len(bench),
        spread=None,
        **{name: finite_or_none(values.mean()) for name, values in errors.items()},
        mpjpe=finite_or_none(scaled.mean()),
        mpjpe_resolved=finite_or_none(scaled_resolved.mean()),
        pck_150=metrics.pck(errors["n_mpjpe"]),
        pck_150_resolved=metrics.pck(errors["n_mpjpe_resolved"]),
        auc_150=metrics.auc(errors["n_mpjpe"]),
        auc_150_resolved=metrics.auc(errors["n_mpjpe_resolved"]),
        part_signs=[int(sign) for sign in signs],
        part_signs_told_here=[int(sign) for sign in told],
        sign_confidence=[finite_or_none(value) for value in confidence.tolist()],
        interval={
            name: None if ends is None or not np.isfinite(ends).all() else list(ends)
            for name, ends in intervals.items()
        },
        by=breakdowns(bench, errors) if detail else None,
    )


def breakdowns(bench: Bench, errors: dict[str, Array]) -> dict[str, dict[str, dict[str, float | None]]]:
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
        kind: {
            group: {name: finite_or_none(table[name][group]) for name in table} for group in next(iter(table.values()))
        }
        for kind, table in tables.items()
    }


def one_scale(prediction: Array, truth: Array) -> float:
    """The factor that brings the mean norm of root-centred predictions to that of the truth."""
    norms = [np.linalg.norm(metrics.root_centred(poses), axis=(-2, -1)).mean() for poses in (prediction, truth)]
    return float(norms[1] / norms[0]) if norms[0] > 0 else 1.0


def error_curves(bench: Bench, depths: npt.NDArray[np.floating[Any]], representation: str) -> dict[str, Array]:
    """Mean errors (E,) of recorded offsets (E, n, 17), one evaluation step a row, as predicted and resolved.

    Beside the metrics stands the true share of poses held mirrored (:data:`MIRRORED`).
    """
    raw = torch.from_numpy(np.asarray(depths, dtype=np.float64))
    turned = signed(raw, bench.signs(raw, representation)[0], representation)
    result = {}
    for suffix, offsets in (("", raw), ("_resolved", turned)):
        lifted = bench.lift(offsets)
        result[f"n_mpjpe{suffix}"] = metrics.n_mpjpe(lifted, bench.truth).mean(axis=(1, 2))
        result[f"pa_mpjpe{suffix}"] = metrics.pa_mpjpe(lifted, bench.truth).mean(axis=(1, 2))
    result[MIRRORED] = mirrored_share(bench, turned.numpy())
    return result


def mirrored_share(bench: Bench, depths: npt.NDArray[np.floating]) -> Array:
    """Share of poses whose depths oppose true depth, or whose do not if those are fewer: (..., n, 17) -> (...).

    Of sign-resolved depths, a part which is mirrored altogether does not count.
    """
    depth = bench.truth[..., 2] - bench.truth[:, :1, 2]
    against = np.einsum("...vj,vj->...v", depths - depths[..., :1], depth)
    share: Array = (against < 0).mean(-1)
    return np.minimum(share, 1 - share)


def checkpoints(curve: Curve, selected: int | None) -> SeedErrors:
    """The errors of one run's checkpoints: as selected without truth, by the oracle, the last, and at random.

    ``best`` is the oracle's: the least sign-resolved N-MPJPE. ``random`` is the mean over all checkpoints whose
    error is finite; ``non_finite_steps`` counts the others.
    """
    steps, resolved = curve.steps.tolist(), curve.errors["n_mpjpe_resolved"]
    finite = np.isfinite(resolved)

    def at(step: int | None, values: Mapping[str, float]) -> Errors:
        n, n_resolved, pa, pa_resolved = (finite_or_none(values[name]) for name in METRICS)
        return Errors(step=step, n_mpjpe=n, n_mpjpe_resolved=n_resolved, pa_mpjpe=pa, pa_mpjpe_resolved=pa_resolved)

    def of(index: int) -> Errors:
        return at(steps[index], {name: float(values[index]) for name, values in curve.errors.items()})

    mean = {name: float(values[finite].mean()) for name, values in curve.errors.items()} if finite.any() else None
    return SeedErrors(
        selected=of(steps.index(selected)) if selected in steps else None,
        best=of(int(np.nanargmin(resolved))) if finite.any() else None,
        last=of(-1) if steps else None,
        random=None if mean is None else at(None, mean),
        non_finite_steps=int((~finite).sum()),
    )


def finite_or_none(value: float) -> float | None:
    """A plain number; None where it is not finite, as records write it."""
    return float(value) if np.isfinite(value) else None
