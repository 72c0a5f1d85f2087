"""Which frozen seeds go on: those that a person names, or those that the study's saved steps are given back to.

A trial whose seeds are to go on is pending again, with their numbers in its record; a worker takes it up like any other
and the training loop does the rest (:mod:`tips_dist.training.freezing`). A trial that was stopped as a whole goes on
from its last checkpoint: the steps since are computed again, to the same numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tips_dist.config import Study
from tips_dist.files import UserError
from tips_dist.runfolder import StudyRecord, Trial, TrialState, layout, read_trials
from tips_dist.runfolder.budget import budget_of, frozen_seeds
from tips_dist.runfolder.weights import read_frozen_record
from tips_dist.stability.verdicts import is_sound, kind_of
from tips_dist.study import space
from tips_dist.study.folder import extend

Chosen = dict[str, list[int]]  # trial -> seeds
NOTHING = "nothing is frozen{among}, so nothing was thawed (versions before this one kept no seed that was stopped)"


def thaw_seeds(run: Path, selectors: Sequence[str]) -> list[str]:
    """Let frozen seeds go on: those that one of the ``selectors`` names, all of them where there is none.

    Args:
        run: the run folder, whose lock we hold.
        selectors: ``TRIAL``, ``TRIAL:SEED`` or a verdict.

    Returns:
        What is thawed, or why nothing is, one line each.

    Raises:
        UserError: a selector names nothing of this run.
    """
    trials = read_trials(run)
    _check(run, trials, selectors)
    notes: list[str] = []
    chosen: Chosen = {}
    for trial in trials:
        wanted = [seed for seed in _frozen(run, trial, notes) if _wanted(trial, seed, selectors)]
        if wanted:
            chosen[trial.id] = wanted
    if not chosen:
        return [*notes, f"{run}: {NOTHING.format(among=' among ' + ', '.join(selectors) if selectors else '')}"]
    notes += [f"thawed: {identity} seed {', '.join(map(str, seeds))}" for identity, seeds in chosen.items()]
    _reopen(run, trials, chosen)
    return notes


def give_back(run: Path, record: StudyRecord) -> StudyRecord | None:
    """Give the steps that stopping saved to what ``stopping.freed`` says, once all trials have ended.

    ``thaw``: to frozen seeds that look promising, the lowest risk first, as long as the saved steps suffice. Promising
    is a seed whose verdict distrusts no later candidate (one of a seed that diverged could not be chosen) and whose
    lowest risk is at most the median of its representation's. ``trials``: to further trials, as many to every
    representation, as long as the saved steps suffice.

    Returns:
        The record to go on with; None where there is nothing (more) to do.
    """
    trials, study = read_trials(run), record.study
    if study.stopping.freed == "speed" or not all(trial.state.final for trial in trials):
        return None
    left = saved_steps(record, trials)
    if study.stopping.freed == "thaw":
        chosen = _affordable(run, trials, left)
        _reopen(run, trials, chosen)
        return record if chosen else None
    more = left // (study.training.steps * study.seeds * len(study.representations))
    try:
        return extend(run, record, more, freed=True) if more else None
    except UserError:  # the search space has no further points
        return None


def saved_steps(record: StudyRecord, trials: Sequence[Trial]) -> int:
    """Seed-steps that stopping saved and nobody has got yet: further trials have, and seeds that were thawed."""
    asked = record.asked
    given = [trial for trial in trials if trial.number >= space.budget(asked, trial.representation)]
    return budget_of(trials).saved - sum(trial.steps * len(trial.seeds) for trial in given)


def one_seed(study: Study) -> str | None:
    """Why ``stopping.trials: test`` stops no trial of this study; None if it may."""
    if study.stopping.trials == "off" or study.seeds > 1:
        return None
    return "stopping.trials: test compares trials by the spread of their seeds; with one seed each it stops none"


def _affordable(run: Path, trials: Sequence[Trial], left: int) -> Chosen:
    sound: dict[str, list[float]] = {}
    for trial in trials:
        for seed in trial.seed_outcomes:
            if is_sound(seed.verdict) and seed.best_risk is not None:
                sound.setdefault(trial.representation, []).append(seed.best_risk)
    promising = []
    for trial in trials:
        frozen = _frozen(run, trial, []) if trial.state is TrialState.FINISHED else []
        for seed in trial.seed_outcomes:
            risk = seed.best_risk if seed.seed in frozen and _can_gain(seed.verdict) else None
            if risk is not None and risk <= statistics.median(sound[trial.representation]):
                promising.append((risk, trial.id, seed.seed, trial.steps - seed.stopped_step))
    chosen: Chosen = {}
    for _, identity, seed_number, cost in sorted(promising):
        if cost <= left:
            left -= cost
            chosen.setdefault(identity, []).append(seed_number)
    return chosen


def _can_gain(verdict: str) -> bool:
    """Whether a candidate of further training could be chosen."""
    return kind_of(verdict).sound and not kind_of(verdict).tainted


def _reopen(run: Path, trials: Sequence[Trial], chosen: Chosen) -> None:
    for trial in trials:
        if trial.id in chosen:
            seeds = sorted({*trial.thaw, *chosen[trial.id]}, key=trial.seeds.index)
            trial.now(state=TrialState.PENDING, thaw=seeds, error=None, ended=None, stopped_step=None).write(run)


def _frozen(run: Path, trial: Trial, notes: list[str]) -> list[int]:
    """The seeds of a trial that can go on; of one whose state is lost, a line is added to ``notes``."""
    if trial.state is TrialState.STOPPED:
        return frozen_seeds(trial)
    if trial.state is TrialState.FAILED:
        return []
    folder = layout.FROZEN.at(run, trial.id).parent
    if trial.state is TrialState.FINISHED:
        asked = frozen_seeds(trial)
    else:  # interrupted: its files say who was stopped by then
        asked = [
            seed for seed in trial.seeds if seed not in trial.thaw and (folder / layout.frozen_name(seed)).exists()
        ]
    found = []
    for seed in asked:
        try:
            read_frozen_record(folder / layout.frozen_name(seed))
            found.append(seed)
        except UserError as error:
            notes.append(f"{error}; {trial.id} seed {seed} stays where it stopped")
    return found


def _wanted(trial: Trial, seed: int, selectors: Sequence[str]) -> bool:
    if not selectors or trial.id in selectors or f"{trial.id}:{seed}" in selectors:
        return True
    return any(one.seed == seed and one.verdict in selectors for one in trial.seed_outcomes)


def _check(run: Path, trials: Sequence[Trial], selectors: Sequence[str]) -> None:
    """Refuse a selector that names nothing, and single seeds of a trial that was stopped as a whole."""
    of = {trial.id: trial for trial in trials}
    verdicts = {seed.verdict for trial in trials for seed in trial.seed_outcomes}
    for selector in selectors:
        identity, colon, seed = selector.partition(":")
        if selector in verdicts or (identity in of and not colon):
            continue
        if identity not in of or seed not in map(str, of[identity].seeds):
            raise UserError(
                f"--thaw {selector}: names nothing of {run}; expected TRIAL, TRIAL:SEED or a verdict, such as "
                f"{trials[0].id if trials else 'solo-000'}:{trials[0].seeds[0] if trials else 0}"
            )
        if of[identity].state is TrialState.STOPPED:
            raise UserError(f"--thaw {selector}: {identity} was stopped as a whole; thaw it as a whole: {identity}")
