"""Pictures of the studies of representations."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from studies.answers.material import Material
from studies.answers.tables import Table

mpl.use("Agg")
INK, OURS = "#9db4c8", "#1f4e79"


def curves(study: Material, path: Path) -> None:
    """True error over the steps of every seed of each chosen configuration, with the selected checkpoints."""
    import matplotlib.pyplot as plt

    columns = min(3, len(study.chosen))
    rows = -(-len(study.chosen) // columns)
    size = (11, 2.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    for axis, name in zip(axes.flat, study.chosen, strict=False):
        seeds = study.of(name)
        for history in seeds:
            axis.plot(history.steps, history.errors, color=INK, linewidth=0.9)
        middle = np.nanmedian([history.errors for history in seeds], axis=0)
        axis.plot(seeds[0].steps, middle, color=OURS, linewidth=1.8, label="median seed")
        chosen = [(h.truth.selected.step, h.at("selected")) for h in seeds if h.file and h.truth.selected is not None]
        axis.scatter(*zip(*chosen, strict=True), s=22, color="#c8553d", zorder=3, label="selected without truth")
        axis.set_title(f"{name} (lifter's rate {seeds[0].configuration.training.generator_lr:g})", fontsize=10)
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylim(60, 200)
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supylabel("N-MPJPE, depth signs resolved, mm (validation)", fontsize=10)
    figure.supxlabel("step", fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def selected(study: Material, path: Path, supervised: float) -> None:
    """Error at the selected checkpoint, one dot per seed, for every configuration."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for row, name in enumerate(study.chosen):
        for offset, (trial, seeds) in enumerate(study.trials(name).items()):
            values = [history.at("selected") for history in seeds]
            color = OURS if trial == study.chosen[name] else INK
            axis.scatter(values, [row + 0.22 * (offset - 1)] * len(values), s=16, color=color)
    axis.axvline(supervised, color="#c8553d", linewidth=1, label="supervised lifter of the same size")
    axis.set_yticks(range(len(study.chosen)), list(study.chosen))
    axis.invert_yaxis()
    axis.set_xlabel("N-MPJPE at the selected checkpoint, mm (validation); dark: configuration chosen by risk")
    axis.legend(frameon=False, fontsize=9)
    axis.grid(alpha=0.25, axis="x")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def effects(tables: dict[str, tuple[Table, Table]], outcomes: list[str], path: Path) -> None:
    """Effect of every factor on some outcomes; one colour per representation.

    Of the two tables of a representation, the first's intervals are drawn thin, the second's thick.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(outcomes), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained")
    for shift, (name, color) in enumerate(zip(tables, (OURS, "#c8553d"), strict=False)):
        thin, thick = (table.data()["rows"] for table in tables[name])
        for axis, outcome in zip(axes.flat, outcomes, strict=True):
            for place, (key, row) in enumerate(thin.items()):
                cell, narrow, height = row[outcome], thick[key][outcome], place + 0.24 * (shift - 0.5)
                if cell is not None:
                    axis.plot([cell["low"], cell["high"]], [height] * 2, color=color, linewidth=0.8)
                    axis.plot([narrow["low"], narrow["high"]], [height] * 2, color=color, linewidth=2.5)
                    axis.plot(cell["value"], height, "o", color=color, markersize=5, label=None if place else name)
            axis.set_title(outcome, fontsize=10)
            axis.set_yticks(range(len(thin)), [f"{key}: {row['from, to']}" for key, row in thin.items()], fontsize=9)
            axis.axvline(0, color="black", linewidth=0.8)
            axis.grid(alpha=0.25, axis="x")
    axes[0, 0].invert_yaxis()
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside upper right", ncols=2
    )
    label = (
        "mean at the second level minus mean at the first (95 % interval: thin over trials and seeds, thick over seeds)"
    )
    figure.supxlabel(label, fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
