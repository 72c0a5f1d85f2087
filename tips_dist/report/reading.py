"""Read a run folder as plain data: the only input of everything in ``report``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tips_dist.files import UserError, read_json, read_json_lines

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


_NUMBERS = re.compile(rb"\[[-+.,\seE\dnul]*\]")
_OUTCOME = ("seed", "verdict", "reason", "onset", "stopped_step", "best_step", "best_risk")


def read_run(folder: Path, *, curves: bool = False) -> RunFolder:
    """Read a run folder; with ``curves`` also the error of every evaluation step, which is most of evaluation.json.

    Raises:
        UserError: there is no such folder, it is no run folder, or one of its records is damaged or from
            another version; the message names the file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; `tips-dist run` prints the folder it makes")
    if not (folder / "study.json").exists():
        raise UserError(f"{folder}: not a run folder (it has no study.json)")
    study = _record(folder / "study.json", "resolved")
    paths = sorted((folder / "trials").glob("*/trial.json"))
    trials = [_record(path, "id", "representation", "configuration") for path in paths]
    order = {name: index for index, name in enumerate(study["resolved"]["representations"])}
    trials.sort(key=lambda trial: (order.get(trial["representation"], len(order)), trial["id"]))
    return RunFolder(
        folder=folder,
        study=study,
        trials=trials,
        selection=_optional(folder / "selection.json"),
        evaluation=_optional(folder / "evaluation.json") if curves else _without_curves(folder / "evaluation.json"),
        dependence=_optional(folder / "dependence.json"),
    )


def _optional(path: Path) -> dict[str, Any] | None:
    return _record(path) if path.exists() else None


def _without_curves(path: Path) -> dict[str, Any] | None:
    """The record with its lists of numbers emptied unread: on a large study they are hundreds of megabytes."""
    if not path.exists():
        return None
    try:
        return _checked(path, json.loads(_NUMBERS.sub(b"[]", path.read_bytes())))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def _record(path: Path, *keys: str) -> dict[str, Any]:
    return _checked(path, read_json(path), *keys)


def _checked(path: Path, record: Any, *keys: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(record).__name__}")
    if record.get("schema") != 1:
        raise UserError(f"{path}: schema {record.get('schema')!r} is unknown to this version; expected 1")
    for key in keys:
        if key not in record:
            raise UserError(f"{path}: the key '{key}' is missing")
    return record
