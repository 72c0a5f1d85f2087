"""Fit the risk to true error on procedural motion and freeze it: ``python -m benchmarks.stability.calibrate``.

Non-negative least squares of log error on log signals, each pose counting once and each run alike; non-negative, so
that every signal can only ever say "worse" when it grows. Runs of the judging set (CMU) are not read.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from benchmarks.stability.histories import load
from tips_dist.evaluation.histories import LabelledHistory
from tips_dist.files import write_json
from tips_dist.stability import risk as product

PLAUSIBLE_MM = 200.0  # checkpoints with a larger error are hopeless on sight and would drown the others

CANDIDATES = (
    "rigidity/bone_ratio_variance",
    "rigidity/symmetry",
    "distance/sliced_wasserstein",
    "distance/mmd",
    "distance/nearest_neighbour",
    "consistency/cycle_2d",
    "consistency/cycle_3d",
    "consistency/turn_90",
    "depth/spread_ratio",
)


def main() -> None:
    """Fit, say how well each run is ordered, leave-one-run-out, and write ``calibration.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    histories = load("procedural")
    left_out: list[float] = []
    for name in sorted({history.trial for history in histories}):
        coefficients = fit([history for history in histories if history.trial != name])
        for history in histories:
            if history.trial == name:
                left_out.append(within(history, coefficients))
    coefficients = fit(histories)
    print(f"{len(histories)} histories; within-run Spearman, leave one run out: "
          f"median {np.nanmedian(left_out):.2f}, mean {np.nanmean(left_out):.2f}")  # fmt: skip
    for name, value in coefficients.items():
        print(f"  {name:32s} {value:8.4f}")
    if not arguments.dry:
        write_json(
            product.CALIBRATION,
            {
                "coefficients": {name: round(value, 6) for name, value in coefficients.items()},
                "fitted_on": f"{len(histories)} histories of procedural motion, benchmarks.stability.calibrate",
                "unit": "mm of N-MPJPE, sign-resolved, on procedural motion",
            },
        )


def fit(histories: list[LabelledHistory]) -> dict[str, float]:
    """Coefficients by name, zero ones left out, with the intercept."""
    design, target, weight = [], [], []
    for history in histories:
        rows = [product.logarithms(row, CANDIDATES) for row in history.rows()]
        usable = [i for i, row in enumerate(rows) if row is not None and history.errors[i] < PLAUSIBLE_MM]
        for index in usable:
            design.append([*rows[index].values(), 1.0, -1.0])  # type: ignore[union-attr]
            target.append(np.log(history.errors[index]))
            weight.append(1 / len(usable))
    scale = np.sqrt(np.array(weight))[:, None]
    solution, _ = nnls(np.array(design) * scale, np.array(target) * scale[:, 0])
    found = {name: float(value) for name, value in zip(CANDIDATES, solution, strict=False) if value > 1e-6}
    return {**found, "intercept": float(solution[-2] - solution[-1])}


def within(history: LabelledHistory, coefficients: dict[str, float]) -> float:
    """Spearman of risk against error across one seed's checkpoints."""
    risks = np.array([product.risk(row, coefficients) or np.nan for row in history.rows()])
    usable = np.isfinite(risks) & np.isfinite(history.errors)
    return float(spearmanr(risks[usable], history.errors[usable]).statistic) if usable.sum() > 4 else float("nan")


if __name__ == "__main__":
    main()
