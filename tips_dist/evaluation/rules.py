"""Alarms and stopping rules: the product's verdicts replayed, and off-the-shelf ones on the same risk.

``ruptures`` (PELT, offline) and ``river`` (Page-Hinkley, ADWIN, online) come with the extra ``bench``; their rows are
left out where they are not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from tips_dist.config import Policy
from tips_dist.replay import Array, SeedHistory, replay
from tips_dist.stability.verdicts import PLATEAUED

Rule = Callable[[SeedHistory], int | None]  # index of the evaluation step at which it stops, or None
HOPELESS = 1e9  # in place of a risk that cannot be told


def never(history: SeedHistory) -> int | None:
    """Let everything train to its end."""
    return None


def verdicts(policy: Policy | None = None, *, least: str = PLATEAUED) -> Rule:
    """The product's detectors: stop at the first verdict at least as severe as ``least``."""
    return lambda history: replay(history, policy, least=least)[1]


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


# --- Stopping rules that compare seeds ------------------------------------------------------------------------------


def median_stopping(histories: Sequence[SeedHistory]) -> Rule:
    """Vizier's median rule on the same risk: stop a seed whose best so far is above the median of running means.

    The others are looked at where they were at the same step, so evaluation intervals may differ.
    """
    means = {h.key: (h.steps, np.cumsum(_filled(h)) / np.arange(1, len(h.steps) + 1)) for h in histories}

    def rule(history: SeedHistory) -> int | None:
        best = np.minimum.accumulate(_filled(history))
        for index in range(len(best) // 10, len(best)):
            places = {key: _until(steps, history.steps[index]) for key, (steps, _) in means.items()}
            others = [means[key][1][place] for key, place in places.items() if key != history.key and place is not None]
            if others and best[index] > np.median(others):
                return index
        return None

    return rule


def asha(histories: Sequence[SeedHistory], reduction: int = 3) -> Rule:
    """Successive halving on the same risk: at each rung of the budget only the best third goes on."""
    alive = list(histories)
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
    return lambda history: stopped.get(history.key)


def _until(steps: Sequence[int], step: float) -> int | None:
    """Index of the last evaluation at or before ``step``."""
    index = int(np.searchsorted(steps, step, side="right")) - 1
    return index if index >= 0 else None


def _filled(history: SeedHistory) -> Array:
    return np.where(np.isfinite(history.risks), history.risks, HOPELESS)


def _log_risk(history: SeedHistory) -> Array:
    return np.log(history.risks[np.isfinite(history.risks)])
