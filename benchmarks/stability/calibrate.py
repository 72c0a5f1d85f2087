"""Fit intercept and slope of the risk's regimes to true error and freeze them.

    python -m benchmarks.stability.calibrate          # --dry prints only

The weights of the score are the product's (``tips_dist/stability/risk.py``); here a line is laid through log error over
score, by least squares, each run counting alike and hopeless checkpoints left out. ``views`` is fitted to the averaged
weights of the first four seeds of the runs on real bodies (``evidence.py label`` makes them) and judged on the others;
``one_camera`` to the committed procedural bank, whose runs were recorded without ``mirror/mixed``, and judged on CMU's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks.stability import evidence
from benchmarks.stability.histories import load
from tips_dist.files import write_json
from tips_dist.stability import risk as product

PLAUSIBLE_MM = 200.0  # checkpoints with a larger error are hopeless on sight and would drown the others
FITTED_SEEDS = 4
VIEWS, ONE_CAMERA = product.REGIMES

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One seed: score and true error of its checkpoints, (E,) each; NaN where there is none."""

    scores: Array
    errors: Array

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Checkpoints that can be compared."""
        return np.isfinite(self.scores) & np.isfinite(self.errors)


def main() -> None:
    """Fit, say how well each regime orders and how far its millimetres are off, and write ``calibration.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--bodies", type=Path, default=evidence.BANK, help="labelled runs on real bodies")
    arguments = parser.parse_args()
    stored = json.loads(product.CALIBRATION.read_text())["regimes"]
    bodies = evidence.load(arguments.bodies)
    if fitted := of_bodies(bodies, fitted=True):
        said = f"averaged weights of seeds 0 to {FITTED_SEEDS - 1} of the runs on real bodies"
        stored["views"] = freeze("views", fitted, of_bodies(bodies, fitted=False), said)
    else:
        print(f"{arguments.bodies}: no labelled runs; the line of 'views' stays as it is")
    stored["one_camera"] = freeze("one_camera", of_bank("procedural"), of_bank("cmu"), "the procedural bank, unmixed")
    if not arguments.dry:
        unit = "mm of N-MPJPE, sign-resolved, of the calibration data; elsewhere a ranking"
        write_json(product.CALIBRATION, {"regimes": stored, "unit": unit})


def freeze(name: str, fitted: list[Series], judged: list[Series], said: str) -> dict[str, float | str]:
    """The line of one regime as the file keeps it, with a word on how good it is."""
    intercept, slope = fit(fitted)
    ranks = [float(spearmanr(s.scores[s.usable], s.errors[s.usable]).statistic) for s in judged if s.usable.sum() > 4]
    off = [np.median(np.exp(intercept + slope * s.scores[s.usable]) / s.errors[s.usable]) for s in judged]
    print(
        f"{name}: log risk = {intercept:.4f} + {slope:.4f} x score, from {len(fitted)} seeds; of {len(judged)} others: "
        f"within-run Spearman {np.nanmedian(ranks):.2f}, risk over error {np.nanmedian(off):.2f}"
    )
    return {"intercept": round(intercept, 4), "slope": round(slope, 4), "fitted_on": f"{len(fitted)} seeds: {said}"}


def fit(series: Iterable[Series]) -> tuple[float, float]:
    """Intercept and slope of log error over score, each seed counting alike."""
    scores, errors, weights = [], [], []
    for one in series:
        kept = one.usable & (one.errors < PLAUSIBLE_MM)
        scores.append(one.scores[kept])
        errors.append(np.log(one.errors[kept]))
        weights.append(np.full(kept.sum(), 1 / max(kept.sum(), 1) ** 0.5))
    slope, intercept = np.polyfit(np.concatenate(scores), np.concatenate(errors), 1, w=np.concatenate(weights))
    return float(intercept), float(slope)


def of_bodies(runs: Iterable[evidence.Curves], *, fitted: bool) -> list[Series]:
    """The seeds of the runs on bodies that the line is fitted to, or the others."""
    found = []
    for run in runs:
        for place, seed in enumerate(run.run.seeds):
            if run.kind == "averaged" and (seed < FITTED_SEEDS) == fitted:
                rows = [
                    {name: float(values[e, place]) for name, values in run.signals.items()}
                    for e in range(len(run.steps))
                ]
                found.append(Series(_scores(VIEWS, rows), run.errors[:, place]))
    return found


def of_bank(motion: str) -> list[Series]:
    """The seeds of one half of the committed bank."""
    return [Series(_scores(ONE_CAMERA, history.rows()), history.errors) for history in load(motion)]


def _scores(regime: product.Regime, rows: Iterable[product.Signals]) -> Array:
    return np.array([np.nan if (score := regime.score(row)) is None else score for row in rows], np.float64)


if __name__ == "__main__":
    main()
