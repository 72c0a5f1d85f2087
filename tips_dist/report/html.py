"""``report.html``: one self-contained page that tells a whole study, the answer first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from tips_dist.files import write_text
from tips_dist.report import anatomy, figures, search_figures, tables
from tips_dist.report.answer import answer
from tips_dist.report.curves import Series, read_series
from tips_dist.report.figures import Figure
from tips_dist.report.reading import RunFolder
from tips_dist.report.style import style

SPLITS = ("train", "validation", "test")
SIGNALS = {
    "discriminator/real": ("Discriminator on real poses", "output (0.5 is balance)"),
    "discriminator/fake": ("Discriminator on lifted poses", "output (0.5 is balance)"),
    "consistency/cycle_2d": ("2D cycle error", "normalised units"),
    "rigidity/bone_ratio_variance": ("Bones that change length", "variance of bone ratios"),
    "distance/sliced_wasserstein": ("Distance of new views to real poses", "sliced Wasserstein"),
    "depth/spread_ratio": ("Depth spread against width (1 is human)", "ratio"),
}
# Drawn when the whole page stands, so that every plot knows its column's width; again for paper.
DRAW = """
for (const figure of document.querySelectorAll("figure")) {
  const {data, layout} = JSON.parse(figure.querySelector("script").textContent);
  Plotly.newPlot(figure.querySelector(".plot"), data, layout, {responsive: true, displayModeBar: false});
}
const fit = () => document.querySelectorAll(".plot").forEach(plot => Plotly.Plots.resize(plot));
addEventListener("beforeprint", fit);
addEventListener("afterprint", fit);
"""
Importances = Mapping[str, Mapping[str, float] | None]


def write_report(
    run: RunFolder,
    summary: Mapping[str, Any],
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
    path = run.folder / "report.html"
    write_text(path, page(run, summary, importances or {}, poses))
    return path


def page(
    run: RunFolder, summary: Mapping[str, Any], importances: Importances, poses: NDArray[np.floating] | None
) -> str:
    """The whole page as text."""
    series = read_series(run, ["risk", *SIGNALS])
    bodies = anatomy.lowest_risk(run)
    sections = {
        "The numbers": _numbers(summary),
        "Over the steps": _over_steps(series),
        "When and why runs ended": _ends(series),
        "Risk and error": _figures(figures.risk_against_error(series))
        or "<p>This study was not evaluated against truth, so nothing is known about how well risk orders error.</p>",
        "Search": _search(run, summary, importances),
        "What depths depend on": _grid(*anatomy.dependence(run.dependence)) if run.dependence else "",
        "Lifted poses": _grid(*_poses(bodies, poses))
        or "<p>The 2D poses were not found, so no pictures; <code>report --poses FILE</code> draws them.</p>",
        "Selection": _selection(run, summary),
        "Every trial": _trials(summary),
        "Environment": _environment(run),
    }
    shown = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in shown)
    body = "".join(f'<section id="{_anchor(title)}"><h2>{title}</h2>{text}</section>' for title, text in shown.items())
    name = escape(str(summary["study"]["name"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{name}: stability study</title>'
        f"<style>{files('tips_dist.report').joinpath('page.css').read_text()}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        f"<header><h1>{name}</h1>{_studied(run, summary)}"
        f'<div class="answer">{"".join(f"<p>{escape(line)}</p>" for line in answer(summary))}</div>'
        f"<nav>{links}</nav></header><main>{body}</main><script>{DRAW}</script></body></html>\n"
    )


# ------------------------------------------------------------------------------------------------ sections


def _studied(run: RunFolder, summary: Mapping[str, Any]) -> str:
    study = run.study["resolved"]
    data = run.study.get("data", {})
    counts = ", ".join(f"{data['counts'][split]:,} {split}" for split in SPLITS if split in data.get("counts", {}))
    source = Path(data["path"]).name if data.get("path") else "procedural motion"
    words = (
        f"{len(run.representations)} representations of the 2D pose, {len(run.trials)} trials of {study['seeds']} "
        f"seeds and {study['training']['steps']:,} steps each, on {source} ({counts} poses). "
        "All decisions were made from 2D poses alone."
    )
    return f'<p class="meta">{escape(words)} Made {escape(str(summary["study"]["created"]))}.</p>'


def _numbers(summary: Mapping[str, Any]) -> str:
    shown = [*tables.representation_tables(dict(summary)), *tables.difference_tables(dict(summary))]
    lines = "".join(f"<li>{escape(line)}</li>" for line in tables.notes(dict(summary)))
    return "".join(map(_table, shown)) + f'<ul class="note">{lines}</ul>'


def _over_steps(series: Sequence[Series]) -> str:
    error = figures.curves(series, "error", "Error", "N-MPJPE, sign-resolved, mm")
    risk = figures.curves(series, "risk", "Risk", "risk (lower is better)")
    signals = [figures.curves(series, name, *words) for name, words in SIGNALS.items()]
    return _grid(error, risk) + _grid(*signals, captions=False)


def _ends(series: Sequence[Series]) -> str:
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for run in (item.run for item in series if item.run.verdict != "healthy"):
        kind = re.sub(r"[-+]?\d[\d.e+-]*", "#", run.reason)
        reasons.setdefault((run.representation, run.verdict.replace("_", "-"), kind), []).append(run.reason)
    rows = [(name, verdict, str(len(words)), words[0]) for (name, verdict, _), words in reasons.items()]
    listed = _table(tables.Table("Why", ("representation", "verdict", "runs", "reason"), rows)) if rows else ""
    return _grid(figures.survival(series), figures.stops(series)) + listed


def _search(run: RunFolder, summary: Mapping[str, Any], importances: Importances) -> str:
    space = run.study["resolved"].get("space", {})
    lines = search_figures.parallel_coordinates(summary["trials"], space)
    return _figures(lines) + _figures(search_figures.importances(importances))


def _poses(bodies: Sequence[anatomy.Lifted], poses: NDArray[np.floating] | None) -> list[Figure]:
    if poses is None:
        return []
    return [anatomy.poses_figure(body, poses) for body in bodies if len(body.depths) == len(poses)]


def _selection(run: RunFolder, summary: Mapping[str, Any]) -> str:
    if not run.selection:
        return "<p>Nothing was selected yet.</p>"
    rows = [
        (str(row["trial"]), str(row["seed"]), str(row["step"]), tables.number(row["risk"], None), str(row["why"]))
        for row in sorted(run.selection.get("seeds", []), key=lambda row: (not row["chosen"], row.get("rank") or 1e9))
    ]
    head = ("trial", "seed", "step", "risk", "why")
    more = f"<p class='note'>and {len(rows) - 40} more in selection.json</p>" if len(rows) > 40 else ""
    return (
        f"<p>{escape(str(summary['rule']))}</p>"
        + _table(tables.Table("Runs by risk; the teachers first", head, rows[:40]))
        + more
    )


def _trials(summary: Mapping[str, Any]) -> str:
    found = tables.trial_table(dict(summary), limit=100)
    return f"<details><summary>{len(summary['trials'])} trials</summary>{_table(found)}</details>"


def _environment(run: RunFolder) -> str:
    record = run.study
    facts = {
        "study digest": record.get("digest"),
        "data digest": record.get("data", {}).get("digest"),
        "truth digest": (run.evaluation or {}).get("truth", {}).get("digest"),
        "git revision": record.get("git"),
        "host": record.get("host"),
        **{f"version of {name}": version for name, version in record.get("versions", {}).items()},
    }
    rows = [(name, str(value)) for name, value in facts.items() if value]
    file = run.folder / "study.yaml"
    text = f"<h3>study.yaml</h3><pre>{escape(file.read_text())}</pre>" if file.exists() else ""
    return _table(tables.Table("", ("what", "value"), rows)) + text


# ------------------------------------------------------------------------------------------------ pieces


def _figures(*found: Figure | None, captions: bool = True) -> str:
    return "".join(_figure(figure, captions) for figure in found if figure is not None)


def _grid(*found: Figure | None, captions: bool = True) -> str:
    body = _figures(*found, captions=captions)
    return f'<div class="grid">{body}</div>' if body else ""


def _figure(figure: Figure, caption: bool) -> str:
    data = figure.figure.to_json().replace("</", "<\\/")  # nothing in a name may end the script element
    size = f"height:{figure.figure.layout.height}px;min-width:{figure.least_width}px"
    words = f"<figcaption>{escape(figure.caption)}</figcaption>" if caption else ""
    return (
        f"<figure><h3>{escape(figure.title)}</h3>"
        f'<div class="scroll"><div class="plot" style="{size}" role="img" '
        f'aria-label="{escape(figure.alt, quote=True)}"></div></div>'
        f'<script type="application/json">{data}</script>{words}</figure>'
    )


def _table(table: tables.Table) -> str:
    words = {index for index, name in enumerate(table.head) if name in tables.WORDS}

    def cell(tag: str, index: int, text: str) -> str:
        swatch = ""
        if tag == "td" and index == 0 and table.head[0] == "representation":
            swatch = f'<span class="swatch" style="background:{style(text).colour}"></span>'
        kind = ' class="text"' if index in words else ""
        return f"<{tag}{kind}>{swatch}{escape(text)}</{tag}>"

    head = "".join(cell("th", index, name) for index, name in enumerate(table.head))
    body = "".join(
        f"<tr>{''.join(cell('td', index, text) for index, text in enumerate(row))}</tr>" for row in table.rows
    )
    title = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    return f'<div class="table"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
