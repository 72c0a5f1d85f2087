"""What was decided without truth, judged: questions (d) and (e) of ``studies/parts.yaml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from studies.answers.material import Material, StudiedSeed
from studies.answers.tables import Table
from tips_dist.evaluation import scorecard
from tips_dist.replay import choosable
from tips_dist.stability.risk import regimes

OURS, ONE_CAMERA = "lowest risk (ours)", "lowest risk of one camera"


def regret(study: Material) -> Table:
    """(d) What selection without truth costs, with and without a second view, beside trivial choices."""
    names = list(study.chosen)
    table = Table(
        "Regret against the oracle's checkpoint (mm, validation, averaged weights), mean over seeds",
        ["choice", *names, *(f"{name}: share of the random-to-oracle gap" for name in names)],
    )
    found = {name: _regrets(study.of(name)) for name in names}
    for choice in found[names[0]]:
        rows = [found[name].get(choice) for name in names]
        table.add(
            choice,
            *(None if row is None else row.mm for row in rows),
            *(None if row is None else row.share for row in rows),
        )
    return table


def _regrets(seeds: Sequence[StudiedSeed]) -> dict[str, scorecard.Regret]:
    found = scorecard.selection_regrets(scorecard.Card(seeds))
    blind = scorecard.selection_regrets(scorecard.Card([one_camera(seed) for seed in seeds]))
    return {
        "random checkpoint": found.pop("random checkpoint"),
        OURS: found.pop(OURS),
        ONE_CAMERA: blind[OURS],
        **found,
    }


def one_camera(seed: StudiedSeed) -> StudiedSeed:
    """The seed as it is judged without a second view; mirror crossings are those that several cameras tell."""
    regime = regimes()[1]
    logs = [regime.log_risk(row) for row in seed.rows()]
    risks = np.array([np.nan if one is None else np.exp(one) for one in logs], np.float64)
    return choosable(dataclasses.replace(seed, risks=risks))  # type: ignore[return-value]


def stopping(study: Material) -> Table:
    """(e) What stopping would have saved, and what it would have cost."""
    seeds = [seed for seed in study.histories if np.isfinite(seed.risks).sum() > scorecard.RISKS]
    table = Table(
        f"Stopping, replayed over {len(seeds)} seeds that trained to the end",
        ["rule", "steps saved, %", "mm lost at the selected checkpoint", "in %",
         "representations whose best seed was stopped too early"],
    )  # fmt: skip
    for name, row in scorecard.stopping(scorecard.Card(seeds)).items():
        table.add(name, row.saved.scaled(100), row.lost_mm, row.lost.scaled(100), f"{row.best_lost} of {row.trials}")
    return table


def called(study: Material) -> Table:
    """(e) What the detectors called, beside what truly became of the seeds."""
    cards = {name: scorecard.detection(scorecard.Card(study.of(name)))["detectors (ours)"] for name in study.chosen}
    table = Table(
        "Verdicts against true fates, share of seeds in percent",
        ["representation", "healthy stopped", "crossed, and called crossing", "crossed, and stopped",
         "drifting, and called", "diverged, and called"],
    )  # fmt: skip
    for name, card in cards.items():
        rows = (card.false_stops, card.crossing, card.crossing_stopped, card.drifting, card.told)
        table.add(name, *(None if row is None or np.isnan(row.value) else row.scaled(100) for row in rows))
    return table
