"""Read a run folder as plain data: the only input of everything in ``report``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tips_dist import runfolder
from tips_dist.files import read_json_lines
from tips_dist.runfolder.record import Record

METRICS = ("n_mpjpe", "n_mpjpe_resolved", "pa_mpjpe", "pa_mpjpe_resolved")  # mm, as evaluation.json names them
CHECKPOINTS = ("selected", "best", "last", "random")


@dataclass(frozen=True)
class SeedRun:
    """One run (configuration and seed) as it ended; ``errors`` maps a checkpoint to its metrics in mm."""

    trial: str
    representation: str
    seed: int
    verdict: str
    reason: str
    onset: int | None
    steps: int  # planned
    stopped_step: int
    best_step: int | None
    best_risk: float | None
    errors: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """Everything small in a run folder; histories are read one trial at a time."""

    folder: Path
    study: dict[str, Any]
    trials: list[dict[str, Any]]
    selection: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    dependence: dict[str, Any] | None = None

    @property
    def representations(self) -> list[str]:
        """The representations studied, in the study file's order."""
        return list(self.study["resolved"]["representations"])

    def history(self, trial: str) -> Iterator[dict[str, Any]]:
        """The history rows of one trial: one per evaluation step and seed."""
        return read_json_lines(self.folder / "trials" / trial / "history.jsonl")

    def truth(self, trial: str, seed: int) -> dict[str, Any]:
        """What evaluation.json says about one run; empty where it says nothing."""
        trials = (self.evaluation or {}).get("trials", {})
        found: dict[str, Any] = trials.get(trial, {}).get("seeds", {}).get(str(seed), {})
        return found

    @cached_property
    def runs(self) -> list[SeedRun]:
        """All runs that have an outcome, trial by trial."""
        return [
            SeedRun(
                trial=trial["id"],
                representation=trial["representation"],
                steps=trial["configuration"]["training"]["steps"],
                errors={
                    name: value
                    for name, value in self.truth(trial["id"], seed["seed"]).items()
                    if name in CHECKPOINTS and value
                },
                **{key: seed.get(key) for key in _OUTCOME},
            )
            for trial in self.trials
            if trial.get("outcome")
            for seed in trial["outcome"]["seeds"]
        ]


_OUTCOME = ("seed", "verdict", "reason", "onset", "stopped_step", "best_step", "best_risk")


def read_run(folder: Path, *, curves: bool = False) -> RunFolder:
    """Read a run folder; with ``curves`` also the error of every evaluation step, which is most of evaluation.json.

    Raises:
        UserError: there is no such folder, it is no run folder, or one of its records is damaged or from
            another version; the message names the file.
    """
    run = runfolder.RunFolder(folder)
    evaluation = run.evaluation.plain() if run.evaluation is not None else None
    if evaluation is not None and curves:
        _embed(evaluation, run.curves)
    return RunFolder(
        folder=folder,
        study=run.study.plain(),
        trials=[trial.plain() for trial in run.trials],
        selection=_plain(run.selection),
        evaluation=evaluation,
        dependence=_plain(run.dependence),
    )


def _plain(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else record.plain()


def _embed(evaluation: dict[str, Any], curves: runfolder.Curves) -> None:
    for trial, entry in evaluation["trials"].items():
        for seed, values in entry["seeds"].items():
            curve = curves.of(trial, int(seed))
            if curve is not None:
                values |= {"steps": curve.steps.tolist(), **{n: e.tolist() for n, e in curve.errors.items()}}
