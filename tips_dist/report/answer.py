"""What a study found, as one record: which configuration won, which network to use, what is better and how sure.

Made from a run folder and its summary alone; :mod:`tips_dist.report.answer_words` says it in words. Best
configurations and the network are chosen by risk, without truth; errors are quoted where there are any, of the test
split if it was measured.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tips_dist import bootstrap
from tips_dist.report.runs import SeedRun, ranked
from tips_dist.runfolder import RunFolder, Summary, layout
from tips_dist.runfolder.results import (
    Answer,
    BestConfiguration,
    Broken,
    Choosing,
    Comparison,
    Difference,
    Evaluation,
    MeasuredAnswer,
    Metrics,
    NextStep,
    Recommendation,
    RepresentationSummary,
    TrialSummary,
)
from tips_dist.stability.verdicts import is_sound

METRIC = "n_mpjpe_resolved"
SEE_REPORT = "See it all on one page"
FEW_SEEDS = 5  # per configuration; below, an interval over seeds is much too narrow

SeedMeans = Mapping[tuple[str, int], float]  # (trial, seed) -> mm
Array = NDArray[np.float64]


def find_answer(run: RunFolder, summary: Summary, runs: Sequence[SeedRun]) -> Answer:
    """The answer of a study, from its folder, its summary and its runs."""
    split, measured = measured_errors(run.evaluation, runs)
    of = {name: [item for item in runs if item.representation == name] for name in run.representations}
    best = [found for name in of if (found := _best(name, summary.trials, runs, run.evaluation)) is not None]
    recommended = _recommended(run)
    chosen = _chosen(best, runs, split, measured)
    look = run.selection.second_look if run.selection is not None else None
    pooled = [_pooled(row) for row in summary.differences]
    return Answer(
        best=best,
        recommended=recommended,
        chosen=chosen,
        pooled=pooled,
        broken=[_broken(name, items) for name, items in of.items() if items],
        choosing=[cost for group in summary.representations if (cost := _choosing(group)) is not None],
        steps=_steps(run, summary, recommended, chosen),
        plus_minus=None if look is None else look.plus_minus,
    )


# ------------------------------------------------------------------------------------------------ what won


def _best(
    representation: str, trials: Sequence[TrialSummary], runs: Sequence[SeedRun], evaluation: Evaluation | None
) -> BestConfiguration | None:
    judged = [(t.risk, t) for t in trials if t.representation == representation and t.risk is not None]
    if not judged:
        return None
    risk, trial = min(judged, key=lambda pair: pair[0].value)
    seeds = [item for item in runs if item.trial == trial.trial]
    return BestConfiguration(
        representation=representation,
        trial=trial.trial,
        parameters=trial.parameters,
        tried=len(judged),
        seeds=len(seeds),
        broken=sum(not is_sound(item.verdict) for item in seeds),
        risk=risk,
        errors={
            name: found
            for name, values in (("test", _test(evaluation)), ("validation", _validation(seeds)))
            if (found := bootstrap.statistic(error_row(seeds, values))) is not None
        },
    )


def _chosen(
    best: Sequence[BestConfiguration], runs: Sequence[SeedRun], split: str | None, measured: SeedMeans
) -> list[Comparison]:
    """Pairs of best configurations, by error where it was measured, else by risk."""
    found = []
    seeds = {one.trial: [item for item in runs if item.trial == one.trial] for one in best}
    for first, second in itertools.combinations(best, 2):
        for metric in (METRIC, "risk") if split else ("risk",):
            values = [
                ranked(seeds[one.trial])[None] if metric == "risk" else error_row(seeds[one.trial], measured)
                for one in (first, second)
            ]
            difference = bootstrap.difference(*values, median=metric == "risk")
            if difference is not None:
                found.append(
                    Comparison(
                        metric=metric,
                        first=first.representation,
                        second=second.representation,
                        difference=difference,
                        cliffs_delta=bootstrap.cliffs_delta(*(value.ravel() for value in values)),
                        pooled=False,
                        split=split if metric == METRIC else None,
                        first_trial=first.trial,
                        second_trial=second.trial,
                    )
                )
    return found


def _pooled(row: Difference) -> Comparison:
    return Comparison(**vars(row), pooled=True, split="validation" if row.metric == METRIC else None)


# ------------------------------------------------------------------------------------------------ errors


def measured_errors(evaluation: Evaluation | None, runs: Sequence[SeedRun]) -> tuple[str | None, SeedMeans]:
    """The best split that the checkpoints of seeds were measured on (None: none), and their errors in mm."""
    for split, found in (("test", _test(evaluation)), ("validation", _validation(runs))):
        if found:
            return split, found
    return None, {}


def _test(evaluation: Evaluation | None) -> SeedMeans:
    rows = evaluation.selected_test if evaluation is not None else ()
    return {(row.trial, row.seed): value for row in rows if (value := row.of(METRIC)) is not None}


def _validation(runs: Sequence[SeedRun]) -> SeedMeans:
    return {(run.trial, run.seed): value for run in runs if (value := run.error("selected", METRIC)) is not None}


def error_row(seeds: Sequence[SeedRun], values: SeedMeans) -> Array:
    """The errors of one trial's seeds as (1, seeds), NaN where there is none."""
    return np.array([[values.get((item.trial, item.seed), np.nan) for item in seeds]], dtype=float)


# ------------------------------------------------------------------------------------------------ what to use


def _recommended(run: RunFolder) -> Recommendation | None:
    """The student; before there is one, the teacher of lowest risk."""
    teachers = run.selection.teachers if run.selection else []
    names = [f"{item.trial} seed {item.seed} step {item.step}" for item in teachers]
    kind: Literal["student", "candidate"]
    if layout.STUDENT_WEIGHTS.at(run.path).exists():
        kind, file, found = "student", layout.STUDENT_WEIGHTS.pattern, _student_errors(run)
        if run.student is not None:
            names = [f"{item.trial} seed {item.seed} step {item.step}" for item in run.student.teachers]
    elif teachers:
        lowest = min(teachers, key=lambda item: item.risk)
        rows = run.evaluation.selected_test if run.evaluation else []
        one = [row for row in rows if (row.trial, row.seed, row.step) == (lowest.trial, lowest.seed, lowest.step)]
        kind, file, found = "candidate", lowest.file, _errors({"test": one[0]} if one else {})
    else:
        return None
    poses = run.study.data.path or "POSES"
    line = shlex.join(["tips-dist", "lift", str(run.path / file), poses, "-o", "lifted.npz", "--picture", "lifted.png"])
    return Recommendation(kind=kind, file=file, teachers=names, errors=found, lift=line)


def _student_errors(run: RunFolder) -> dict[str, MeasuredAnswer]:
    """What was measured of this very student; one that was taught since has no errors yet."""
    evaluation, student = run.evaluation, run.student
    if evaluation is None or (student and evaluation.student_digest not in (None, student.digest)):
        return {}
    return _errors(evaluation.student or {})


def _errors(splits: Mapping[str, Metrics]) -> dict[str, MeasuredAnswer]:
    found = {}
    for split, metrics in splits.items():
        value, ends = metrics.of(METRIC), metrics.interval.get(METRIC)
        if value is not None:
            low, high = ends or (None, None)
            found[split] = MeasuredAnswer(value=value, low=low, high=high, poses=metrics.poses)
    return found


# ------------------------------------------------------------------------------- what broke, what it cost


def _broken(representation: str, runs: Sequence[SeedRun]) -> Broken:
    broken = [item for item in runs if not is_sound(item.verdict)]
    reasons = Counter(re.sub(r"[-+]?\d[\d.e+-]*", "#", item.reason) for item in broken if item.reason)
    return Broken(
        representation=representation,
        runs=len(runs),
        broken=len(broken),
        verdicts=dict(Counter(item.verdict for item in broken).most_common()),
        reasons=dict(reasons.most_common()),
    )


def _choosing(group: RepresentationSummary) -> Choosing | None:
    if group.errors is None:
        return None
    selected, against = group.errors.checkpoints.get("selected"), group.errors.against
    best, last, random = (against.get(name) for name in ("best", "last", "random"))
    if selected is None or best is None or last is None or random is None:
        return None
    return Choosing(representation=group.representation, selected=selected, best=best, last=last, random=random)


def _steps(
    run: RunFolder, summary: Summary, recommended: Recommendation | None, chosen: Sequence[Comparison]
) -> list[NextStep]:
    """What to do next, the most urgent first."""
    folder, steps = str(run.path), []
    truth = _truth(run.study.data.path)

    def step(text: str, *command: str) -> None:
        steps.append(NextStep(text=text, command=shlex.join(["tips-dist", *command]) if command else None))

    open_trials = sum(count for state, count in summary.trial_states.items() if state in ("pending", "running"))
    if open_trials:
        step(f"{open_trials} of {len(summary.trials)} trials have not ended; finish the run", "resume", folder)
    failed = [trial.trial for trial in summary.trials if trial.state == "failed"]
    if failed:
        where = layout.ERROR.at(run.path, failed[0])
        step(f"{len(failed)} of {len(summary.trials)} trials failed; the first says why in {where}")
    if recommended is not None and recommended.kind == "candidate":
        step("Teach one student from the chosen candidates", "distill", folder)
    if not summary.evaluated:
        step("Measure errors in mm, on test too", "evaluate", folder, "--truth", truth)
    elif recommended is not None and not recommended.errors:
        step("The student is newer than the errors; measure it", "evaluate", folder, "--truth", truth)
    few = summary.study.seeds < FEW_SEEDS
    measured = [row for row in chosen if row.metric == METRIC]  # where errors are known, risks no longer count
    unsure = [row for row in measured or chosen if not row.sure]
    if unsure or (chosen and few):
        apart = "cannot be told apart" if len(unsure) == len(measured or chosen) else "cannot all be told apart"
        why = apart if unsure else "were compared on few seeds"
        step(f"Representations {why}: for a surer answer train more seeds, seeds: {4 * summary.study.seeds}")
    if not layout.REPORT.at(run.path).exists():
        step(SEE_REPORT, "report", folder)
    return steps


def _truth(poses: str | None) -> str:
    """Where the truth of a pose file usually lies; nothing looks whether it does."""
    found = Path(poses or "NAME.pose2d.h5")
    return str(found.with_name(found.name.removesuffix(".pose2d.h5") + ".truth3d.h5"))
