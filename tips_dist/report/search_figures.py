"""Figures of the search: parallel coordinates of all trials and the importance of each dimension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from plotly.colors import sample_colorscale
from scipy.stats import rankdata

from tips_dist.config import Distribution, LogUniform
from tips_dist.escaping import for_plotly
from tips_dist.report.figures import Figure, new_figure
from tips_dist.report.style import style
from tips_dist.report.tables import number
from tips_dist.runfolder.results import TrialSummary

COLOURS = ["#8F0DA4", "#D5546E", "#F0A13A"]  # of the risk, lowest first: a part of plasma


def parallel_coordinates(trials: Sequence[TrialSummary], space: Mapping[str, Distribution]) -> Figure | None:
    """A line per trial across one axis per searched dimension, the median risk last; ``trials`` of the summary.

    Drawn as plain lines (no WebGL), so that it prints: coloured by the rank of the trial's risk, dashed as its
    representation is. A box drawn over an axis leaves the lines that go through it (page.js; ``meta`` asks for it).
    """
    judged = [(trial, trial.risk.value) for trial in trials if trial.risk is not None and trial.parameters]
    keys = [key for key in space if any(key in trial.parameters for trial, _ in judged)]
    if len(judged) < 2 or not keys:
        return None
    columns = {key: [trial.parameters.get(key) for trial, _ in judged] for key in keys}
    axes = [_axis(key, columns[key], isinstance(space[key], LogUniform)) for key in keys]
    axes.append(_axis("median risk", [risk for _, risk in judged], False))
    figure = new_figure("", "", height=440, dragmode="select", selectdirection="d", meta={"brush": len(axes)})
    risks = [risk for _, risk in judged]
    colours = sample_colorscale(COLOURS, (rankdata(risks) - 1) / (len(risks) - 1))
    for row, trial in enumerate(trial for trial, _ in judged):
        look = style(trial.representation)
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[row] for axis in axes],
            mode="lines+markers",
            name=for_plotly(trial.representation),
            legendgroup=trial.representation,
            showlegend=False,
            line={"color": colours[row], "width": 2, "dash": look.dash},
            marker={"size": 6, "symbol": look.symbol},
            text=[for_plotly(f"{trial.trial}: {axis.name} {axis.texts[row]}") for axis in axes],
            hovertemplate="%{text}<extra></extra>",
            meta={"trial": trial.trial},
        )
    _explain(figure, dict.fromkeys(trial.representation for trial, _ in judged), risks)
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[for_plotly(axis.name).replace(".", ".<br>") for axis in axes],
        range=[-0.35, len(axes) - 0.65],
    )
    figure.update_yaxes(showticklabels=False, showgrid=False, range=[-0.12, 1.12], ticks="")
    for place, axis in enumerate(axes):
        for end, text in ((-0.07, axis.low), (1.07, axis.high)):
            figure.add_annotation(x=place, y=end, text=for_plotly(text), showarrow=False, font={"size": 11})
    best, _ = min(judged, key=lambda pair: pair[1])
    values = ", ".join(f"{key} {_text(best.parameters.get(key))}" for key in keys)
    alt = f"Parallel coordinates of {len(judged)} trials. Lowest median risk: {best.trial} with {values}."
    caption = (
        "A line per trial, coloured by the rank of its risk (the last axis: the median over its seeds of the lowest "
        "risk; low ends are best). Drag a box over an axis to keep the trials that go through it, one over a second "
        "axis to narrow them down, here and in the table of every trial; a double click takes all boxes away."
    )
    return Figure("What the search tried", figure, caption, alt, least_width=160 * len(axes))


def _explain(figure: Any, representations: Iterable[str], risks: Sequence[float]) -> None:
    """The legend: dashes and signs in grey, since colour is the risk's, and the bar of that."""
    for name in representations:
        look, grey = style(name), "rgb(136,136,136)"
        line, marker = {"color": grey, "width": 2, "dash": look.dash}, {"color": grey, "size": 6, "symbol": look.symbol}
        text = for_plotly(name)
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", name=text, legendgroup=name, line=line, marker=marker
        )
    ends = [f"{number(min(risks), None)} (lowest)", f"{number(max(risks), None)} (highest)"]
    bar = {"title": {"text": "risk"}, "thickness": 12, "len": 0.8, "tickvals": [0, 1], "ticktext": ends}
    scale = {"color": [0, 1], "cmin": 0, "cmax": 1, "colorscale": COLOURS, "showscale": True, "colorbar": bar}
    figure.add_scatter(x=[None, None], y=[None, None], mode="markers", marker=scale, showlegend=False, hoverinfo="skip")


def importance_figure(found: Mapping[str, Mapping[str, float] | None]) -> Figure | None:
    """Bars of importance per dimension and representation, most important on top."""
    known = {name: values for name, values in found.items() if values}
    if not known:
        return None
    keys = sorted({key for values in known.values() for key in values}, key=lambda key: max(_of(known, key)))
    figure = new_figure("importance for the risk (shares of 1)", "", height=130 + 60 * len(keys), barmode="group")
    for representation, values in known.items():
        look = style(representation)
        figure.add_bar(
            y=[for_plotly(key).replace(".", ".<br>") for key in keys],
            x=[values.get(key, 0.0) for key in keys],
            orientation="h",
            name=for_plotly(representation),
            marker={"color": look.colour},
            hovertemplate="%{x:.0%}<extra>%{fullData.name}</extra>",
        )
    words = "; ".join(
        f"{name}: " + ", ".join(f"{key} {value:.0%}" for key, value in sorted(values.items(), key=lambda kv: -kv[1]))
        for name, values in known.items()
    )
    caption = (
        "PED-ANOVA over finished trials: how much a dimension decides whether a trial is among the better ones. "
        "With few trials this is a hint, no more."
    )
    return Figure("What mattered", figure, caption, f"Importance of hyperparameters. {words}.")


def _of(known: Mapping[str, Mapping[str, float]], key: str) -> list[float]:
    return [values.get(key, 0.0) for values in known.values()]


class _Axis(NamedTuple):
    name: str
    places: list[float | None]  # 0..1, of each trial
    texts: list[str]
    low: str
    high: str


def _axis(name: str, values: Sequence[Any], logarithmic: bool) -> _Axis:
    """Places 0..1 of the values on one axis; words and booleans stand in alphabetical order."""
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    )
    if numeric:
        raw = np.array([np.nan if value is None else float(value) for value in values])
        raw = np.log10(raw) if logarithmic else raw
        low, high = float(np.nanmin(raw)), float(np.nanmax(raw))
        places = (raw - low) / (high - low) if high > low else raw * 0 + 0.5
        ends: list[Any] = [10**end if logarithmic else end for end in (low, high)]
    else:
        words = sorted({str(value) for value in values if value is not None})
        spread = max(1, len(words) - 1)
        places = np.array([np.nan if value is None else words.index(str(value)) / spread for value in values])
        ends = [words[0], words[-1]]
    return _Axis(
        name + (" (log)" if logarithmic else ""),
        [None if np.isnan(place) else float(place) for place in places],
        [_text(value) for value in values],
        _text(ends[0]),
        _text(ends[1]),
    )


def _text(value: Any) -> str:
    if value is None:
        return "not searched"
    return number(float(value), None) if isinstance(value, float) else str(value)
