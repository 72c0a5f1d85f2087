"""The scorecard: replay detectors and selection over the bank's judging set and compare with trivial baselines.

    make scorecard        # seconds, from the committed bank

Every figure comes with a 95 % bootstrap interval over runs: a run is drawn with all its seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata, spearmanr

from benchmarks.stability import baselines
from benchmarks.stability.labels import Array, History, load
from tips_dist.config import Policy
from tips_dist.stability.detectors import Judge
from tips_dist.stability.verdicts import DIVERGED, HEALTHY, PLATEAUED, severity

DRAWS = 1000
Rows = npt.NDArray[np.int64]
Figure = tuple[float, float, float]  # estimate, lower and upper end of the interval


class Card:
    """The histories of one set, and the bootstrap over their runs."""

    def __init__(self, histories: list[History]) -> None:
        self.histories = histories
        names = np.array([history.run for history in histories])
        self.groups = [np.flatnonzero(names == name) for name in sorted(set(names))]

    def figure(self, statistic: Callable[[Rows], float]) -> Figure:
        """``statistic`` of all rows, with its percentile interval over runs drawn with replacement."""
        random = np.random.default_rng(0)
        drawn = []
        for _ in range(DRAWS):
            chosen = random.integers(len(self.groups), size=len(self.groups))
            drawn.append(statistic(np.concatenate([self.groups[index] for index in chosen])))
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
        return statistic(np.arange(len(self.histories))), float(low), float(high)

    def mean(self, values: Array) -> Figure:
        """Mean of one value per seed."""
        return self.figure(lambda rows: float(np.nanmean(values[rows])))

    def median(self, values: Array) -> Figure:
        """Median of one value per seed."""
        return self.figure(lambda rows: float(np.nanmedian(values[rows])))


def main() -> None:
    """Print the tables; ``--json FILE`` also writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motion", default="cmu", choices=["cmu", "procedural"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = scorecard(load(arguments.motion))
    console = Console(width=150)
    console.print(f"{arguments.motion}: {result['what']}; brackets: 95 % bootstrap interval over runs")
    for title in ("ordering", "selection", "detection", "stopping"):
        console.print(_table(title, result[title]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def scorecard(histories: list[History], policy: Policy | None = None) -> dict[str, Any]:
    """All four tables as plain data."""
    judged = Card([h for h in histories if np.isfinite(h.risks).sum() > 4])
    card = Card(histories)
    runs, diverged = len(card.groups), sum(history.diverged for history in histories)
    return {
        "what": f"{len(histories)} seeds of {runs} unstopped runs, {diverged} truly diverged",
        "ordering": ordering(judged),
        "selection": selection(judged),
        "detection": detection(card, policy),
        "stopping": stopping(card, policy),
    }


def ordering(card: Card) -> dict[str, dict[str, Figure]]:
    """Spearman against true error: across the checkpoints of a seed, and across seeds at their chosen checkpoints."""
    readers: dict[str, Callable[[History], Array]] = {"risk (ours)": lambda history: history.risks}
    for name in ("rigidity/bone_ratio_variance", "distance/sliced_wasserstein", "generator/loss"):
        readers[name] = lambda history, name=name: history.signal(name)  # type: ignore[misc]
    found = {}
    for name, read in readers.items():
        series = [read(history) for history in card.histories]
        within = np.array([_spearman(one, h.errors) for one, h in zip(series, card.histories, strict=True)])
        lowest = np.array([np.nanmin(one) for one in series])
        truth = np.array([h.errors[int(np.nanargmin(one))] for one, h in zip(series, card.histories, strict=True)])
        across = card.figure(lambda rows, a=lowest, b=truth: _spearman(a[rows], b[rows]))  # type: ignore[misc]
        found[name] = {"within a run (median)": card.median(within), "across runs": across}
    return found


def selection(card: Card) -> dict[str, dict[str, Figure]]:
    """Regret of the chosen checkpoint: mm above the oracle's, and its share of the random-to-oracle gap."""
    lowest = np.array([np.nanmin(h.errors) for h in card.histories])
    gap = np.array([np.nanmean(h.errors) for h in card.histories]) - lowest
    found = {"random checkpoint": {"regret mm": card.mean(gap)}}
    for name, choose in baselines.CHOICES.items():
        chosen = np.array([h.errors[choose(h)] for h in card.histories])
        regret = np.where(np.isfinite(chosen), chosen - lowest, gap)
        share = card.figure(lambda rows, r=regret: float(r[rows].sum() / gap[rows].sum()))  # type: ignore[misc]
        found[name] = {"regret mm": card.mean(regret), "share of random-to-oracle gap": share}
    return found


def detection(card: Card, policy: Policy | None) -> dict[str, dict[str, Any]]:
    """Telling diverged seeds from healthy ones; a plateau is no alarm."""
    labels = np.array([history.diverged for history in card.histories])
    alarms = [_first(history, policy, severity(DIVERGED)) for history in card.histories]
    scores = np.array([_severity(history) for history in card.histories])
    rows: dict[str, dict[str, Any]] = {
        "detectors (ours)": {
            "AUROC": card.figure(lambda rows: _auroc(scores[rows], labels[rows])),
            **_alarm_figures(card, labels, alarms),
        }
    }
    for name, rule in baselines.alarms().items():
        rows[name] = _alarm_figures(card, labels, [rule(history) for history in card.histories])
    return rows


def stopping(card: Card, policy: Policy | None) -> dict[str, dict[str, Any]]:
    """What a whole stopping rule saves, and what it costs at the checkpoint that is then selected."""
    histories = card.histories
    rules: dict[str, baselines.Rule] = {
        "never stop": lambda history: None,
        "verdicts (ours)": lambda history: _first(history, policy, severity(PLATEAUED)),
        "ASHA on risk": baselines.asha(histories),
        "median stopping on risk": baselines.median_stopping(histories),
    }
    found = {}
    for name, rule in rules.items():
        stops = [rule(history) for history in histories]
        saved = np.array(
            [0.0 if s is None else 1 - h.steps[s] / h.steps[-1] for h, s in zip(histories, stops, strict=True)]
        )
        lost = np.array([_loss(h, s) for h, s in zip(histories, stops, strict=True)])
        killed = sum(_kills_best(card, group, stops) for group in card.groups)
        found[name] = {
            "steps saved": card.mean(saved),
            "mm lost at the selected checkpoint": card.mean(lost),
            "runs whose best seed lost its best checkpoint": f"{killed} of {len(card.groups)}",
        }
    return found


def _first(history: History, policy: Policy | None, least: int) -> int | None:
    """Index of the evaluation step at which a verdict of at least this severity falls."""
    judge = Judge(history.steps[-1], history.adversarial_recipe(), policy)
    for index, (step, row, risk) in enumerate(zip(history.steps, history.rows, history.risks, strict=True)):
        verdict = judge.update(step, {**row, "risk/total": None if np.isnan(risk) else float(risk)})
        if verdict.kind != HEALTHY and severity(verdict.kind) >= least:
            return index
    return None


def _severity(history: History) -> float:
    """A continuous alarm score: how far the risk ended above its lowest, or very far if the risk itself is hopeless."""
    risks = history.risks
    if not np.isfinite(risks).all():
        return 1e9
    tail = float(np.median(risks[-max(1, len(risks) // 5) :]))
    return tail / float(risks.min()) + tail / 100


def _alarm_figures(card: Card, labels: npt.NDArray[np.bool_], alarms: list[int | None]) -> dict[str, Figure]:
    raised = np.array([alarm is not None for alarm in alarms])
    delays = np.full(len(alarms), np.nan)
    for index, (history, alarm) in enumerate(zip(card.histories, alarms, strict=True)):
        if alarm is not None and labels[index]:
            delays[index] = max(0, history.steps[alarm] - history.onset) / history.steps[-1]
    return {
        "diverged told": card.figure(lambda rows: _share(raised[rows][labels[rows]])),
        "false stops among healthy": card.figure(lambda rows: _share(raised[rows][~labels[rows]])),
        "median delay (share of budget)": card.median(delays),
    }


def _loss(history: History, stop: int | None) -> float:
    """Error of the checkpoint selected with stopping, minus the one selected without."""
    risks = history.risks
    if np.isnan(risks).all():
        return float("nan")
    cut = risks[: None if stop is None else stop + 1]
    if np.isnan(cut).all():
        return float("nan")
    return float(history.errors[int(np.nanargmin(cut))] - history.errors[int(np.nanargmin(risks))])


def _kills_best(card: Card, group: Rows, stops: list[int | None]) -> bool:
    """Whether the run's truly best seed was stopped before the checkpoint that selection would have chosen."""
    alive = [index for index in group if np.isfinite(card.histories[index].risks).any()]
    if not alive:
        return False
    best = min(alive, key=lambda index: float(np.nanmin(card.histories[index].errors)))
    stop = stops[best]
    return stop is not None and stop < baselines.lowest_risk(card.histories[best])


def _spearman(a: Array, b: Array) -> float:
    usable = np.isfinite(a) & np.isfinite(b)
    if usable.sum() < 4 or np.ptp(a[usable]) == 0 or np.ptp(b[usable]) == 0:
        return float("nan")
    return float(spearmanr(a[usable], b[usable]).statistic)


def _auroc(scores: Array, labels: npt.NDArray[np.bool_]) -> float:
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _share(values: npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _table(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("", *columns, title=title, title_justify="left", box=None)
    for name, row in rows.items():
        table.add_row(name, *(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    estimate, low, high = value
    return f"{estimate:.2f} ({low:.2f}..{high:.2f})"


if __name__ == "__main__":
    main()
