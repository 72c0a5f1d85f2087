"""A drawer per trial for the report: its parameters, curves, how each seed ended and why, the checkpoints kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tips_dist.report.curves import Series
from tips_dist.report.figures import Figure, trial_curves
from tips_dist.report.runs import SeedRun
from tips_dist.report.tables import Table, interval, number, parameter, verdict_words
from tips_dist.runfolder import RunFolder, Summary
from tips_dist.runfolder.choices import Choice
from tips_dist.runfolder.results import TrialSummary

MOST = 200  # drawers of a page


@dataclass(frozen=True)
class Drawer:
    """One trial: a line that is always seen, and figures and tables that open below it."""

    trial: str
    representation: str
    line: str
    figures: list[Figure]
    tables: list[Table]


def drawers(run: RunFolder, summary: Summary, series: Sequence[Series]) -> list[Drawer]:
    """The trials by risk, the best first; those without a risk at the end."""
    seeds: dict[str, list[Series]] = {}
    for item in series:
        seeds.setdefault(item.run.trial, []).append(item)
    choices = {(row.trial, row.seed): row for row in (run.selection.seeds if run.selection else ())}
    ordered = sorted(summary.trials, key=lambda row: (row.risk is None, row.risk.value if row.risk else 0.0))
    return [
        Drawer(
            row.trial,
            row.representation,
            _line(row),
            trial_curves(seeds.get(row.trial, [])),
            [
                _parameters(row),
                _seeds([one.run for one in seeds.get(row.trial, [])], choices, evaluated=summary.evaluated),
            ],
        )
        for row in ordered[:MOST]
    ]


def _line(row: TrialSummary) -> str:
    parts = [f"risk {interval(row.risk, None)}" if row.risk else row.error or f"no risk ({row.state.value})"]
    parts += [verdict_words(row.verdicts)] if row.verdicts else []
    error = row.errors.metrics.get("n_mpjpe_resolved") if row.errors else None
    parts += [f"{interval(error, 1)} mm on validation"] if error else []
    parts += [f"{row.teachers} teacher{'s' * (row.teachers > 1)}"] if row.teachers else []
    return "; ".join(parts)


def _parameters(row: TrialSummary) -> Table:
    rows = [(key, parameter(value)) for key, value in row.parameters.items()]
    seconds = [("seconds", number(row.wall_seconds, 0))] if row.wall_seconds else []
    return Table("", ("parameter", "value"), [*rows, *seconds])


def _seeds(seeds: list[SeedRun], choices: dict[tuple[str, int], Choice], *, evaluated: bool) -> Table:
    head = ("seed", "verdict", "reason", "onset", "ended at", "lowest risk", "kept step", "candidates", "teacher")
    rows = []
    for item in seeds:
        choice = choices.get((item.trial, item.seed))
        step = choice.step if choice else item.best_step
        cells = (
            str(item.seed),
            item.verdict.replace("_", "-"),
            item.reason or "-",
            number(item.onset, 0),
            str(item.stopped_step),
            number(item.best_risk, None),
            number(step, 0),
            ", ".join(map(str, item.candidates)) or "-",
            "yes" if choice and choice.chosen else "no",
        )
        errors = tuple(number(item.error(name), 1) for name in ("selected", "best", "last")) if evaluated else ()
        rows.append((*cells, *errors))
    mm = ("kept, mm", "best, mm", "last, mm") if evaluated else ()
    return Table("", (*head, *mm), rows)
