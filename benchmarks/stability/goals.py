"""Thresholds for a goal: how long to wait, how much to see, if at most so much error may be lost by stopping.

    python -m benchmarks.stability.goals                    # choose on all sources, write stability/goals.json
    python -m benchmarks.stability.goals --fit procedural   # choose on one source, judge on the others; writes nothing

Replays the detectors over the long and short runs of bank 2 (averaged weights; with several cameras and with one) on a
small grid. For each goal it takes the thresholds that save the most steps of long runs while no group of runs (source
and length) that it may see loses more than the goal on average. Lost is the error of the checkpoint of the lowest
risk up to the stop over that of the whole run; a checkpoint inside a mirror crossing, or before the network settled on
one side, is never chosen. What ships is chosen on all sources; how well such a choice does on a source that it has not
seen is printed beside it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.stability.bank import BANK, Curves, load
from tips_dist.config import Policy
from tips_dist.files import write_json
from tips_dist.replay import RISK, recipe_of
from tips_dist.stability.detectors import DETECTORS, Judge
from tips_dist.stability.goals import TABLE
from tips_dist.stability.online import BaseDetector, Recipe
from tips_dist.stability.rises import Drifting, Plateau
from tips_dist.stability.risk import risk
from tips_dist.stability.verdicts import kind_of

GOALS = (0.005, 0.01, 0.02, 0.05)
SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
PROGRESS = (0.0025, 0.005, 0.01)
ALARMS = (0.05, 0.1, 0.2, 0.4)
NEVER = Policy(plateau_share=9.0, plateau_progress=0.01, drifting_alarm=1e9)
SOURCES = ("procedural", "people", "others")

Array = npt.NDArray[np.float64]
Thresholds = dict[str, float]


@dataclass(frozen=True, eq=False)
class Seed:
    """What each choice of thresholds would have done to one seed: share of steps saved and of error lost."""

    group: tuple[str, str]  # source, length
    outcomes: Array  # (G, 2), over the grid
    possible: float  # share of steps that could have been saved without losing more than 1 %, had one known


def main() -> None:
    """Choose, say what it costs elsewhere, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    points = list(grid())
    seeds = [one for cameras in ("several", "one") for curves in _runs(arguments.bank, cameras) for one in curves]
    possible = {
        length: np.mean([one.possible for one in seeds if one.group[1] == length]) for length in ("long", "short")
    }
    print(f"{len(seeds) // 2} seeds, {len(points)} choices of thresholds; who had known could have saved "
          f"{possible['long']:.0%} of long and {possible['short']:.0%} of short runs at 1 % of error\n")  # fmt: skip
    print("| goal | fitted on | judged on | thresholds | long: saved | lost | short: saved | lost |")
    print("|---|---|---|---|---|---|---|---|")
    for fitted in [[one for one in SOURCES if one != left] for left in SOURCES] + [arguments.fit]:
        for goal, place in zip(GOALS, choose(seeds, fitted), strict=True):
            judged = [one for one in SOURCES if one not in fitted] or list(SOURCES)
            print(f"| {goal:.1%} | {', '.join(fitted)} | {', '.join(judged)} | {_words(points[place])} | "
                  f"{_cells(seeds, judged, 'long', place)} | {_cells(seeds, judged, 'short', place)} |")  # fmt: skip
    if not arguments.dry and set(arguments.fit) == set(SOURCES):
        chosen = zip(GOALS, choose(seeds, SOURCES), strict=True)
        rows = [{"loss": goal, **points[place]} for goal, place in chosen]
        write_json(
            TABLE, {"goals": rows, "fitted_on": f"{len(seeds) // 2} seeds of bank 2, with several cameras and one"}
        )


def grid() -> Iterator[Thresholds]:
    """All choices of thresholds, the most patient first."""
    for share, progress, alarm in itertools.product(reversed(SHARES), PROGRESS, reversed(ALARMS)):
        yield {"plateau_share": share, "plateau_progress": progress, "drifting_alarm": alarm}


def choose(seeds: Sequence[Seed], sources: Sequence[str]) -> list[int]:
    """For each goal the place in the grid that saves the most long steps while no group of ``sources`` loses more.

    Who may lose more never waits longer.
    """
    groups: dict[tuple[str, str], list[Array]] = {}
    for seed in seeds:
        if seed.group[0] in sources:
            groups.setdefault(seed.group, []).append(seed.outcomes)
    means = {group: np.mean(outcomes, axis=0) for group, outcomes in groups.items()}
    worst = np.max([mean[:, 1] for mean in means.values()], axis=0)
    saved = np.mean([mean[:, 0] for group, mean in means.items() if group[1] == "long"], axis=0)
    points, places = list(grid()), [0]
    for goal in GOALS:
        least = points[places[-1]]
        allowed = [all(point[name] <= least[name] for name in ("plateau_share", "drifting_alarm")) for point in points]
        kept = np.where(worst <= goal, saved, -1.0 - worst)
        places.append(int(np.argmax(np.where(allowed, kept, -np.inf))))
    return places[1:]


def _cells(seeds: Sequence[Seed], sources: Sequence[str], length: str, place: int) -> str:
    found = np.array([one.outcomes[place] for one in seeds if one.group[0] in sources and one.group[1] == length])
    return f"{found[:, 0].mean():.0%} | {found[:, 1].mean():.1%}" if len(found) else "- | -"


def _words(point: Thresholds) -> str:
    return (
        f"share {point['plateau_share']:g}, progress {point['plateau_progress']:g}, alarm {point['drifting_alarm']:g}"
    )


def _runs(bank: Path, cameras: str) -> Iterator[list[Seed]]:
    for curves in load(bank, cameras=cameras, kinds=("averaged",)):
        made = [_seed(curves, place) for place in range(curves.errors.shape[1])]
        yield [one for one in made if one is not None]


def _seed(curves: Curves, place: int) -> Seed | None:
    """Replay every choice of thresholds over one seed; None of a seed of which nothing can be chosen."""
    budget, recipe = int(curves.steps[-1]), recipe_of(curves.run.configuration)
    alive = np.isfinite(curves.errors[:, place])
    ends = len(alive) if alive.all() else int(alive.argmin())
    rows = [{name: values[e, place] for name, values in curves.signals.items()} for e in range(ends)]
    named = [{name: value if np.isfinite(value) else None for name, value in row.items()} for row in rows]
    named = [{**row, RISK: risk(row)} for row in named]
    steps, errors = curves.steps[:ends].astype(int), curves.errors[:ends, place]
    judge, broken = _judged(steps, named, budget, recipe)
    risks = [np.inf if (told := row[RISK]) is None or not judge.may_choose(step) else told
             for step, row in zip(steps.tolist(), named, strict=True)]  # fmt: skip
    if not np.isfinite(risks).any():
        return None
    first = partial(_first, steps=steps, rows=named, budget=budget, recipe=recipe)
    plateaus = {
        (share, progress): first(
            Plateau, NEVER.model_copy(update={"plateau_share": share, "plateau_progress": progress})
        )
        for share, progress in itertools.product(SHARES, PROGRESS)
    }
    drifts = {alarm: first(Drifting, NEVER.model_copy(update={"drifting_alarm": alarm})) for alarm in ALARMS}
    outcomes = []
    for point in grid():
        stop = min(broken, plateaus[point["plateau_share"], point["plateau_progress"]], drifts[point["drifting_alarm"]])
        until = min(stop, ends - 1) + 1
        early, whole = (int(np.argmin(some)) for some in (risks[:until], risks))
        lost = errors[early] / errors[whole] - 1 if np.isfinite(risks[early]) else 0.0
        outcomes.append((1 - steps[until - 1] / budget if stop < ends else 0.0, lost))
    kept = [errors[int(np.argmin(risks[: index + 1]))] for index in range(ends)]
    enough = next(index for index, error in enumerate(kept) if error <= 1.01 * kept[-1] and np.isfinite(risks[index]))
    return Seed((curves.run.source, curves.run.length), np.array(outcomes), 1 - steps[enough] / budget)


def _judged(steps: Array, rows: Sequence[dict[str, float | None]], budget: int, recipe: Recipe) -> tuple[Judge, int]:
    """A judge that has seen everything, and where it would have ended the seed for what no goal decides."""
    judge, broken = Judge(budget, recipe, NEVER), len(steps)
    for index, (step, row) in enumerate(zip(steps.tolist(), rows, strict=True)):
        if kind_of(judge.update(step, row).kind).ends in ("divergence", "always"):
            broken = min(broken, index)
    return judge, broken


def _first(
    kind: type[BaseDetector], policy: Policy, *, steps: Array, rows: Sequence[dict[str, float | None]],
    budget: int, recipe: Recipe,
) -> int:  # fmt: skip
    """The first evaluation step at which a detector finds something; the number of steps if it never does."""
    assert kind in DETECTORS
    detector = kind(policy, recipe, budget)
    found = (detector.update(step, row) is not None for step, row in zip(steps.tolist(), rows, strict=True))
    return next((index for index, told in enumerate(found) if told), len(steps))


if __name__ == "__main__":
    main()
