"""Optuna behind the study: proposes trials, writes their records, learns how they ended. Knows nothing of Ray.

One Optuna study per representation, with equal budgets, in one journal in the run folder (or any Optuna storage).
Optuna is asked and told; nothing of ours lives in memory only. The record `trials/<id>/trial.json` is written before
a trial is handed out, and Optuna's trial carries our id, so that after a kill at any instant the two can be matched.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from tips_dist.addresses import redacted
from tips_dist.config import SEARCH_STORAGE, Study
from tips_dist.files import UserError
from tips_dist.runfolder import StudyRecord, Trial, layout, read_trials
from tips_dist.runfolder import TrialState as State
from tips_dist.runfolder.record import Json
from tips_dist.runfolder.records import Parameter
from tips_dist.stability.verdicts import is_sound
from tips_dist.study import space
from tips_dist.study.artifacts import attach_curve
from tips_dist.study.records import patiently
from tips_dist.study.samplers import make_sampler

DRAWN_STEPS = 50  # intermediate values of a trial, for dashboards
OPEN = (TrialState.RUNNING, TrialState.WAITING)


class TrialSearch:
    """The search of one study: which trial comes next, and what became of the others."""

    def __init__(self, study: Study, run: Path) -> None:
        """Open (or create) the Optuna storage of ``run``; call :meth:`recover` before anything else.

        Raises:
            UserError: ``search.storage`` cannot be opened.
            StorageError: the journal cannot be written.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study, self.run = study, run
        storage = patiently(lambda: open_storage(study, run))
        self.studies = {name: open_study(study, study_name(run, name), storage) for name in study.representations}
        for name, opened in self.studies.items():
            if "run" not in opened.user_attrs:
                patiently(functools.partial(self._introduce, opened, name))
        self._issued: dict[str, set[int]] = {name: set() for name in study.representations}  # numbers of trials
        self._next: dict[str, int] = {}  # below it every number is issued
        self._lost: dict[str, FrozenTrial] = {}  # our id -> Optuna's trial that has no record
        self._numbers: dict[str, int] = {}  # our id -> Optuna's trial number
        self._live: dict[str, optuna.Trial] = {}
        self._known: Counter[str] = Counter()  # representation -> trials that have ended

    def _introduce(self, opened: optuna.Study, representation: str) -> None:
        """What a dashboard should show of the study; the run's name comes last, so that a kill leaves nothing out."""
        about: Json = {"name": self.study.name, "representation": representation, "seeds": self.study.seeds}
        if layout.STUDY.at(self.run).exists():
            about["data_digest"] = StudyRecord.load(layout.STUDY.at(self.run)).data.digest
        for key, value in {**about, "run": self.run.name}.items():
            opened.set_user_attr(key, value)

    # ------------------------------------------------------------------ after a start or a kill

    def recover(self) -> list[Trial]:
        """Make Optuna agree with the records and return the trials that are not finished, oldest first.

        Records are the truth: an Optuna trial whose record is final is told that; a record that Optuna has lost is
        given back to it. An Optuna trial without a record gets it anew when its number is proposed again.
        """
        records = {trial.id: trial for trial in read_trials(self.run)}
        self._lost, self._next = {}, {}
        self._issued = {name: set() for name in self.study.representations}
        for trial in records.values():
            self._issued[trial.representation].add(trial.number)
        for representation, study in self.studies.items():
            known: set[str] = set()
            for frozen in study.get_trials(deepcopy=False):
                identity = frozen.user_attrs.get("trial")
                if identity in records and identity not in known:
                    known.add(identity)
                    self._numbers[identity] = frozen.number
                elif isinstance(identity, str) and identity not in known and identity.startswith(f"{representation}-"):
                    self._lost[identity] = frozen
                elif not frozen.state.is_finished():
                    study.tell(frozen.number, state=TrialState.FAIL)
            for trial in records.values():
                if trial.representation == representation:
                    if trial.id not in known:
                        self._give_back(study, trial)
                    if trial.state.final:
                        self.tell(trial)
            self._known[representation] = sum(one.state.is_finished() for one in study.get_trials(deepcopy=False))
        return [trial for trial in records.values() if not trial.state.final]

    def _give_back(self, study: optuna.Study, trial: Trial) -> None:
        distributions = space.optuna_distributions(space.dimensions(self.study, trial.representation))
        study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params=trial.parameters,
                distributions=distributions,
                user_attrs=self._about(trial.representation, trial.id),
            )
        )
        self._numbers[trial.id] = study.get_trials(deepcopy=False)[-1].number

    # ------------------------------------------------------------------ asking

    def remaining(self) -> int:
        """How many trials are still to be proposed."""
        return sum(
            max(0, space.budget(self.study, name) - len(self._issued[name])) for name in self.study.representations
        )

    def known(self, representation: str) -> int:
        """How many trials of a representation have ended, as far as its sampler knows."""
        return self._known[representation]

    def propose(self, of: str | None = None) -> Trial | None:
        """The next trial, its record already on disk; None when every representation has its budget.

        Representations take turns: the one with the fewest trials comes next; or the next one ``of`` a representation.
        """
        open_names = [
            name
            for name in self.study.representations
            if len(self._issued[name]) < space.budget(self.study, name) and of in (None, name)
        ]
        if not open_names:
            return None
        name = min(open_names, key=lambda item: len(self._issued[item]))
        number = self._next.get(name, 0)
        while number in self._issued[name]:
            number += 1
        trial = patiently(lambda: self._ask(name, number))
        self._issued[name].add(number)
        self._next[name] = number + 1
        return trial

    def _ask(self, representation: str, number: int) -> Trial:
        identity = f"{representation}-{number:03d}"
        lost = self._lost.get(identity)
        if lost is not None:
            parameters = dict(lost.params)
            self._numbers[identity] = lost.number
        else:
            knew = self.known(representation)
            asked = self._draw(representation, number)
            asked.set_user_attr("knew", knew)  # so many ended trials did the sampler draw on
            for key, value in self._about(representation, identity).items():
                asked.set_user_attr(key, value)
            parameters = dict(asked.params)
            self._numbers[identity] = asked.number
            self._live[identity] = asked
        return Trial(
            id=identity,
            representation=representation,
            number=number,
            parameters=parameters,
            configuration=self.study.configuration(representation, parameters),
            seeds=[self.study.seed + index for index in range(self.study.seeds)],
        ).write(self.run)

    def _about(self, representation: str, identity: str) -> dict[str, str]:
        """What a dashboard shows of a trial, our id first: by it Optuna's trial and the record find each other."""
        folder = f"{self.run.name}/{layout.TRIALS}/{identity}"
        return {"trial": identity, "representation": representation, "folder": folder}

    def _draw(self, representation: str, number: int) -> optuna.Trial:
        study = self.studies[representation]
        dimensions = space.dimensions(self.study, representation)
        drawn = space.draw(self.study, representation, number)
        base = make_sampler(self.study, representation, number) if drawn is None else optuna.samplers.RandomSampler()
        fixed = {**(drawn or {}), **self._enqueued(dimensions, number)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PartialFixedSampler and GPSampler are marked experimental
            study.sampler = optuna.samplers.PartialFixedSampler(fixed, base)
            return study.ask(space.optuna_distributions(dimensions))

    def _enqueued(self, dimensions: Mapping[str, Any], number: int) -> dict[str, Parameter]:
        points = self.study.search.enqueue
        point = points[number] if number < len(points) else {}
        return {key: value for key, value in point.items() if key in dimensions}

    # ------------------------------------------------------------------ telling

    def report(self, identity: str, representation: str, step: int, risk: float) -> bool:
        """Record a trial's risk at a step; True if the scheduler (``search.scheduler``) would stop it now.

        Without a scheduler some steps are recorded, for dashboards to draw. Optuna takes none of a study with several
        objectives.
        """
        idle = self.study.search.scheduler == "none"
        if len(self.study.search.objectives) > 1 or (idle and not self._shown(step)):
            return False
        trial = self._live.get(identity)
        if trial is None:  # issued by an earlier process
            study = self.studies[representation]
            trial = self._live[identity] = optuna.Trial(study, self._key(study, identity))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed trial tells a step again, the same value
            trial.report(risk, step)
        return not idle and trial.should_prune()

    def _shown(self, step: int) -> bool:
        """Whether a dashboard gets this step: evenly spaced ones, :data:`DRAWN_STEPS` at most."""
        training = self.study.training
        return step % (training.evaluate_every * math.ceil(training.steps / training.evaluate_every / DRAWN_STEPS)) == 0

    def tell(self, trial: Trial) -> None:
        """Tell Optuna how a trial ended, once: a trial that it holds as finished is left as it is.

        Finished with a value: COMPLETE. Stopped by the scheduler, or so many seeds ended badly that the objective
        has no value: PRUNED, with the reason. Failed: FAIL, with the error.
        """
        self._live.pop(trial.id, None)
        study = self.studies[trial.representation]
        frozen = self._frozen(study, trial)
        if frozen.state.is_finished():
            return
        self._known[trial.representation] += 1
        values = space.objective(trial.outcome, self.study.search.objectives) if trial.state is State.FINISHED else None
        storage, key = study._storage, frozen._trial_id
        for name, value in describe(trial).items():
            storage.set_trial_user_attr(key, name, value)
        attach_curve(self.run, trial, frozen, storage)
        if values is not None:
            study.tell(frozen.number, values)
        elif trial.state is State.FAILED:
            study.tell(frozen.number, state=TrialState.FAIL)
        else:
            study.tell(frozen.number, state=TrialState.PRUNED)

    def _frozen(self, study: optuna.Study, trial: Trial) -> FrozenTrial:
        return study._storage.get_trial(self._key(study, trial.id))

    def _key(self, study: optuna.Study, identity: str) -> int:
        """The storage's own number of a trial, found without going through all trials."""
        return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, self._numbers[identity])


def describe(trial: Trial) -> Json:
    """What a dashboard should show beside a trial's value.

    Verdicts and the risk of every seed, how far and how long it trained, why it has no value, the error.
    """
    seeds = trial.seed_outcomes
    verdicts: Json = dict(Counter(seed.verdict for seed in seeds))
    result: Json = {
        "state": trial.state.value,
        "verdicts": verdicts,
        "risks": {str(seed.seed): seed.best_risk for seed in seeds},
        "steps": max((seed.stopped_step for seed in seeds), default=0),
        "seconds": trial.wall_seconds,
    }
    reasons: list[JsonValue] = [f"seed {s.seed}: {s.verdict}: {s.reason}" for s in seeds if not is_sound(s.verdict)]
    if trial.state is State.STOPPED:
        reasons.insert(0, trial.error or "stopped by the scheduler")
    if reasons:
        result["reasons"] = reasons
    if trial.state is State.FAILED:
        result["error"] = trial.error
    return result


def study_name(run: Path, representation: str) -> str:
    """The Optuna study's name: the run folder's name and the representation."""
    return f"{run.name}/{representation}"


def open_study(study: Study, name: str, storage: BaseStorage) -> optuna.Study:
    """Open one representation's Optuna study, or create it; opening writes nothing."""
    pruner = make_pruner(study)
    if name in optuna.get_all_study_names(storage):
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    objectives: list[str] = list(study.search.objectives)
    directions = [optuna.study.StudyDirection.MINIMIZE] * len(objectives)
    created = optuna.create_study(study_name=name, storage=storage, directions=directions, pruner=pruner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # marked experimental
        created.set_metric_names(objectives)
    return created


def open_storage(study: Study, run: Path) -> BaseStorage:
    """The journal in the run folder, repaired if a kill or a full disk cut its last line.

    For ``search.storage: environment`` it is what the variable :data:`tips_dist.config.SEARCH_STORAGE` names; its value
    may hold a password, so it is never written or shown.

    The caller holds the run's lock, so a journal lock left behind by a dead process may be taken away.
    """
    if study.search.storage is not None:
        url = os.environ.get(SEARCH_STORAGE)
        if not url:
            raise UserError(f"search.storage: environment: set {SEARCH_STORAGE} to an Optuna storage's address")
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # each kind of storage raises its own, with the address in it
            kind = f"{redacted(url)}: cannot be opened ({type(error).__name__})"
            raise UserError(f"search.storage: {SEARCH_STORAGE}: {kind}") from None
    path = layout.JOURNAL.at(run)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(path.name + ".lock").unlink()
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as stream:
                stream.truncate(whole)
    return JournalStorage(JournalFileBackend(str(path)))


def make_pruner(study: Study) -> optuna.pruners.BasePruner:
    """The scheduler, as an Optuna pruner: its knowledge is the journal, so it survives a restart."""
    interval = study.training.evaluate_every
    match study.search.scheduler:
        case "asha":
            least = max(interval, study.training.steps // 9)
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=3)
        case "median":
            return optuna.pruners.MedianPruner(
                n_startup_trials=4, n_warmup_steps=study.training.steps // 5, interval_steps=interval
            )
        case _:
            return optuna.pruners.NopPruner()
