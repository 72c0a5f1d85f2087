"""The numbers of a study, by representation and by trial, from its run folder alone.

Risk and verdicts are estimates made without truth; errors in mm are measured against truth and stand only where
``evaluation.json`` does. :class:`tips_dist.runfolder.results.Summary` is the schema that ``summary --json`` prints.
Statistics are 95 % bootstrap intervals over trials and seeds.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tips_dist import bootstrap
from tips_dist.files import UserError
from tips_dist.report.answer import find_answer
from tips_dist.report.runs import SeedRun, ranked, seed_runs
from tips_dist.runfolder import RunFolder, Summary, Trial, layout
from tips_dist.runfolder.budget import budget_of
from tips_dist.runfolder.curves import METRICS
from tips_dist.runfolder.results import (
    CHECKPOINTS,
    Difference,
    GroupErrors,
    GroupSummary,
    RepresentationSummary,
    StudySummary,
    TrialSummary,
)
from tips_dist.runfolder.spent import TimeSpent, time_spent

Array = NDArray[np.float64]


def write_summary(folder: Path) -> Summary:
    """Summarise a run folder, write ``summary.json`` into it and return what was written."""
    return summarise(RunFolder(folder)).save(layout.SUMMARY.at(folder))


def summarise(run: RunFolder) -> Summary:
    """Summarise a study."""
    runs = seed_runs(run)
    of = {name: [item for item in runs if item.representation == name] for name in run.representations}
    study, selection = run.study, run.selection
    found = Summary(
        study=StudySummary(
            name=study.name,
            digest=study.digest,
            folder=str(run.path),
            created=study.created,
            steps=study.resolved.training.steps,
            seeds=study.resolved.seeds,
        ),
        trial_states=dict(Counter(trial.state.value for trial in run.trials)),
        evaluated=run.evaluation is not None,
        representations=[
            RepresentationSummary(
                representation=name, trials=sum(trial.representation == name for trial in run.trials), **vars(group)
            )
            for name, group in zip(of, _groups(list(of.values())), strict=True)
        ],
        differences=_differences(of),
        trials=_trials(run, runs),
        teachers=selection.teachers if selection else [],
        rule=selection.rule if selection else None,
        student=run.evaluation.student if run.evaluation else None,
        budget=budget_of(run.trials),
        time=_time(run),
        fallbacks=_fallbacks(run.trials),
    )
    return found.model_copy(update={"answer": find_answer(run, found, runs)})


def _time(run: RunFolder) -> TimeSpent | None:
    """Where the time of the whole run went; a damaged account of it is no reason to say nothing of the rest."""
    with contextlib.suppress(UserError):
        return time_spent(run.times, run.trials) if run.whole else None
    return None


def _fallbacks(trials: Sequence[Trial]) -> dict[str, int]:
    """How many trials asked for a precision that the hardware lacked, and so ran in float32, by what they asked for."""
    asked = [(trial.configuration.training.precision, trial.outcome) for trial in trials]
    return dict(Counter(name for name, ended in asked if ended is not None and ended.execution.fell_back(name)))


def _trials(run: RunFolder, runs: Sequence[SeedRun]) -> list[TrialSummary]:
    of = {key: list(items) for key, items in itertools.groupby(runs, key=lambda item: item.trial)}
    teachers = Counter(teacher.trial for teacher in (run.selection.teachers if run.selection else ()))
    return [
        TrialSummary(
            trial=trial.id,
            representation=trial.representation,
            state=trial.state,
            error=trial.error,
            parameters=trial.parameters,
            wall_seconds=trial.wall_seconds,
            teachers=teachers[trial.id],
            **vars(group),
        )
        for trial, group in zip(run.trials, _groups([of.get(trial.id, []) for trial in run.trials]), strict=True)
    ]


def _groups(groups: Sequence[Sequence[SeedRun]]) -> list[GroupSummary]:
    """What each group of runs did; statistics of all groups are computed together."""
    risk = bootstrap.statistics([_table(runs, ranked(runs)) for runs in groups], median=True)
    found = []
    for runs, value, measured in zip(groups, risk, _errors(groups), strict=True):
        planned = sum(run.steps for run in runs)
        found.append(
            GroupSummary(
                runs=len(runs),
                verdicts=dict(Counter(run.verdict for run in runs).most_common()),
                stopped_step=float(np.median([run.stopped_step for run in runs])) if runs else None,
                steps_saved=1 - sum(run.stopped_step for run in runs) / planned if planned else None,
                risk=value,
                errors=measured,
            )
        )
    return found


def _errors(groups: Sequence[Sequence[SeedRun]]) -> list[GroupErrors | None]:
    known = [any(run.errors is not None for run in runs) for runs in groups]
    if not any(known):
        return [None] * len(groups)
    tables = {name: [_table(runs, errors(runs, name)) for runs in groups] for name in CHECKPOINTS}
    metrics = {
        name: bootstrap.statistics([_table(runs, errors(runs, "selected", name)) for runs in groups])
        for name in METRICS
    }
    checkpoints = {name: bootstrap.statistics(tables[name]) for name in CHECKPOINTS}
    against = {
        name: bootstrap.statistics([other - own for other, own in zip(tables[name], tables["selected"], strict=True)])
        for name in CHECKPOINTS
        if name != "selected"
    }
    both = [any(run.raw is not None for run in runs) for runs in groups]
    raw = {
        name: bootstrap.statistics([_table(runs, errors(runs, name, raw=True)) for runs in groups])
        for name in CHECKPOINTS
        if any(both)
    }
    return [
        GroupErrors(
            metrics={name: values[index] for name, values in metrics.items()},
            checkpoints={name: values[index] for name, values in checkpoints.items()},
            against={name: values[index] for name, values in against.items()},
            raw={name: values[index] for name, values in raw.items()} if both[index] else {},
        )
        if known[index]
        else None
        for index in range(len(groups))
    ]


def _differences(groups: dict[str, list[SeedRun]]) -> list[Difference]:
    rows = []
    for first, second in itertools.combinations(groups, 2):
        one, other = groups[first], groups[second]
        pairs = {
            "risk": (ranked(one), ranked(other)),
            "n_mpjpe_resolved": (errors(one, "selected"), errors(other, "selected")),
        }
        for metric, (left, right) in pairs.items():
            found = bootstrap.difference(_table(one, left), _table(other, right), median=metric == "risk")
            if found is not None:
                rows.append(
                    Difference(
                        metric=metric,
                        first=first,
                        second=second,
                        difference=found,
                        cliffs_delta=bootstrap.cliffs_delta(left, right),
                    )
                )
    return rows


def errors(runs: Sequence[SeedRun], checkpoint: str, metric: str = "n_mpjpe_resolved", *, raw: bool = False) -> Array:
    """One metric of one checkpoint of each run in mm, NaN where there is none; ``raw`` for its raw weights."""
    found = [run.error(checkpoint, metric, raw=raw) for run in runs]
    return np.array([np.nan if value is None else value for value in found], float)


def _table(runs: Sequence[SeedRun], values: Array) -> Array:
    """One value per run as (trials, seeds), NaN where a trial has fewer seeds."""
    trials = [list(items) for _, items in itertools.groupby(range(len(runs)), key=lambda i: runs[i].trial)]
    table = np.full((len(trials), max(map(len, trials), default=0)), np.nan)
    for row, indices in enumerate(trials):
        table[row, : len(indices)] = values[indices]
    return table
