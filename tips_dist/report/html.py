"""``report.html``: one self-contained page that tells a whole study, the answer first."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tips_dist.escaping import plain
from tips_dist.files import write_text
from tips_dist.report import anatomy, figures, search_figures, tables
from tips_dist.report.answer import SEE_REPORT
from tips_dist.report.answer_words import AnswerLine, answer_lines
from tips_dist.report.curves import Series, read_series
from tips_dist.report.drawers import Drawer, drawers
from tips_dist.report.figures import Figure
from tips_dist.report.forest import forest_figures
from tips_dist.report.style import style
from tips_dist.runfolder import RunFolder, Summary, layout

PLOTLY = Path(__file__).with_name("plotly-cartesian.min.js.z")  # its licence lies beside it
SPLITS = ("train", "validation", "test")
SELECTION_ROWS = 40  # shown; selection.json has all
DRAWN_SIGNALS = {
    "discriminator/real": ("Discriminator on real poses", "output (0.5 is balance)"),
    "discriminator/fake": ("Discriminator on lifted poses", "output (0.5 is balance)"),
    "consistency/cycle_2d": ("2D cycle error", "normalised units"),
    "rigidity/bone_ratio_variance": ("Bones that change length", "variance of bone ratios"),
    "distance/sliced_wasserstein": ("Distance of new views to real poses", "sliced Wasserstein"),
    "depth/spread_ratio": ("Depth spread against width (1 is human)", "ratio"),
}
Importances = Mapping[str, Mapping[str, float] | None]


@dataclass
class PageSection:
    """A part of the page, in this order: a line of text, figures, tables, notes, a file; empty parts are not there."""

    title: str
    text: str = ""
    grids: list[list[Figure]] = field(default_factory=list)  # figures that stand side by side
    captions: bool = True
    least_width: int = 460  # pixels of a figure in a grid; fewer figures stand side by side where they do not fit
    figures: list[Figure] = field(default_factory=list)  # as wide as the page
    tables: list[tables.Table] = field(default_factory=list)
    drawers: list[Drawer] = field(default_factory=list)  # what the reader opens, one per trial
    notes: list[str] = field(default_factory=list)
    file: tuple[str, str] | None = None  # name and content

    def __bool__(self) -> bool:
        return any([self.text, *self.grids, self.figures, self.tables, self.drawers, self.notes, self.file])

    @property
    def anchor(self) -> str:
        """The part of the address that leads here."""
        return self.title.lower().replace(" ", "-")


def write_report(
    run: RunFolder,
    summary: Summary,
    *,
    importances: Importances | None = None,
    poses: NDArray[np.floating] | None = None,
) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Args:
        run: the run folder.
        summary: of the same folder.
        importances: of the searched dimensions by representation, as ``study.importance`` computes them.
        poses: the validation poses (V, 17, 2), normalised, for pictures of lifted poses; None leaves them out.
    """
    path = layout.REPORT.at(run.path)
    write_text(path, page(run, summary, importances or {}, poses))
    return path


def page(run: RunFolder, summary: Summary, importances: Importances, poses: NDArray[np.floating] | None) -> str:
    """The whole page as text."""
    series = read_series(run, ["risk", *DRAWN_SIGNALS])
    sections = [
        PageSection("Side by side", grids=[forest_figures(summary)]),
        _poses(run, poses),
        PageSection(
            "The numbers",
            tables=[*tables.representation_tables(summary), *tables.difference_tables(summary)],
            notes=tables.notes(summary),
        ),
        _over_steps(series),
        PageSection("", grids=[_signals(series)], captions=False),
        _ends(series),
        _risk_and_error(series),
        _search(run, summary, importances),
        PageSection(
            "What depths depend on", grids=[anatomy.dependence_figures(run.dependence) if run.dependence else []]
        ),
        _selection(run, summary),
        PageSection("Every trial", tables=[tables.trial_table(summary)], drawers=drawers(run, summary, series)),
        _environment(run),
    ]
    said = f"{_studied(run)} Made {summary.study.created}."
    told = [line for line in answer_lines(summary) if line.text != SEE_REPORT]  # it is being read
    return rendered(summary.study.name, "stability study", said, told, sections)


def rendered(name: str, kind: str, said: str, answer: Sequence[AnswerLine], sections: Sequence[PageSection]) -> str:
    """A page: its name, a line about it, the answer, then the sections that have something to show."""
    return _template().render(
        name=name, kind=kind, said=said, answer=answer, sections=[section for section in sections if section]
    )


def _template() -> jinja2.Template:
    """The page's template: whatever it writes is escaped, and nothing that a reader cannot see is left in it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tips_dist.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value, lines=True),
    )
    environment.filters["drawn"] = _drawn
    environment.globals.update(plotly=Markup(_packed_plotly()), colour=lambda name: style(name).colour)
    return environment.get_template("page.html.jinja")


@functools.cache
def _packed_plotly() -> str:
    """The part of plotly.js that draws on axes, a third of the whole, deflated, as base64; page.js unpacks it."""
    return base64.b64encode(PLOTLY.read_bytes()).decode()


def _drawn(figure: Figure) -> Markup:
    """A figure as JSON inside a script element, which no name in it can end."""
    return Markup(figure.figure.to_json().replace("<", "\\u003c"))


# ------------------------------------------------------------------------------------------------ sections


def _studied(run: RunFolder) -> str:
    study, data = run.study.resolved, run.study.data
    counts = ", ".join(f"{data.counts[split]:,} {split}" for split in SPLITS if split in data.counts)
    source = Path(data.path).name if data.path else "procedural motion"
    return (
        f"{len(run.representations)} representations of the 2D pose, {len(run.trials)} trials of {study.seeds} "
        f"seeds and {study.training.steps:,} steps each, on {source} ({counts} poses). "
        "All decisions were made from 2D poses alone."
    )


def _over_steps(series: Sequence[Series]) -> PageSection:
    error = figures.curves(series, "error", "Error", "N-MPJPE, sign-resolved, mm")
    risk = figures.curves(series, "risk", "Risk", "risk (lower is better)")
    return PageSection("Over the steps", grids=[_known(error, risk)])


def _signals(series: Sequence[Series]) -> list[Figure]:
    return _known(*(figures.curves(series, name, *words) for name, words in DRAWN_SIGNALS.items()))


def _ends(series: Sequence[Series]) -> PageSection:
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for run in (item.run for item in series if item.run.verdict != "healthy"):
        kind = re.sub(r"[-+]?\d[\d.e+-]*", "#", run.reason)
        reasons.setdefault((run.representation, run.verdict.replace("_", "-"), kind), []).append(run.reason)
    rows = [(name, verdict, str(len(words)), words[0]) for (name, verdict, _), words in reasons.items()]
    listed = [tables.Table("Why", ("representation", "verdict", "runs", "reason"), rows)] if rows else []
    drawn = _known(figures.survival(series), figures.stops(series))
    return PageSection("When and why runs ended", grids=[drawn], tables=listed)


def _risk_and_error(series: Sequence[Series]) -> PageSection:
    found = _known(figures.risk_against_error(series))
    unknown = "This study was not evaluated against truth, so nothing is known about how well risk orders error."
    return PageSection("Risk and error", text="" if found else unknown, figures=found)


def _search(run: RunFolder, summary: Summary, importances: Importances) -> PageSection:
    lines = search_figures.parallel_coordinates(summary.trials, run.study.resolved.space)
    return PageSection("Search", figures=_known(lines, search_figures.importance_figure(importances)))


def _poses(run: RunFolder, poses: NDArray[np.floating] | None) -> PageSection:
    if poses is None:
        missing = "The 2D poses were not found, so no pictures; `tips-dist report --poses FILE` draws them."
        return PageSection("Lifted poses", text=missing)
    found = [anatomy.student_body(run, poses), *anatomy.best_bodies(run)]  # what to use comes first
    drawn = [anatomy.poses_figure(body, poses) for body in found if body is not None and len(body.depths) == len(poses)]
    return PageSection("Lifted poses", text="" if drawn else "Nothing was lifted yet.", grids=[drawn], least_width=340)


def _selection(run: RunFolder, summary: Summary) -> PageSection:
    if not run.selection:
        return PageSection("Selection", text="Nothing was selected yet.")
    rows = [
        (row.trial, str(row.seed), str(row.step or "-"), tables.number(row.risk, None), row.why)
        for row in sorted(run.selection.seeds, key=lambda row: (not row.chosen, row.rank or 1e9))
    ]
    head = ("trial", "seed", "step", "risk", "why")
    return PageSection(
        "Selection",
        text=str(summary.rule),
        tables=[tables.Table("Runs by risk; the teachers first", head, rows[:SELECTION_ROWS])],
        notes=[f"and {len(rows) - SELECTION_ROWS} more in selection.json"] if len(rows) > SELECTION_ROWS else [],
    )


def _environment(run: RunFolder) -> PageSection:
    record = run.study
    facts = {
        "study digest": record.digest,
        "data digest": record.data.digest,
        "truth digest": run.evaluation.truth.digest if run.evaluation else None,
        "git revision": record.git,
        "host": record.host,
        **{f"version of {name}": version for name, version in record.versions.items()},
    }
    rows = [(name, value) for name, value in facts.items() if value]
    file = layout.STUDY_TEXT.at(run.path)
    return PageSection(
        "Environment",
        tables=[tables.Table("", ("what", "value"), rows)],
        file=(file.name, file.read_text(errors="replace")) if file.is_file() else None,
    )


def _known(*found: Figure | None) -> list[Figure]:
    return [figure for figure in found if figure is not None]
