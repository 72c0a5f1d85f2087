"""One page for several runs: which is better and how sure, their numbers, their curves, what was set differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tips_dist.bootstrap import Statistic
from tips_dist.escaping import for_plotly
from tips_dist.files import write_text
from tips_dist.report import comparing, figures
from tips_dist.report.curves import Series, read_series
from tips_dist.report.figures import Figure, new_figure
from tips_dist.report.forest import add_dot
from tips_dist.report.html import PageSection, rendered
from tips_dist.report.style import REPRESENTATION, Style, style
from tips_dist.report.tables import interval
from tips_dist.runfolder import RunFolder, Summary

_Look = Callable[[str], Style]
LOOKS = [(one.dash, one.symbol) for one in REPRESENTATION.values()]  # of the runs; colours stay with representations


def write_comparison(path: Path, runs: Sequence[RunFolder], summaries: Sequence[Summary]) -> Path:
    """Write the page and return its path."""
    names = comparing.study_names(runs)
    looks = {name: LOOKS[index % len(LOOKS)] for index, name in enumerate(names)}
    found = comparing.run_differences(runs, summaries)
    numbers, *settings = comparing.comparison_tables(runs, summaries)
    series = [one for name, run in zip(names, runs, strict=True) for one in _named(read_series(run, ["risk"]), name)]
    series.sort(key=lambda one: one.run.representation)

    def look(name: str) -> Style:
        representation, _, run = name.partition(", ")
        return Style(style(representation).colour, *looks[run])

    curves = [
        figures.curves(series, "error", "Error", "N-MPJPE, sign-resolved, mm", look, single=0),
        figures.curves(series, "risk", "Risk", "risk (lower is better)", look, single=0),
    ]
    sections = [
        PageSection("Side by side", grids=[_forests(names, summaries, look)]),
        PageSection(
            "The numbers", tables=[*comparing.difference_table(found), numbers], notes=comparing.comparison_notes(runs)
        ),
        PageSection("Over the steps", figures=[one for one in curves if one is not None]),
        PageSection("Settings", tables=settings),
    ]
    said = f"{len(runs)} runs, each by its best configuration of each representation, which was chosen without truth."
    title = " and ".join(dict.fromkeys(summary.study.name for summary in summaries))
    write_text(path, rendered(title, "comparison of runs", said, comparing.comparison_lines(found), sections))
    return path


def _named(series: Sequence[Series], name: str) -> list[Series]:
    """The series of a run, under "representation, run"."""
    return [replace(one, run=replace(one.run, representation=f"{one.run.representation}, {name}")) for one in series]


def _forests(names: Sequence[str], summaries: Sequence[Summary], look: _Look) -> list[Figure]:
    """Error if it was measured (test before validation), then risk: a dot per representation and run."""
    best = [
        (f"{one.representation}, {name}", one)
        for name, summary in zip(names, summaries, strict=True)
        for one in (summary.answer.best if summary.answer else ())
    ]
    best.sort(key=lambda pair: pair[0])
    found = []
    for split in ("test", "validation"):
        rows = [(name, one.errors[split]) for name, one in best if split in one.errors]
        if rows:
            found.append(_forest(f"Error on {split}", "sign-resolved N-MPJPE, mm", rows, 1, look))
            break
    risks = [(name, one.risk) for name, one in best]
    return [*found, *([_forest("Risk", "risk, an estimate", risks, None, look)] if risks else [])]


def _forest(title: str, unit: str, rows: Sequence[tuple[str, Statistic]], digits: int | None, look: _Look) -> Figure:
    figure = new_figure(unit, "", height=110 + 44 * len(rows))
    for place, (name, value) in enumerate(reversed(rows)):
        add_dot(figure, value, place, look(name), name, digits)
    words = [for_plotly(name).replace(", ", ",<br>", 1) for name, _ in reversed(rows)]
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=words, range=[-0.6, len(rows) - 0.4])
    listed = "; ".join(f"{name} {interval(value, digits)}" for name, value in rows)
    caption = (
        "Colour: the representation; sign and dash: the run. Bars: 95 % bootstrap intervals over seeds. Left is better."
    )
    return Figure(
        title, figure, caption, f"{title}, {unit}, a dot and an interval per representation and run. {listed}."
    )
