"""Values of one knob at a time: decays of the average (one, two at once, none) and weights of the anatomical prior.

    python -m benchmarks.stability.knobs     # the tables, from the committed bank, in seconds

Source ``others``, width 64, the same four seeds in every row (``recipes.KNOBS``). A run of 3,000 steps holds one of 800
and one of 1,500 that ended there, so the columns show what a decay does to a smaller budget: a share of the budget is a
row that moves with the column. *chosen* is the checkpoint of the lowest risk, told without truth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.stability.bank import Curves, load
from benchmarks.stability.histories import of_run
from benchmarks.stability.recipes import SWEPT
from tips_dist.bootstrap import over_groups
from tips_dist.replay import choosable
from tips_dist.stability.risk import regimes

BUDGETS = (800, 1500, 3000)
SEEDS = 4
ROWS = {  # said -> recipes whose averaged (or raw) checkpoints are looked at together
    "average 0 (raw)": (("default", "raw"),),
    "average 0.99": (("average_0.99", "averaged"),),
    "average 0.995": (("average_0.995", "averaged"),),
    "average 0.998 (default)": (("default", "averaged"),),
    "average 0.9995": (("average_0.9995", "averaged"),),
    "0.995 and 0.9995 at once": (("average_0.995", "averaged"), ("average_0.9995", "averaged")),
    "bend 0.3": (("bend_0.3", "averaged"),),
    "bend 1": (("bend", "averaged"),),
    "bend 3": (("bend_3", "averaged"),),
}

Array = npt.NDArray[np.float64]


def main() -> None:
    """Print one table per representation."""
    found = {
        (curves.run.representation, curves.run.recipe, curves.kind): curves
        for curves in load(lengths=("long", "middle"))
        if curves.run.source == "others" and curves.run.width == 64
    }
    for representation in SWEPT:
        print(f"\n**{representation}**: N-MPJPE in mm, mean of {SEEDS} seeds (95 % interval over seeds)\n")
        print("| | " + " | ".join(f"{steps} steps: chosen | best" for steps in BUDGETS) + " |")
        print("|---|" + "---|---|" * len(BUDGETS))
        for said, members in ROWS.items():
            rows = [found[representation, *member] for member in members if (representation, *member) in found]
            if len(rows) == len(members):
                cells = [text for steps in BUDGETS for text in _cells(rows, steps)]
                print(f"| {said} | " + " | ".join(cells) + " |")


def _cells(rows: list[Curves], steps: int) -> tuple[str, str]:
    """Error of the checkpoint of the lowest risk, and the lowest error, over all checkpoints up to ``steps``."""
    errors = np.concatenate([one.errors[one.steps <= steps, :SEEDS] for one in rows])
    risks = np.concatenate([_risks(one)[one.steps <= steps, :SEEDS] for one in rows])
    chosen = np.argmin(np.where(np.isnan(risks), np.inf, risks), axis=0)
    chosen[np.isnan(risks).all(axis=0)] = len(risks) - 1  # nothing may be chosen: the last
    return _mean(errors[chosen, np.arange(SEEDS)]), _mean(np.nanmin(errors, axis=0))


def _risks(curves: Curves) -> Array:
    """(E, S) the product's risk where it may choose: outside mirror crossings, and once a seed has settled."""
    return np.stack([choosable(one).risks for one in of_run(curves, regimes()[0])], axis=-1)


def _mean(values: Array) -> str:
    found = over_groups(lambda rows: float(values[rows].mean()), [np.array([row]) for row in range(len(values))])
    return f"{found.value:.1f} ({found.low:.1f}..{found.high:.1f})"


if __name__ == "__main__":
    main()
