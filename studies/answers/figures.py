"""Pictures of the studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from studies.answers.claims import BASE, TestErrors
from studies.answers.material import Material
from studies.answers.tables import Table
from tips_dist.bootstrap import Statistic

mpl.use("Agg")
INK, OURS, OTHER = "#9db4c8", "#1f4e79", "#c8553d"
LABEL = "N-MPJPE, depth signs resolved, mm"


def curves(studies: Mapping[str, Material], path: Path) -> None:
    """True error over the steps of every seed of each study's chosen configurations, with the selected checkpoints."""
    import matplotlib.pyplot as plt

    names = list(next(iter(studies.values())).chosen)
    size = (5.2 * len(names), 2.7 * len(studies))
    figure, axes = plt.subplots(len(studies), len(names), figsize=size, sharex=True, sharey=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    for row, (label, study) in zip(axes, studies.items(), strict=True):
        for axis, name in zip(row, names, strict=True):
            seeds = study.of(name)
            for seed in seeds:
                axis.plot(seed.steps, seed.errors, color=INK, linewidth=0.9)
            middle = np.nanmedian([seed.errors for seed in seeds], axis=0)
            axis.plot(seeds[0].steps, middle, color=OURS, linewidth=1.8, label="median seed")
            chosen = [
                (s.truth.selected.step, s.at("selected")) for s in seeds if s.file and s.truth.selected is not None
            ]
            axis.scatter(*zip(*chosen, strict=True), s=22, color=OTHER, zorder=3, label="selected without truth")
            axis.set_title(f"{name}, {label}", fontsize=10)
            axis.grid(alpha=0.25)
    axes[0, 0].set_ylim(65, 165)
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supylabel(f"{LABEL} (validation people, averaged)", fontsize=9)
    figure.supxlabel("step", fontsize=10)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def selected(tests: TestErrors, supervised: float, path: Path) -> None:
    """Error of the selected lifters on test people, one dot per seed, for every representation."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
    for row, (name, found) in enumerate(tests.items()):
        values = [one["all"] for one in found]
        axis.scatter(values, [row] * len(values), s=18, color=INK if name == BASE else OURS)
        axis.scatter([np.mean(values)], [row], marker="|", s=220, color=OTHER)
    axis.axvline(supervised, color=OTHER, linewidth=1, label="supervised lifter of the same size")
    axis.set_yticks(range(len(tests)), list(tests))
    axis.invert_yaxis()
    axis.set_xlabel(f"{LABEL} (test people, selected checkpoint; bar: mean)")
    axis.legend(frameon=False, fontsize=9)
    axis.grid(alpha=0.25, axis="x")
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def effects(tables: Mapping[str, Table], outcomes: list[str], path: Path) -> None:
    """Effect of every factor on each outcome that anything moved, with its interval; one colour per representation."""
    import matplotlib.pyplot as plt

    cells = {one: [row[one] for table in tables.values() for row in table.named().values()] for one in outcomes}
    outcomes = [one for one in outcomes if any(isinstance(cell, Statistic) and cell.value for cell in cells[one])]
    figure, axes = plt.subplots(1, len(outcomes), figsize=(12, 4.2), sharey=True, squeeze=False, layout="constrained")
    for shift, (name, color) in enumerate(zip(tables, (OURS, OTHER), strict=False)):
        rows = tables[name].named()
        for axis, outcome in zip(axes.flat, outcomes, strict=True):
            for place, row in enumerate(rows.values()):
                cell, height = row[outcome], place + 0.24 * (shift - 0.5)
                if isinstance(cell, Statistic):
                    axis.plot([cell.low, cell.high], [height] * 2, color=color, linewidth=2)
                    axis.plot(cell.value, height, "o", color=color, markersize=4, label=None if place else name)
            axis.set_title(outcome, fontsize=10)
            axis.set_yticks(range(len(rows)), [f"{key}: {row['from, to']}" for key, row in rows.items()], fontsize=8)
            axis.axvline(0, color="black", linewidth=0.8)
            axis.grid(alpha=0.25, axis="x")
    axes[0, 0].invert_yaxis()
    legend = axes[0, 0].get_legend_handles_labels()
    figure.legend(*legend, frameon=False, fontsize=9, loc="outside upper right", ncols=2)
    figure.supxlabel("mean at the second level minus mean at the first (95 % interval over seeds)", fontsize=9)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
