"""The numbers of a study, by representation and by trial, from its run folder alone.

Risk and verdicts are estimates made without truth; errors in mm are measured against truth and stand only where
``evaluation.json`` does. :func:`summarise` documents the schema that ``summary --json`` prints.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tips_dist.bootstrap import cliffs_delta, describe, difference
from tips_dist.files import write_json
from tips_dist.report.reading import CHECKPOINTS, METRICS, RunFolder, SeedRun, read_run

Array = NDArray[np.float64]


def write_summary(folder: Path) -> dict[str, Any]:
    """Summarise a run folder, write ``summary.json`` into it and return what was written."""
    summary = summarise(read_run(folder))
    write_json(folder / "summary.json", summary)
    return summary


def summarise(run: RunFolder) -> dict[str, Any]:
    """Summarise a study as plain data.

    Keys: ``schema`` (1); ``study`` (name, digest, folder, created, steps, seeds); ``trial_states`` (state: count);
    ``evaluated``; ``representations`` and ``trials`` (one group each, see below); ``differences`` between
    representations (metric, first, second, ``difference`` first minus second, ``cliffs_delta``); ``teachers`` and
    ``rule`` of the selection; ``student`` (split: metrics) where evaluated.

    A group: ``runs``, ``verdicts`` (verdict: count), ``stopped_step`` (median), ``steps_saved`` (share of planned
    seed-steps that stopping left untrained), ``risk`` (median over runs of the lowest risk), and ``errors``, null
    unless evaluated: ``metrics`` of the selected checkpoints (n_mpjpe and pa_mpjpe as predicted, and _resolved with
    depth signs resolved without truth; mm, validation), ``checkpoints`` (n_mpjpe_resolved of the selected,
    best, last and a random checkpoint) and ``against`` (n_mpjpe_resolved of best, last and random minus that of
    the selected one, run by run). Statistics are {value, low, high, runs}: 95 % bootstrap over trials and seeds.
    """
    study = run.study["resolved"]
    groups = _groups([[item for item in run.runs if item.representation == name] for name in run.representations])
    representations = [
        {"representation": name, "trials": sum(trial["representation"] == name for trial in run.trials)} | group
        for name, group in zip(run.representations, groups, strict=True)
    ]
    selection = run.selection or {}
    return {
        "schema": 1,
        "study": {
            "name": run.study.get("name"),
            "digest": run.study.get("digest"),
            "folder": str(run.folder),
            "created": run.study.get("created"),
            "steps": study["training"]["steps"],
            "seeds": study["seeds"],
        },
        "trial_states": dict(Counter(trial.get("state", "unknown") for trial in run.trials)),
        "evaluated": run.evaluation is not None,
        "representations": representations,
        "differences": _differences(run),
        "trials": _trials(run),
        "teachers": selection.get("teachers", []),
        "rule": selection.get("rule"),
        "student": (run.evaluation or {}).get("student"),
    }


def _trials(run: RunFolder) -> list[dict[str, Any]]:
    runs = {key: list(items) for key, items in itertools.groupby(run.runs, key=lambda item: item.trial)}
    groups = _groups([runs.get(trial["id"], []) for trial in run.trials])
    teachers = Counter(teacher["trial"] for teacher in (run.selection or {}).get("teachers", []))
    return [
        {
            "trial": trial["id"],
            "representation": trial["representation"],
            "state": trial.get("state"),
            "error": trial.get("error"),
            "parameters": trial.get("parameters", {}),
            "wall_seconds": trial.get("wall_seconds"),
            "teachers": teachers[trial["id"]],
        }
        | group
        for trial, group in zip(run.trials, groups, strict=True)
    ]


def _groups(groups: Sequence[Sequence[SeedRun]]) -> list[dict[str, Any]]:
    """What each group of runs did; statistics of all groups are computed together."""
    risk = describe([_table(runs, risks(runs)) for runs in groups], median=True)
    found = [_counts(runs) | {"risk": value} for runs, value in zip(groups, risk, strict=True)]
    for group, errors_found in zip(found, _errors(groups), strict=True):
        group["errors"] = errors_found
    return found


def _counts(runs: Sequence[SeedRun]) -> dict[str, Any]:
    planned = sum(run.steps for run in runs)
    return {
        "runs": len(runs),
        "verdicts": dict(Counter(run.verdict for run in runs).most_common()),
        "stopped_step": float(np.median([run.stopped_step for run in runs])) if runs else None,
        "steps_saved": 1 - sum(run.stopped_step for run in runs) / planned if planned else None,
    }


def _errors(groups: Sequence[Sequence[SeedRun]]) -> list[dict[str, Any] | None]:
    if not any(run.errors for runs in groups for run in runs):
        return [None] * len(groups)
    tables = {name: [_table(runs, errors(runs, name)) for runs in groups] for name in CHECKPOINTS}
    metrics = {name: describe([_table(runs, errors(runs, "selected", name)) for runs in groups]) for name in METRICS}
    checkpoints = {name: describe(tables[name]) for name in CHECKPOINTS}
    against = {
        name: describe([other - own for other, own in zip(tables[name], tables["selected"], strict=True)])
        for name in CHECKPOINTS
        if name != "selected"
    }
    parts = {"metrics": metrics, "checkpoints": checkpoints, "against": against}
    return [
        {part: {name: values[index] for name, values in named.items()} for part, named in parts.items()}
        if any(run.errors for run in runs)
        else None
        for index, runs in enumerate(groups)
    ]


def _differences(run: RunFolder) -> list[dict[str, Any]]:
    groups = {name: [item for item in run.runs if item.representation == name] for name in run.representations}
    rows = []
    for first, second in itertools.combinations(groups, 2):
        one, other = groups[first], groups[second]
        pairs = {
            "risk": (risks(one), risks(other)),
            "n_mpjpe_resolved": (errors(one, "selected"), errors(other, "selected")),
        }
        for metric, (left, right) in pairs.items():
            found = difference(_table(one, left), _table(other, right))
            if found is not None:
                delta = cliffs_delta(left, right)
                pair = {"metric": metric, "first": first, "second": second}
                rows.append(pair | {"difference": found, "cliffs_delta": delta})
    return rows


def risks(runs: Sequence[SeedRun]) -> Array:
    """The lowest risk of each run, NaN where there is none."""
    return np.array([np.nan if run.best_risk is None else run.best_risk for run in runs], float)


def errors(runs: Sequence[SeedRun], checkpoint: str, metric: str = "n_mpjpe_resolved") -> Array:
    """One metric of one checkpoint of each run in mm, NaN where there is none."""
    found = [run.errors.get(checkpoint, {}).get(metric) for run in runs]
    return np.array([np.nan if value is None else value for value in found], float)


def _table(runs: Sequence[SeedRun], values: Array) -> Array:
    """One value per run as (trials, seeds), NaN where a trial has fewer seeds."""
    trials = [list(items) for _, items in itertools.groupby(range(len(runs)), key=lambda i: runs[i].trial)]
    table = np.full((len(trials), max(map(len, trials), default=0)), np.nan)
    for row, indices in enumerate(trials):
        table[row, : len(indices)] = values[indices]
    return table
