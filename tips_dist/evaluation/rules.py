"""Alarms and stopping rules: the product's verdicts replayed, and off-the-shelf ones on the same risk.

``ruptures`` (PELT, offline) and ``river`` (Page-Hinkley, ADWIN, online) come with the extra ``bench``; their rows are
left out where they are not installed.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from tips_dist.config import Policy
from tips_dist.replay import Array, SeedHistory, judged, replay
from tips_dist.stability.detectors import Judge
from tips_dist.stability.verdicts import PLATEAUED

Rule = Callable[[SeedHistory], int | None]  # index of the evaluation step at which it stops, or None
HOPELESS = 1e9  # in place of a risk that cannot be told


def never(history: SeedHistory) -> int | None:
    """Let everything train to its end."""
    return None


def verdicts(policy: Policy | None = None, *, least: str = PLATEAUED) -> Rule:
    """The product's detectors: stop at the first verdict at least as severe as ``least``."""
    return lambda history: replay(history, policy, least=least)[1]


def calls(history: SeedHistory, policy: Policy | None = None) -> dict[str, int]:
    """Every kind of verdict that a seed had, and the index of the evaluation step at which it first had it."""
    judge = Judge(history.budget, history.recipe, policy, history.detectors)
    found: dict[str, int] = {}
    for index, verdict in enumerate(judged(history, judge)):
        found.setdefault(verdict.kind, index)
    return found


# --- Alarms ---------------------------------------------------------------------------------------------------------


def pelt(history: SeedHistory) -> int | None:
    """``ruptures`` PELT with a BIC-like penalty on the log risk, offline: the first upward change of the mean."""
    import ruptures

    series = _log_risk(history)
    if len(series) < 6:  # two segments of three
        return None
    penalty = 3 * np.log(len(series)) * max(float(np.var(np.diff(series))), 1e-6)
    ends = ruptures.Pelt(model="l2", min_size=3).fit(series).predict(pen=penalty)
    means = [series[a:b].mean() for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    rises = [end for end, before, after in zip(ends, means, means[1:], strict=False) if after > before]
    return rises[0] if rises else None


def page_hinkley(history: SeedHistory) -> int | None:
    """``river`` Page-Hinkley at its defaults, on the log risk."""
    from river import drift

    return _online(drift.PageHinkley(), _log_risk(history))


def adwin(history: SeedHistory) -> int | None:
    """``river`` ADWIN at its defaults, on the log risk."""
    from river import drift

    return _online(drift.ADWIN(), _log_risk(history))


def _online(detector: object, series: Array) -> int | None:
    for index, value in enumerate(series):
        detector.update(float(value))  # type: ignore[attr-defined]
        if detector.drift_detected:  # type: ignore[attr-defined]
            return index
    return None


def alarms() -> dict[str, Rule]:
    """The off-the-shelf alarms whose libraries are installed."""
    found: dict[str, Rule] = {}
    if importlib.util.find_spec("ruptures"):
        found["PELT on risk (offline)"] = pelt
    if importlib.util.find_spec("river"):
        found |= {"Page-Hinkley on risk": page_hinkley, "ADWIN on risk": adwin}
    return found


# --- Stopping rules that look at one seed ----------------------------------------------------------------------------


def patience(share: float = 0.15, smoothing: float = 0.3) -> Rule:
    """Patience on the smoothed log risk: stop after ``share`` of the budget without a better one."""

    def rule(history: SeedHistory) -> int | None:
        smoothed, best, best_step = math.nan, math.inf, 0
        for index, (step, risk) in enumerate(zip(history.steps, _filled(history).tolist(), strict=True)):
            new = math.log(max(risk, 1e-9))
            smoothed = new if math.isnan(smoothed) else smoothed + smoothing * (new - smoothed)
            if smoothed < best:
                best, best_step = smoothed, step
            elif step - best_step > share * history.budget:
                return index
        return None

    return rule


def power_law(promise: float = 0.01, begin: float = 0.1) -> Rule:
    """Learning-curve extrapolation: stop when ``a + b t^-c`` through the best so far promises less than ``promise``.

    A curve as in Domhan et al. (2015), fitted at each evaluation after a share ``begin`` of the budget by non-negative
    least squares over a few exponents.
    """
    exponents = (0.25, 0.5, 1.0, 2.0)

    def rule(history: SeedHistory) -> int | None:
        best = np.minimum.accumulate(_filled(history))
        times = np.array(history.steps) / history.budget
        for index in range(max(4, int(begin * len(best))), len(best)):
            known = best[: index + 1] < HOPELESS
            if known.sum() < 4:
                continue
            seen, until = best[: index + 1][known], times[: index + 1][known]
            fits = [(nnls(np.stack([np.ones_like(until), until**-c], 1), seen), c) for c in exponents]
            (weights, _), c = min(fits, key=lambda fit: fit[0][1])
            now, then = (weights[0] + weights[1] * t**-c for t in (times[index], 1.0))
            if now - then < promise * now:
                return index
        return None

    return rule


# --- Stopping rules that compare seeds ------------------------------------------------------------------------------


def median_stopping(histories: Sequence[SeedHistory]) -> Rule:
    """Vizier's median rule on the same risk: stop a seed whose best so far is above the median of running means.

    The others of its run are looked at where they were at the same step, so evaluation intervals may differ.
    """
    means = {h.key: (h.steps, np.cumsum(_filled(h)) / np.arange(1, len(h.steps) + 1)) for h in histories}

    def rule(history: SeedHistory) -> int | None:
        best = np.minimum.accumulate(_filled(history))
        for index in range(len(best) // 10, len(best)):
            places = {key: _until(steps, history.steps[index]) for key, (steps, _) in means.items()}
            others = [
                means[key][1][place]
                for key, place in places.items()
                if key != history.key and key[0] == history.run and place is not None
            ]
            if others and best[index] > np.median(others):
                return index
        return None

    return rule


def asha(histories: Sequence[SeedHistory], reduction: int = 3) -> Rule:
    """Successive halving on the same risk: at each rung of the budget only the best third of a run goes on."""
    stopped: dict[tuple[str, str, int], int] = {}
    for run in sorted({history.run for history in histories}):
        stopped |= _halved([history for history in histories if history.run == run], reduction)
    return lambda history: stopped.get(history.key)


def _halved(alive: list[SeedHistory], reduction: int) -> dict[tuple[str, str, int], int]:
    stopped: dict[tuple[str, str, int], int] = {}
    for power in (3, 2, 1):
        rungs = {h.key: _until(h.steps, h.budget / reduction**power) for h in alive}
        reached = [(h, rung) for h in alive if (rung := rungs[h.key]) is not None]
        if not reached:
            continue
        best = {h.key: float(_filled(h)[: rung + 1].min()) for h, rung in reached}
        ranked = sorted((h for h, _ in reached), key=lambda h: best[h.key])
        kept = {h.key for h in ranked[: max(1, len(ranked) // reduction)]}
        stopped |= {h.key: rung for h, rung in reached if h.key not in kept}
        alive = [h for h in alive if h.key not in stopped]
    return stopped


def _until(steps: Sequence[int], step: float) -> int | None:
    """Index of the last evaluation at or before ``step``."""
    index = int(np.searchsorted(steps, step, side="right")) - 1
    return index if index >= 0 else None


def _filled(history: SeedHistory) -> Array:
    return np.where(np.isfinite(history.risks), history.risks, HOPELESS)


def _log_risk(history: SeedHistory) -> Array:
    return np.log(history.risks[np.isfinite(history.risks)])
