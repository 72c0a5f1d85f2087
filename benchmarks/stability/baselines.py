"""What the product must beat: trivial choices of a checkpoint, and off-the-shelf alarms and stopping rules.

``ruptures`` (PELT, offline) and ``river`` (Page-Hinkley, ADWIN, online) are dependencies of this benchmark only; their
rows are left out, saying so, where they are not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.stability.labels import Array, History

Rule = Callable[[History], int | None]  # index of the evaluation step at which it stops, or None

# --- Choices of a checkpoint: index of an evaluation step ---------------------------------------------------------


def lowest_risk(history: History) -> int:
    """The product's choice."""
    return int(np.nanargmin(history.risks))


def last(history: History) -> int:
    """The last checkpoint whose network is finite."""
    return int(np.flatnonzero(np.isfinite(history.errors))[-1])


def _lowest(name: str) -> Callable[[History], int]:
    return lambda history: int(np.nanargmin(history.signal(name)))


def best_balance(history: History) -> int:
    """Where the discriminator's loss is nearest to that of the balanced game."""
    balanced = history.adversarial_recipe().balanced_loss
    return int(np.nanargmin(np.abs(history.signal("discriminator/loss") - balanced)))


CHOICES: dict[str, Callable[[History], int]] = {
    "lowest risk (ours)": lowest_risk,
    "last checkpoint": last,
    "lowest generator loss": _lowest("generator/loss"),
    "best discriminator balance": best_balance,
    "least bone-ratio variance": _lowest("rigidity/bone_ratio_variance"),
    "least sliced Wasserstein": _lowest("distance/sliced_wasserstein"),
}

# --- Alarms on the same risk series -------------------------------------------------------------------------------


def pelt(history: History) -> int | None:
    """``ruptures`` PELT with a BIC-like penalty on the log risk, offline: the first upward change of the mean."""
    import ruptures

    series = _log_risk(history)
    penalty = 3 * np.log(len(series)) * max(float(np.var(np.diff(series))), 1e-6)
    ends = ruptures.Pelt(model="l2", min_size=3).fit(series).predict(pen=penalty)
    means = [series[a:b].mean() for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    rises = [end for end, before, after in zip(ends, means, means[1:], strict=False) if after > before]
    return rises[0] if rises else None


def page_hinkley(history: History) -> int | None:
    """``river`` Page-Hinkley at its defaults, on the log risk."""
    from river import drift

    return _online(drift.PageHinkley(), _log_risk(history))


def adwin(history: History) -> int | None:
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
    """The alarms whose libraries are installed."""
    found: dict[str, Rule] = {}
    if importlib.util.find_spec("ruptures"):
        found["PELT on risk (offline)"] = pelt
    if importlib.util.find_spec("river"):
        found |= {"Page-Hinkley on risk": page_hinkley, "ADWIN on risk": adwin}
    return found


# --- Stopping rules that compare runs -----------------------------------------------------------------------------


def median_stopping(histories: Sequence[History]) -> Rule:
    """Vizier's median rule on the same risk: stop a seed whose best so far is above the median of running means."""
    means = {h.key: np.cumsum(_filled(h)) / np.arange(1, len(h.steps) + 1) for h in histories}

    def rule(history: History) -> int | None:
        best = np.minimum.accumulate(_filled(history))
        for index in range(len(best) // 10, len(best)):
            others = [mean[index] for key, mean in means.items() if key != history.key]
            if best[index] > np.median(others):
                return index
        return None

    return rule


def asha(histories: Sequence[History], reduction: int = 3) -> Rule:
    """Successive halving on the same risk: at each rung only the best third goes on."""
    length = len(histories[0].steps)
    rungs = [length // reduction**power - 1 for power in (3, 2, 1) if length // reduction**power >= 1]
    alive = list(histories)
    stopped: dict[tuple[str, int], int] = {}
    for rung in rungs:
        best = {h.key: float(_filled(h)[: rung + 1].min()) for h in alive}
        kept = sorted(alive, key=lambda h: best[h.key])[: max(1, len(alive) // reduction)]
        stopped |= {h.key: rung for h in alive if h not in kept}
        alive = kept
    return lambda history: stopped.get(history.key)


def _filled(history: History) -> Array:
    risks = history.risks
    return np.where(np.isfinite(risks), risks, 1e9)


def _log_risk(history: History) -> Array:
    risks = history.risks
    return np.log(risks[np.isfinite(risks)])
