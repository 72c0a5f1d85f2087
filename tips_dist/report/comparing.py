"""Two or more studies side by side: their numbers, a test of each difference, and what was set differently."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from tips_dist import bootstrap
from tips_dist.report.answer import FEW_SEEDS, METRIC, error_row, measured_errors
from tips_dist.report.answer_words import AnswerLine
from tips_dist.report.runs import ranked, seed_runs
from tips_dist.report.tables import Table, interval, number, percent, verdict_words
from tips_dist.runfolder import RunFolder, Summary
from tips_dist.runfolder.results import RepresentationSummary

LEVEL = 0.05  # of a test: how often chance alone may look like a difference


@dataclass(frozen=True)
class RunDifference:
    """The best configuration of a representation in one study against that in another, seed by seed."""

    representation: str
    first: str  # study
    second: str
    first_trial: str
    second_trial: str
    metric: str  # "risk" or the error in mm
    split: str | None  # of the error
    difference: bootstrap.Statistic  # first minus second
    cliffs_delta: float | None
    chance: float  # p of the Mann-Whitney test, two-sided, by Holm's method for the rows of this metric

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out and chance is an unlikely reason."""
        return (self.difference.low > 0 or self.difference.high < 0) and self.chance < LEVEL


def run_differences(runs: Sequence[RunFolder], summaries: Sequence[Summary]) -> list[RunDifference]:
    """Every pair of studies, representation by representation, by risk and by error where both were measured.

    None across data sets: neither risks nor errors compare there. A seed that broke has a risk worse than any other's.
    """
    if len({run.study.data.digest for run in runs}) > 1:
        return []
    names, of = study_names(runs), [_values(*pair) for pair in zip(runs, summaries, strict=True)]
    found = []
    for first, second in itertools.combinations(range(len(runs)), 2):
        for key in (key for key in of[first] if key in of[second]):
            representation, metric, split = key
            (one, values), (other, others) = of[first][key], of[second][key]
            difference = bootstrap.difference(values[None], others[None], median=metric == "risk")
            if difference is not None:
                chance = float(mannwhitneyu(values[~np.isnan(values)], others[~np.isnan(others)]).pvalue)
                delta = bootstrap.cliffs_delta(values, others)
                row = (
                    representation,
                    names[first],
                    names[second],
                    one,
                    other,
                    metric,
                    split,
                    difference,
                    delta,
                    chance,
                )
                found.append(RunDifference(*row))
    return [row for metric in (METRIC, "risk") for row in _holm([one for one in found if one.metric == metric])]


def _values(run: RunFolder, summary: Summary) -> dict[tuple[str, str, str | None], tuple[str, NDArray[np.float64]]]:
    """By representation, metric and split: the best configuration and what its seeds have."""
    all_seeds = seed_runs(run)
    found: dict[tuple[str, str, str | None], tuple[str, NDArray[np.float64]]] = {}
    split, errors = measured_errors(run.evaluation, all_seeds)
    for best in summary.answer.best if summary.answer else ():
        seeds = [item for item in all_seeds if item.trial == best.trial]
        if split is not None:
            found[best.representation, METRIC, split] = best.trial, error_row(seeds, errors)[0]
        found[best.representation, "risk", None] = best.trial, ranked(seeds)
    return found


def _holm(rows: Sequence[RunDifference]) -> list[RunDifference]:
    """The chances of several tests together (Holm 1979), the rows in their order."""
    corrected, least = dict[int, float](), 0.0
    for place, index in enumerate(sorted(range(len(rows)), key=lambda index: rows[index].chance)):
        least = max(least, min(1.0, (len(rows) - place) * rows[index].chance))
        corrected[index] = least
    return [replace(row, chance=corrected[index]) for index, row in enumerate(rows)]


def comparison_lines(found: Sequence[RunDifference]) -> list[AnswerLine]:
    """What the differences say, in the words of the answer; by error where any was measured."""
    metric = METRIC if any(row.metric == METRIC for row in found) else "risk"
    lines = [AnswerLine("Which is better", _said(row)) for row in found if row.metric == metric]
    return lines or [AnswerLine("Which is better", "Nothing here can be compared; the notes below the tables say why.")]


def _said(row: RunDifference) -> str:
    mm = row.metric == METRIC
    digits, unit = (1, " mm") if mm else (None, "")
    what = f"sign-resolved N-MPJPE on {row.split}" if mm else "risk, an estimate"
    who = (f"{row.first} ({row.first_trial})", f"{row.second} ({row.second_trial})")
    value, lead = row.difference, f"{row.representation}, best configurations, {what}"
    chance = f"p {row.chance:.2g}, Mann-Whitney with Holm's correction"
    if not row.sure:
        between = (
            f"{number(value.value, digits, sign=True)}{unit} ({number(value.low, digits)}..{number(value.high, digits)}"
        )
        return f"{lead}: {who[0]} and {who[1]} cannot be told apart; difference {between}; {chance})."
    better, worse = who if value.value < 0 else who[::-1]
    low, high = sorted((abs(value.low), abs(value.high)))
    few = f"; {value.runs} seeds only" if value.runs < 2 * FEW_SEEDS else ""
    return (
        f"{lead}: {better} is better than {worse} by {number(abs(value.value), digits)}{unit} "
        f"({number(low, digits)}..{number(high, digits)}; {chance}){few}."
    )


def difference_table(found: Sequence[RunDifference]) -> list[Table]:
    """The same as a table with effect sizes, all metrics."""
    rows = [
        (
            f"{row.representation}: {row.first} - {row.second}",
            "risk" if row.split is None else f"mm, {row.split}",
            interval(row.difference, 1 if row.split else None, sign=True),
            number(row.cliffs_delta, 2, sign=True),
            f"{row.chance:.2g}",
            "yes" if row.sure else "no",
        )
        for row in found
    ]
    head = ("best configurations", "value", "difference", "Cliff's delta", "p", "told apart")
    return [Table("Differences over the seeds of the best configurations", head, rows)] if rows else []


def comparison_tables(runs: Sequence[RunFolder], summaries: Sequence[Summary]) -> list[Table]:
    """A row per study and representation, then the settings in which the studies differ."""
    names = study_names(runs)
    evaluated = any(summary.evaluated for summary in summaries)
    head = ("representation and study", "runs", "verdicts", "stopped at", "saved", "risk")
    rows = [
        (
            f"{group.representation}, {name}",
            str(group.runs),
            verdict_words(group.verdicts) or "none yet",
            number(group.stopped_step, 0),
            percent(group.steps_saved),
            interval(group.risk, None),
            *([_error(group)] if evaluated else []),
        )
        for representation in dict.fromkeys(name for run in runs for name in run.representations)
        for name, summary in zip(names, summaries, strict=True)
        for group in summary.representations
        if group.representation == representation
    ]
    title = "Side by side (mm: sign-resolved N-MPJPE of the selected checkpoints, validation)"
    return [Table(title, (*head, "mm") if evaluated else head, rows), *_settings(runs, names)]


def comparison_notes(runs: Sequence[RunFolder]) -> list[str]:
    """What keeps the studies from being compared at face value."""
    lines = []
    if len({run.study.data.digest for run in runs}) > 1:
        lines.append("The studies saw different data: neither risks nor errors can be compared across them.")
    budgets = {(run.study.study.search.trials, run.study.resolved.training.steps) for run in runs}
    if len(budgets) > 1:
        lines.append("The studies had different budgets (trials or steps): a larger search finds lower values.")
    return lines


def _error(group: RepresentationSummary) -> str:
    return interval(group.errors.metrics.get("n_mpjpe_resolved") if group.errors else None, 1)


def _settings(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Table]:
    flat = [dict(_flattened(run.study.study.model_dump(mode="json"))) for run in runs]
    keys = [key for key in dict.fromkeys(key for values in flat for key in values) if key != "name"]
    different = [key for key in keys if len({str(values.get(key)) for values in flat}) > 1]
    rows = [(key, *(_set(values.get(key, "-")) for values in flat)) for key in different]
    return [Table("What was set differently", ("setting", *names), rows)] if rows else []


def _set(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def study_names(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names; the whole path where two folders share a name."""
    short = [run.path.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run.path) for name, run in zip(short, runs, strict=True)]
