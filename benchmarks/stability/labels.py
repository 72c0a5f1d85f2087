"""The bank as the scorecard reads it, and the one definition of what counts as truly diverged."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.stability.recipes import BASE, RECIPES
from tips_dist.config import Configuration, parse_study
from tips_dist.stability.detectors import Recipe
from tips_dist.stability.risk import risk

BANK = Path(__file__).parent / "bank"
DRIFT = 1.15  # truly diverged: the median error of the last fifth of the run ...
TAIL = 0.2  # ... is more than 15 % above the lowest error before it (so a run that still learns has not diverged),
BAD_MM = 150.0  # or never comes below this (a lifter that never learnt the shape)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class History:
    """One seed of the bank: signals and true sign-resolved error at each evaluation step."""

    run: str
    representation: str
    recipe: str
    seed: int
    steps: tuple[int, ...]
    rows: list[dict[str, float | None]]  # one per evaluation step, by signal name
    errors: Array  # (E,) mm; NaN where the network was not finite

    @property
    def key(self) -> tuple[str, int]:
        """Run and seed."""
        return self.run, self.seed

    @property
    def diverged(self) -> bool:
        """From true error alone: see the constants above. A run that ends non-finite has diverged."""
        if not np.isfinite(self.errors).all():
            return True
        tail = max(1, int(TAIL * len(self.errors)))
        lowest = float(self.errors[:-tail].min())
        return bool(self.errors.min() > BAD_MM or np.median(self.errors[-tail:]) > DRIFT * lowest)

    @property
    def onset(self) -> int:
        """The step from which a diverged run's error stays above the margin; its first step if it never learnt."""
        above = (
            ~(self.errors <= DRIFT * np.nanmin(self.errors))
            if self.errors.min() <= BAD_MM
            else np.ones(len(self.errors), bool)
        )
        index = len(above)
        while index > 0 and above[index - 1]:
            index -= 1
        return self.steps[min(index, len(self.steps) - 1)]

    def configuration(self) -> Configuration:
        """The configuration it was trained with."""
        return parse_study(BASE, "bank", list(RECIPES[self.recipe])).configuration(self.representation)

    def adversarial_recipe(self) -> Recipe:
        """What the detectors need to know of it."""
        losses = self.configuration().losses
        return Recipe(losses.adversarial_kind, losses.label_swap, losses.real_label)

    @functools.cached_property
    def risks(self) -> Array:
        """(E,) the risk as the product computes it now; NaN where it cannot be told."""
        found = [risk(row) for row in self.rows]
        return np.array([np.nan if value is None else value for value in found])

    def signal(self, name: str) -> Array:
        """(E,) one signal."""
        return np.array([np.nan if row[name] is None else row[name] for row in self.rows], dtype=np.float64)


def load(motion: str) -> list[History]:
    """All histories of one set, seed by seed, in the order of their names."""
    found = []
    for path in sorted((BANK / motion).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            names, steps = [str(name) for name in file["names"]], tuple(int(step) for step in file["steps"])
            signals, errors = file["signals"].astype(np.float64), file["resolved"].astype(np.float64)
        representation, _, recipe = path.stem.partition("-")
        for seed in range(errors.shape[1]):
            rows: list[dict[str, float | None]] = [
                {name: float(v) if np.isfinite(v) else None for name, v in zip(names, values, strict=True)}
                for values in signals[:, seed]
            ]
            found.append(History(path.stem, representation, recipe, seed, steps, rows, errors[:, seed]))
    return found
