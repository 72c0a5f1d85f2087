"""Two or more studies side by side: their numbers and what was set differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tips_dist.report.tables import Table, interval, number, percent, verdict_words
from tips_dist.runfolder import RunFolder, Summary
from tips_dist.runfolder.results import RepresentationSummary


def comparison_tables(runs: Sequence[RunFolder], summaries: Sequence[Summary]) -> list[Table]:
    """A row per study and representation, then the settings in which the studies differ."""
    names = _names(runs)
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
    rows = [(key, *(str(values.get(key, "-")) for values in flat)) for key in different]
    return [Table("What was set differently", ("setting", *names), rows)] if rows else []


def _flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names; the whole path where two folders share a name."""
    short = [run.path.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run.path) for name, run in zip(short, runs, strict=True)]
