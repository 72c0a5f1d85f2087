"""The forest plot: every representation's number as a dot with its interval, the first figure of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tips_dist.bootstrap import Statistic
from tips_dist.escaping import for_plotly
from tips_dist.report.figures import Figure, new_figure, translucent
from tips_dist.report.style import Style, style
from tips_dist.report.tables import interval
from tips_dist.runfolder import Summary
from tips_dist.runfolder.results import Answer

METRIC = "n_mpjpe_resolved"
_Number = tuple[str, Statistic]  # representation and its number


def forest_figures(summary: Summary) -> list[Figure]:
    """Error if it was measured (test before validation), then risk: best configurations, and all runs behind them."""
    answer = summary.answer
    if answer is None or not answer.best:
        return []
    found = []
    for split in ("test", "validation"):
        rows = [(one.representation, one.errors[split]) for one in answer.best if split in one.errors]
        if rows:
            pooled = _pooled_errors(summary) if split == "validation" else []
            title, unit = f"Error on {split}", "sign-resolved N-MPJPE, mm"
            found.append(_forest(title, unit, rows, pooled, answer, 1))
            break
    risks = [(one.representation, one.risk) for one in answer.best]
    pooled = [(group.representation, group.risk) for group in summary.representations if group.risk]
    return [*found, _forest("Risk", "risk, an estimate", risks, pooled, answer, None)]


def _pooled_errors(summary: Summary) -> list[_Number]:
    return [
        (group.representation, value)
        for group in summary.representations
        if group.errors is not None and (value := group.errors.metrics.get(METRIC)) is not None
    ]


def _forest(
    title: str, unit: str, best: Sequence[_Number], pooled: Sequence[_Number], answer: Answer, digits: int | None
) -> Figure:
    names = [name for name, _ in reversed(best)]
    figure = new_figure(unit, "", height=130 + 64 * len(names))
    trials = {one.representation: one.trial for one in answer.best}
    kinds = (("all runs", pooled, -0.17, True), ("best configuration", best, 0.12, False))
    for kind, rows, shift, hollow in kinds:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"color": "#888888", "symbol": "circle-open" if hollow else "circle", "size": 9 if hollow else 13},
            name=kind,
            legendgroup=kind,
            visible=bool(rows),
        )
        for name, value in (row for row in rows if row[0] in names):
            text = name if hollow else f"{name}, {trials[name]}"
            add_dot(figure, value, names.index(name) + shift, style(name), text, digits, kind=kind, hollow=hollow)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=list(map(for_plotly, names)), range=[-0.6, len(names) - 0.4]
    )
    words = "; ".join(f"{name} ({trials[name]}) {interval(value, digits)}" for name, value in best)
    caption = (
        "Large: the best configuration of each representation (lowest risk), over its seeds"
        + ("; small and hollow: all its runs. " if pooled else ". ")
        + "Bars: 95 % bootstrap intervals. Left is better; where bars are far apart, sure."
    )
    return Figure(title, figure, caption, f"{title}, {unit}, a dot and an interval per representation. {words}.")


def add_dot(
    figure: Any,
    value: Statistic,
    place: float,
    look: Style,
    text: str,
    digits: int | None,
    *,
    kind: str = "",
    hollow: bool = False,
) -> None:
    """Draw a statistic as a dot with its interval, at height ``place``; ``text`` is what a pointer sees."""
    figure.add_scatter(
        x=[value.value],
        y=[place],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [value.high - value.value],
            "arrayminus": [value.value - value.low],
            "color": translucent(look.colour, 0.55 if hollow else 1.0),
            "thickness": 1.5 if hollow else 3,
            "width": 4,
        },
        mode="markers",
        marker={
            "color": look.colour,
            "symbol": look.symbol + ("-open" if hollow else ""),
            "size": 9 if hollow else 13,
        },
        name=kind,
        legendgroup=kind,
        showlegend=False,
        text=[for_plotly(text)],
        hovertemplate=f"%{{text}}: {interval(value, digits)}, {value.runs} runs<extra>{kind}</extra>",
    )
