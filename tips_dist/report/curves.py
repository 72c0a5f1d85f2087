"""Histories as arrays: one series per run, and what many runs of a representation do together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tips_dist.phases import phase
from tips_dist.report.runs import SeedRun, seed_runs
from tips_dist.runfolder import RunFolder

Floats = NDArray[np.float64]
BAND = (10, 90)  # percent of runs between which a band lies


@dataclass(frozen=True)
class Series:
    """One run over its evaluation steps; values are NaN where the history has none."""

    run: SeedRun
    steps: NDArray[np.int64]  # (E,)
    values: dict[str, Floats]  # name -> (E,)


@dataclass(frozen=True)
class Band:
    """Median and band over the runs that were still training at each step."""

    steps: NDArray[np.int64]  # (E,)
    median: Floats
    low: Floats
    high: Floats
    runs: NDArray[np.int64]  # (E,) how many


def read_series(run: RunFolder, names: Sequence[str]) -> list[Series]:
    """The series of all runs that have an outcome: ``names`` of history.jsonl, and ``error`` in mm if evaluated.

    Trials are read one at a time, so memory is that of the arrays kept.
    """
    found = []
    by_trial: dict[str, list[SeedRun]] = {}
    for item in seed_runs(run):
        by_trial.setdefault(item.trial, []).append(item)
    with phase("reading histories", len(by_trial)) as told:
        for count, (trial, items) in enumerate(by_trial.items()):
            found += _series(run, trial, items, names)
            told(count + 1)
    return found


def _series(run: RunFolder, trial: str, items: list[SeedRun], names: Sequence[str]) -> list[Series]:
    found = []
    rows: dict[int, dict[int, tuple[float | None, ...]]] = {item.seed: {} for item in items}
    for row in run.history(trial):
        if row.seed in rows:
            rows[row.seed][row.step] = tuple(row.risk if name == "risk" else row.signals.get(name) for name in names)
    for item in items:
        steps = sorted(rows[item.seed])
        table = np.array([rows[item.seed][step] for step in steps], dtype=float).reshape(-1, len(names))
        series = {name: table[:, column] for column, name in enumerate(names)}
        series["error"] = _errors(run, item, steps)
        found.append(Series(item, np.array(steps, np.int64), series))
    return found


def _errors(run: RunFolder, item: SeedRun, steps: list[int]) -> Floats:
    curve = run.curves.of(item.trial, item.seed) if run.evaluation is not None else None
    if curve is None:
        return np.full(len(steps), np.nan)
    known = dict(zip(curve.steps.tolist(), curve.errors["n_mpjpe_resolved"].tolist(), strict=True))
    return np.array([known.get(step, np.nan) for step in steps], dtype=float)


def band(series: Iterable[Series], name: str) -> Band | None:
    """What the runs do together; None where none has a value."""
    chosen = [item for item in series if np.isfinite(item.values[name]).any()]
    if not chosen:
        return None
    steps = np.unique(np.concatenate([item.steps for item in chosen]))
    table = np.full((len(chosen), len(steps)), np.nan)
    for row, item in enumerate(chosen):
        table[row, np.searchsorted(steps, item.steps)] = item.values[name]
    kept = np.isfinite(table).any(axis=0)
    steps, table = steps[kept], table[:, kept]
    low, median, high = np.nanpercentile(table, [BAND[0], 50, BAND[1]], axis=0)
    return Band(steps, median, low, high, np.isfinite(table).sum(axis=0))
