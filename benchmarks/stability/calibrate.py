"""Fit the risk to true errors, say how well it does on what it was not fitted on, and freeze it.

    python -m benchmarks.stability.calibrate          # --dry prints only

PROTOCOL.md says how: non-negative least squares of log true error on the evidence, against few round weights whose line
alone is fitted; what chooses better on sources left out ships, fitted on all. The interval has two parts, the scatter
within a source and what a source as a whole may be off.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from benchmarks.stability import bank, scores
from benchmarks.stability.bank import Curves
from tips_dist.files import write_json
from tips_dist.stability import risk as product
from tips_dist.stability.risk import BONES, FLOOR, MIXED, REPROJECTIONS, SHARES, SYMMETRY, VIEWS, Regime

PLAUSIBLE_MM = 200.0  # checkpoints with a larger error are hopeless on sight and would drown the others
COVERED = 0.9
LEVEL_MM = 0.1  # of mean regret
CAMERAS = {"several": "views", "one": "one_camera"}  # regimes

BODIES = (BONES, SYMMETRY, REPROJECTIONS, "distance/nearest_neighbour", MIXED)
OFFERED: dict[str, dict[str, tuple[str, ...]]] = {
    "views": {"fitted": (VIEWS, *BODIES), "fitted without views": BODIES},
    "one_camera": {"fitted": BODIES},
}
ROUND: dict[str, dict[str, dict[str, float]]] = {
    "views": {
        "round weights of before": {VIEWS: 1.0, BONES: 0.5, MIXED: 1.0},
        "round weights": {VIEWS: 1.0, BONES: 1.0, REPROJECTIONS: 0.3, MIXED: 2.0},
    },
    "one_camera": {
        "round weights of before": {BONES: 1.0, SYMMETRY: 0.4, REPROJECTIONS: 0.5, MIXED: 3.0},
        "round weights": {BONES: 1.0, REPROJECTIONS: 0.3, MIXED: 2.0},
    },
}

Array = npt.NDArray[np.float64]
Fit = Callable[[Sequence[Curves]], Regime]


def evidence_of(signals: Mapping[str, Array], name: str) -> Array:
    """(E, S) one piece as the risk takes it."""
    found = signals[name]
    return np.maximum(found, 0.0) if name in SHARES else np.log(np.maximum(found, FLOOR))


def log_risk(regime: Regime, signals: Mapping[str, Array]) -> Array:
    """(E, S) of a run's signals; NaN where it cannot be told. As :meth:`Regime.log_risk`, of arrays."""
    shape = next(iter(signals.values())).shape
    total = np.full(shape, regime.intercept)
    for name, weight in regime.weights.items():
        total = total + weight * evidence_of(signals, name)
    return total


def fitted(name: str, pieces: Sequence[str]) -> Fit:
    """Non-negative least squares of log error on ``pieces``; those of no weight are left out."""

    def fit(runs: Sequence[Curves]) -> Regime:
        table, target, weight = _stack(runs, pieces)
        centre, middle = np.average(table, axis=0, weights=weight), np.average(target, weights=weight)
        root = np.sqrt(weight)
        found, _ = nnls((table - centre) * root[:, None], (target - middle) * root)
        weights = {piece: float(number) for piece, number in zip(pieces, found, strict=True) if number > 1e-3}
        return Regime(name, float(middle - centre @ found), weights, 0, 0)

    return fit


def line(name: str, weights: Mapping[str, float]) -> Fit:
    """Round weights; intercept and slope alone are fitted."""

    def fit(runs: Sequence[Curves]) -> Regime:
        table, target, weight = _stack(runs, list(weights))
        slope, intercept = np.polyfit(table @ np.array(list(weights.values())), target, 1, w=np.sqrt(weight))
        scaled = {piece: float(slope * number) for piece, number in weights.items()}
        return Regime(name, float(intercept), scaled, 0, 0)

    return fit


def forms(name: str) -> dict[str, Fit]:
    """What was tried for a regime."""
    lines = {said: line(name, weights) for said, weights in ROUND[name].items()}
    return lines | {said: fitted(name, pieces) for said, pieces in OFFERED[name].items()}


def _stack(runs: Sequence[Curves], pieces: Sequence[str]) -> tuple[Array, Array, Array]:
    """Evidence (N, F), log error (N,) and weight (N,) of all usable checkpoints, each seed counting alike."""
    found = [_rows(curves, tuple(pieces)) for curves in runs if all(piece in curves.signals for piece in pieces)]
    tables, targets, weights = zip(*found, strict=True)
    return np.concatenate(tables), np.concatenate(targets), np.concatenate(weights)


@functools.lru_cache(maxsize=4096)
def _rows(curves: Curves, pieces: tuple[str, ...]) -> tuple[Array, Array, Array]:
    table = np.stack([evidence_of(curves.signals, piece) for piece in pieces], -1)
    usable = np.isfinite(table).all(-1) & np.isfinite(curves.errors) & (curves.errors < PLAUSIBLE_MM)
    share = usable / np.maximum(usable.sum(0), 1)
    return table[usable], np.log(curves.errors[usable]), share[usable]


# --- the interval ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Residuals:
    """Log error minus log risk of the late checkpoints of some runs, with a weight that makes seeds alike."""

    values: Array
    weights: Array

    @property
    def median(self) -> float:
        """Weighted."""
        return quantile(self.values, self.weights, 0.5)


def residuals(regime: Regime, runs: Sequence[Curves]) -> Residuals:
    """Of every late checkpoint that has a risk and an error, broken ones included."""
    values, weights = [], []
    for curves in runs:
        late = slice(int(scores.LATE * len(curves.steps)), None)
        off = np.log(curves.errors[late]) - log_risk(regime, curves.signals)[late]
        known = np.isfinite(off)
        values.append(off[known])
        weights.append((known / np.maximum(known.sum(0), 1))[known])
    return Residuals(np.concatenate(values), np.concatenate(weights))


def with_interval(fit: Fit, runs: Sequence[Curves]) -> Regime:
    """Fit to ``runs``; the interval holds nine tenths of the errors that are met where a source is left out.

    ``within`` is the half width that would do if each source's own median were known, ``between`` the rest.
    """
    regime = fit(runs)
    runs = [curves for curves in runs if all(name in curves.signals for name in regime.weights)]
    sources = grouped(runs, lambda curves: curves.run.source)
    others = {name: [one for one in runs if one.run.source != name] or group for name, group in sources.items()}
    met = [residuals(fit(others[name]), group) for name, group in sources.items()]
    weights = np.concatenate([one.weights for one in met])
    whole = quantile(np.concatenate([np.abs(one.values) for one in met]), weights, COVERED)
    within = quantile(np.concatenate([np.abs(one.values - one.median) for one in met]), weights, COVERED)
    within = min(within, whole)
    return Regime(regime.name, regime.intercept, regime.weights, within, float(np.sqrt(whole**2 - within**2)))


def quantile(values: Array, weights: Array, share: float) -> float:
    """Weighted quantile."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(order) - 1)])


# --- leaving out -----------------------------------------------------------------------------------------------------


def grouped(runs: Sequence[Curves], key: Callable[[Curves], str]) -> dict[str, list[Curves]]:
    """Runs by source, recipe, ..."""
    found: dict[str, list[Curves]] = {}
    for curves in runs:
        found.setdefault(key(curves), []).append(curves)
    return found


def left_out(fit: Fit, runs: Sequence[Curves], key: Callable[[Curves], str]) -> dict[str, Regime]:
    """For each group the risk that was fitted on all others."""
    return {name: with_interval(fit, [one for one in runs if key(one) != name]) for name in grouped(runs, key)}


def covered(regime: Regime, runs: Sequence[Curves]) -> tuple[Array, Array, npt.NDArray[np.intp]]:
    """Share (N,) of each seed's late checkpoints whose error lies in the interval; of the chosen one; its run."""
    shares, chosen, places = [], [], []
    for place, curves in enumerate(runs):
        off = np.abs(np.log(curves.errors) - log_risk(regime, curves.signals))
        known, late = np.isfinite(off), int(scores.LATE * len(off))
        inside = np.where(known, off <= regime.half_width, np.nan)
        risks = np.where(known, log_risk(regime, curves.signals), np.inf)
        for seed in range(off.shape[1]):
            some = known[late:, seed].any()
            shares.append(np.nanmean(inside[late:, seed]) if some else np.nan)
            chosen.append(inside[risks[:, seed].argmin(), seed])
            places.append(place)
    return np.array(shares), np.array(chosen), np.array(places)


def best_form(name: str, runs: Sequence[Curves]) -> tuple[str, dict[str, float]]:
    """The form that costs least regret on sources left out, and all of them, in mm; within 0.1 mm the one of fewer
    pieces. Averaged weights; long and short runs of each source count alike."""
    found, pieces = {}, {}
    for said, fit in forms(name).items():
        regrets = []
        for source in grouped(runs, lambda curves: curves.run.source):
            regime = fit([one for one in runs if one.run.source != source])
            own = [one for one in runs if one.run.source == source and one.kind == "averaged"]
            for group in grouped(own, lambda curves: curves.run.length).values():
                judged = scores.pooled(functools.partial(log_risk, regime), group)
                if judged is not None:
                    regrets.append(float(np.nanmean(judged.regret)))
        found[said], pieces[said] = float(np.mean(regrets)), len(fit(runs).weights)
    least = min(found.values())
    level = [said for said, regret in found.items() if regret <= least + LEVEL_MM]
    return min(level, key=lambda said: (pieces[said], found[said])), found


def main() -> None:
    """Fit, say how well each regime does where it was not fitted, and write ``calibration.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    stored = {}
    for cameras, name in CAMERAS.items():
        runs = list(bank.load(cameras=cameras))
        said, regrets = best_form(name, runs)
        regime = with_interval(forms(name)[said], runs)
        print(f"{name}: mean regret on sources left out, mm: {', '.join(f'{k} {v:.2f}' for k, v in regrets.items())}")
        print(f"  {said}: {regime.intercept:.4f} + {dict(regime.weights)}, within {regime.within:.3f}, "
              f"between {regime.between:.3f}: + {100 * regime.plus_minus:.0f} %")  # fmt: skip
        for source, other in left_out(forms(name)[said], runs, lambda one: one.run.source).items():
            own = [one for one in runs if one.run.source == source and one.kind == "averaged"]
            shares, chosen, _ = covered(other, own)
            print(f"  {source} left out: covers {np.nanmean(shares):.2f} (chosen {np.nanmean(chosen):.2f}), "
                  f"+ {100 * other.plus_minus:.0f} %, off by {np.exp(residuals(other, own).median):.2f}")  # fmt: skip
        seeds = sum(len(one.run.seeds) for one in runs if one.kind == "averaged")
        stored[name] = {
            "intercept": round(regime.intercept, 4),
            "weights": {piece: round(weight, 4) for piece, weight in regime.weights.items()},
            "within": round(regime.within, 4),
            "between": round(regime.between, 4),
            "fitted_on": f"bank 2: {seeds} seeds, averaged and raw weights, three sources; form: {said}",
        }
    if not arguments.dry:
        unit = "mm of N-MPJPE, sign-resolved; weights are of logarithms, but for mirror/mixed; interval of 90 %"
        write_json(product.CALIBRATION, {"regimes": stored, "unit": unit})


if __name__ == "__main__":
    main()
