"""Replay: what a stopping policy would have done to seeds whose histories are recorded. Needs no truth.

The audit asks it what stopping would have cost in risk; the scorecard, behind the wall around truth, what in error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tips_dist.config import Configuration, Policy
from tips_dist.runfolder import HistoryRow, RunFolder, Trial
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.stability.verdicts import PLATEAUED, Verdict, kind_of, severity

Array = npt.NDArray[np.float64]
RISK = "risk/total"


@dataclass(frozen=True, eq=False, kw_only=True)
class SeedHistory:
    """One seed as it was recorded: E evaluation steps of K signals each."""

    trial: str
    representation: str
    seed: int
    budget: int  # steps that it was to train
    recipe: Recipe
    steps: tuple[int, ...]  # (E,)
    names: tuple[str, ...]  # (K,) of the signals, without the risk
    values: Array  # (E, K), NaN where a signal is absent, infinite where it was recorded as not finite
    risks: Array  # (E,) as it was recorded and used, NaN where it could not be told
    run: str = ""  # where several runs are looked at together: which
    detectors: tuple[str, ...] = ()  # further ones that the study named

    @property
    def key(self) -> tuple[str, str, int]:
        """Run, trial and seed."""
        return self.run, self.trial, self.seed

    @property
    def non_finite(self) -> bool:
        """Whether it ended before its budget because its numbers were gone."""
        return self.steps[-1] < self.budget and not np.isfinite(self.risks[-1])

    @property
    def cut(self) -> bool:
        """Whether stopping cut it when it was made, so that what would have come is unknown."""
        return self.steps[-1] < self.budget and not self.non_finite

    def signal(self, name: str) -> Array:
        """(E,) one signal, NaN where it is absent or not finite."""
        if name not in self.names:
            return np.full(len(self.steps), np.nan)
        values = self.values[:, self.names.index(name)]
        return np.where(np.isfinite(values), values, np.nan)

    def rows(self) -> Iterator[dict[str, float | None]]:
        """What detectors see at each evaluation step."""
        for values, risk in zip(self.values, self.risks, strict=True):
            row = {
                name: None if math.isinf(value) else value
                for name, value in zip(self.names, values.tolist(), strict=True)
                if not math.isnan(value)
            }
            yield {**row, RISK: float(risk) if np.isfinite(risk) else None}

    def lowest_risk(self, until: int | None = None) -> int | None:
        """Index of the evaluation step of the lowest risk, of those up to index ``until``; None without any risk."""
        risks = self.risks if until is None else self.risks[: until + 1]
        return int(np.nanargmin(risks)) if np.isfinite(risks).any() else None


def replay(history: SeedHistory, policy: Policy | None = None, *, least: str = PLATEAUED) -> tuple[Verdict, int | None]:
    """Judge a history in order, with the built-in policy or another.

    Returns:
        The first verdict that lasts and is at least as severe as ``least``, and the index of the evaluation step at
        which it falls; the last verdict and ``None`` where there is no such.
    """
    judge = Judge(history.budget, history.recipe, policy, history.detectors)
    for index, verdict in enumerate(judged(history, judge)):
        if severity(verdict.kind) >= severity(least) and not kind_of(verdict.kind).passes:
            return verdict, index
    return judge.verdict, None


def judged(history: SeedHistory, judge: Judge) -> Iterator[Verdict]:
    """What ``judge``, a new one, says at each evaluation step; afterwards it holds the seed's crossings."""
    for step, row in zip(history.steps, history.rows(), strict=True):
        yield judge.update(step, row)


def choosable(history: SeedHistory, policy: Policy | None = None) -> SeedHistory:
    """The history with a risk only where a checkpoint may be chosen: outside mirror crossings, once settled."""
    judge = Judge(history.budget, history.recipe, policy, history.detectors)
    for _ in judged(history, judge):
        pass
    one_sided = [judge.one_sided(step) for step in history.steps]
    return replace(history, risks=np.where(one_sided, history.risks, np.nan))


def read_histories(folder: RunFolder, *, name: str = "") -> list[SeedHistory]:
    """Every seed of a run that has a history, trial by trial; ``name`` of the run, where several are looked at.

    Raises:
        UserError: a record is missing or damaged.
    """
    found = []
    for trial in folder.trials:
        rows: dict[int, list[HistoryRow]] = {}
        for row in folder.history(trial):
            rows.setdefault(row.seed, []).append(row)
        found += [_history(trial, seed, rows[seed], name) for seed in trial.seeds if seed in rows]
    return found


def recipe_of(configuration: Configuration) -> Recipe:
    """What detectors need to know of a configuration."""
    losses = configuration.losses
    return Recipe(losses.adversarial_kind, losses.label_swap, losses.real_label)


def _history(trial: Trial, seed: int, rows: Sequence[HistoryRow], run: str) -> SeedHistory:
    names = tuple(sorted({name for row in rows for name in row.signals} - {RISK}))
    return SeedHistory(
        run=run,
        trial=trial.id,
        representation=trial.representation,
        seed=seed,
        budget=trial.steps,
        recipe=recipe_of(trial.configuration),
        detectors=tuple(trial.configuration.stopping.detectors),
        steps=tuple(row.step for row in rows),
        names=names,
        values=np.array([[_cell(row, name) for name in names] for row in rows], np.float64),
        risks=np.array([_number(row.risk) for row in rows], np.float64),
    )


def _cell(row: HistoryRow, name: str) -> float:
    value = row.signals.get(name, math.nan)
    return math.inf if value is None else float(value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
