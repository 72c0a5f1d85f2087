"""Figures of a study (plotly), each with a title, a caption and a text that says in words what it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.stats import spearmanr

from tips_dist.escaping import for_plotly
from tips_dist.report.curves import BAND, Series, band
from tips_dist.report.runs import SeedRun
from tips_dist.report.style import Style, style, verdict_look
from tips_dist.report.tables import number
from tips_dist.stability.verdicts import is_sound, severity

POINTS = 2500  # the most points of a scatter
THIN_LINES = 12  # the most runs of a representation that are drawn one by one
THIN_POINTS = 60  # and the most points of such a line


@dataclass(frozen=True)
class Figure:
    """A figure and its words: ``alt`` replaces the picture for whoever cannot see it."""

    title: str
    figure: Any
    caption: str
    alt: str
    least_width: int = 0  # pixels; narrower screens scroll


def translucent(colour: str, share: float) -> str:
    """A "#rrggbb" colour with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def new_figure(x: str, y: str, height: int = 360, **layout: Any) -> Any:
    """An empty figure in the report's look; ``x`` and ``y`` are the axis titles."""
    figure = go.Figure()
    axis = {"zeroline": False, "automargin": True, "ticks": "outside"}  # page.js gives them the colours of the page
    figure.update_layout(
        height=height,
        template="none",
        margin={"l": 10, "r": 24, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#888888", "activecolor": "#444444"},
    )
    for update, text in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        update(title={"text": text, "font": {"size": 13}}, **axis)
    figure.update_layout(**layout)
    return figure


def curves(
    series: Sequence[Series],
    name: str,
    title: str,
    unit: str,
    look_of: Callable[[str], Style] = style,
    *,
    single: int = THIN_LINES,
) -> Figure | None:
    """One value over steps: a median and a band per representation; so many ``single`` runs for whoever asks."""
    figure = new_figure("training step", unit)
    words = []
    for representation, items in by_representation(series).items():
        found = band(items, name)
        if found is None:
            continue
        look = look_of(representation)
        for number_of, item in enumerate(items[:single]):
            every = max(1, -(-len(item.steps) // THIN_POINTS))
            figure.add_scatter(
                x=item.steps[::every].astype(np.int32),
                y=item.values[name][::every].astype(np.float32),
                mode="lines",
                line={"color": translucent(look.colour, 0.45), "width": 1},
                visible="legendonly",
                showlegend=number_of == 0,
                legendrank=1001,
                legendgroup=f"{representation}, runs",
                name=for_plotly(f"{representation}, single runs"),
                hovertext=for_plotly(f"{item.run.trial} seed {item.run.seed}"),
                hovertemplate="%{hovertext}, step %{x}: %{y:.4g}<extra></extra>",
            )
        steps = np.concatenate([found.steps, found.steps[::-1]])
        edge = np.concatenate([found.high, found.low[::-1]]).astype(np.float32)
        figure.add_scatter(
            x=steps,
            y=edge,
            fill="toself",
            fillcolor=translucent(look.colour, 0.25),
            line={"width": 1, "color": translucent(look.colour, 0.4)},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=representation,
            mode="lines",
        )
        figure.add_scatter(
            x=found.steps,
            y=found.median.astype(np.float32),
            mode="lines",
            name=for_plotly(representation),
            legendgroup=representation,
            line={"color": look.colour, "width": 3, "dash": look.dash},
            customdata=found.runs,
            hovertemplate="step %{x}: %{y:.4g} (%{customdata} runs)<extra>%{fullData.name}</extra>",
        )
        low = int(np.argmin(found.median))
        words.append(
            f"{representation}: median from {number(found.median[0], None)} at step {found.steps[0]} to "
            f"{number(found.median[-1], None)} at step {found.steps[-1]}, lowest {number(found.median[low], None)} "
            f"at step {found.steps[low]}"
        )
    if not words:
        return None
    singles = f"; single runs (the first {single}) by a click on their name" if single else ""
    caption = (
        f"Line: median of the runs still training; band: {BAND[0]} to {BAND[1]} % of them{singles}. "
        "Runs that were stopped leave the median, which flatters a representation whose bad runs were stopped."
    )
    return Figure(title, figure, caption, f"{title} over training steps. {'; '.join(words)}.")


def trial_curves(items: Sequence[Series]) -> list[Figure]:
    """The risk (and error, where measured) of each seed of one trial; signs where a seed ended badly or early."""
    found = []
    for name, title, unit in (("risk", "Risk of each seed", "risk"), ("error", "Error of each seed", "N-MPJPE, mm")):
        known = [item for item in items if np.isfinite(item.values[name]).any()]
        if not known:
            continue
        figure = new_figure("training step", unit, height=260, showlegend=False)
        for item in known:
            run, look = item.run, style(item.run.representation)
            every = max(1, -(-len(item.steps) // THIN_POINTS))
            figure.add_scatter(
                x=item.steps[::every].astype(np.int32),
                y=item.values[name][::every].astype(np.float32),
                mode="lines",
                line={"color": translucent(look.colour, 0.8), "width": 1.5},
                name=f"seed {run.seed}",
                hovertemplate="%{fullData.name}, step %{x}: %{y:.4g}<extra></extra>",
            )
            at = np.flatnonzero(np.isfinite(item.values[name]))
            if run.verdict != "healthy":
                colour, symbol = verdict_look(run.verdict)
                figure.add_scatter(
                    x=[int(item.steps[at[-1]])],
                    y=[float(item.values[name][at[-1]])],
                    mode="markers",
                    marker={"color": colour, "symbol": symbol, "size": 10},
                    name=for_plotly(f"seed {run.seed}: {run.verdict.replace('_', '-')}"),
                    hovertemplate="%{fullData.name} at step %{x}<extra></extra>",
                )
        counts = Counter(item.run.verdict.replace("_", "-") for item in known)
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        alt = f"{title} of {known[0].run.trial} over training steps: {len(known)} lines; {words}."
        found.append(Figure(title, figure, "A sign: the seed ended there with a verdict; hover for it.", alt))
    return found


def survival(series: Sequence[Series]) -> Figure | None:
    """Kaplan-Meier: the share of runs not yet broken; runs stopped for another reason or finished are censored."""
    from lifelines import KaplanMeierFitter

    figure = new_figure("training step", "share of runs not broken", yaxis_range=[0, 1.03])
    words = []
    for representation, items in by_representation(series).items():
        runs = [item.run for item in items]
        broken = [not is_sound(run.verdict) for run in runs]
        when = [run.onset if not is_sound(run.verdict) and run.onset is not None else run.stopped_step for run in runs]
        fitted = KaplanMeierFitter().fit(when, broken)
        share, limits = fitted.survival_function_.iloc[:, 0], fitted.confidence_interval_
        look = style(representation)
        for column, fill in ((0, None), (1, "tonexty")):
            figure.add_scatter(
                x=limits.index.to_numpy(),
                y=limits.iloc[:, column].to_numpy(),
                mode="lines",
                line={"width": 0, "shape": "hv"},
                fill=fill,
                fillcolor=translucent(look.colour, 0.12),
                hoverinfo="skip",
                showlegend=False,
                legendgroup=representation,
            )
        figure.add_scatter(
            x=share.index.to_numpy(),
            y=share.to_numpy(),
            mode="lines",
            name=for_plotly(representation),
            legendgroup=representation,
            line={"color": look.colour, "width": 3, "dash": look.dash, "shape": "hv"},
        )
        words.append(
            f"{representation}: {sum(broken)} of {len(runs)} runs broke, {share.iloc[-1]:.0%} survive to the end"
        )
    if not words:
        return None
    caption = (
        "Kaplan-Meier estimate with its 95 % interval. A run counts as broken from the onset of its divergence or "
        "collapse; plateaued runs that were stopped, and runs that reached the end, are censored there."
    )
    return Figure("Runs that stay sound", figure, caption, f"Survival curves. {'; '.join(words)}.")


def stops(series: Sequence[Series]) -> Figure | None:
    """When runs ended, and with which verdict."""
    if not series:
        return None
    names = list(by_representation(series))
    figure = new_figure("step at which the run ended", "", height=150 + 70 * len(names))
    figure.update_xaxes(range=[0, 1.04 * max(item.run.steps for item in series)])  # also when all end together
    random = np.random.default_rng(0)
    found = {item.run.verdict for item in series}
    for verdict in sorted(found, key=severity):
        runs = [item.run for item in series if item.run.verdict == verdict]
        colour, symbol = verdict_look(verdict)
        places = np.array([names.index(run.representation) for run in runs]) + random.uniform(-0.25, 0.25, len(runs))
        figure.add_scatter(
            x=[run.stopped_step for run in runs],
            y=places,
            mode="markers",
            name=verdict.replace("_", "-"),
            marker={
                "color": colour,
                "symbol": symbol,
                "size": 10,
                "line": {"width": 1, "color": "white"},
            },
            text=[for_plotly(f"{run.trial} seed {run.seed}: {run.reason or 'no complaint'}") for run in runs],
            hovertemplate="%{text} (step %{x})<extra></extra>",
        )
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=list(map(for_plotly, names)),
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
    )
    counts = Counter((item.run.representation, item.run.verdict.replace("_", "-")) for item in series)
    words = ", ".join(f"{name} {verdict} {count}" for (name, verdict), count in sorted(counts.items()))
    caption = "A point is a run, spread a little up and down so that none hides another; hover for its reason."
    return Figure("When runs ended", figure, caption, f"Runs by verdict: {words}.")


def risk_against_error(series: Sequence[Series]) -> Figure | None:
    """All evaluated checkpoints: the risk that decided against the error nobody saw; the selected ones marked."""
    figure = new_figure("risk (lower is better)", "N-MPJPE, sign-resolved, mm", height=460)
    figure.update_layout(legend={"itemsizing": "constant"})  # small faint points have a name that can be seen
    share = POINTS / max(1, sum(len(item.steps) for item in series))
    random, words = np.random.default_rng(0), []
    for representation, items in by_representation(series).items():
        risk = np.concatenate([item.values["risk"] for item in items])
        error = np.concatenate([item.values["error"] for item in items])
        known = np.isfinite(risk) & np.isfinite(error)
        if known.sum() < 3:
            continue
        words.append(f"{representation} {spearmanr(risk[known], error[known]).statistic:.2f} over {known.sum()}")
        shown = known & (random.random(len(risk)) < share)
        look = style(representation)
        figure.add_scatter(
            x=risk[shown].astype(np.float32),
            y=error[shown].astype(np.float32),
            mode="markers",
            name=for_plotly(representation),
            legendgroup=representation,
            marker={"color": look.colour, "opacity": 0.35, "size": 5, "symbol": look.symbol},
            hovertemplate="risk %{x:.4g}, %{y:.1f} mm<extra>%{fullData.name}</extra>",
        )
        chosen = [(item, int(place[0])) for item in items if len(place := _selected(item))]
        figure.add_scatter(
            x=[item.values["risk"][place] for item, place in chosen],
            y=[item.values["error"][place] for item, place in chosen],
            mode="markers",
            name=for_plotly(f"{representation}, selected"),
            legendgroup=representation,
            marker={"color": look.colour, "size": 12, "symbol": look.symbol, "line": {"color": "#888888", "width": 1}},
            text=[for_plotly(f"{item.run.trial} seed {item.run.seed} step {item.steps[at]}") for item, at in chosen],
            hovertemplate="%{text}: risk %{x:.4g}, %{y:.1f} mm<extra></extra>",
        )
    if not words:
        return None
    caption = (
        f"Rank correlation (Spearman) of risk and error over checkpoints: {'; '.join(words)}. "
        "Outlined: the checkpoint that each run keeps. Only this figure and the errors have seen truth."
    )
    return Figure("Does the risk know?", figure, caption, f"Scatter of risk against error in mm. {caption}")


def _selected(item: Series) -> Any:
    """Where in the series the selected checkpoint stands; empty if there is none."""
    return np.flatnonzero(item.steps == _selected_step(item.run))


def _selected_step(run: SeedRun) -> int:
    selected = run.errors.selected if run.errors else None
    return -1 if selected is None or selected.step is None else selected.step


def by_representation(series: Sequence[Series]) -> dict[str, list[Series]]:
    """Series grouped by representation, in the order they come."""
    groups: dict[str, list[Series]] = {}
    for item in series:
        groups.setdefault(item.run.representation, []).append(item)
    return groups
