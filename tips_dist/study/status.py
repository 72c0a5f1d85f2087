"""Where a study stands, by reading its run folder."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from tips_dist.config import Study
from tips_dist.files import StorageError, UserError
from tips_dist.mirror import mirrored_by
from tips_dist.phases import Phase
from tips_dist.runfolder import Alive, RunFolder, Trial, TrialState, layout, read_trials
from tips_dist.runfolder.budget import budget_of
from tips_dist.runfolder.lock import holder
from tips_dist.runfolder.records import Holder, PhaseRecord
from tips_dist.stability.statistic import trial_risk
from tips_dist.study import space

TO_COME = "to_come"  # in the counts of states: trials that the search has not proposed yet

INTERRUPTED = "interrupted"  # and of those whose driver was killed


@dataclass(frozen=True)
class RunningTrial:
    """A trial under way, by its last sign of life."""

    trial: str
    step: int
    steps: int
    risk: float | None
    verdicts: dict[str, int]
    steps_per_second: float | None
    attempts: int
    host: str | None
    stuck: str | None  # why it does not move, if it does not


@dataclass(frozen=True)
class Status:
    """Where a study stands."""

    run: str
    name: str
    working: Holder | None  # who holds the lock
    done: bool
    selected: bool
    distilled: bool
    trials: dict[str, int]  # state -> number, with "to_come"
    seeds: dict[str, int]  # verdict -> number, of finished and running trials
    frozen: int  # seeds that were stopped and can go on: tips-dist resume RUN --thaw
    revived: int  # seeds that went on
    best_risk: float | None  # the lowest risk of a trial (stability/statistic.py); None if there is none yet
    running: list[RunningTrial]
    doing: str  # what happens just now, in words
    failed: dict[str, str | None]  # trial -> error
    seconds_left: float | None  # an estimate from the trials finished

    def plain(self) -> dict[str, JsonValue]:
        """As JSON values."""
        return {**asdict(self), "working": None if self.working is None else self.working.model_dump(mode="json")}


def status(run: Path) -> Status:
    """Where a study stands, by reading its folder; works while it runs and after it died.

    Raises:
        UserError: this is not a run folder, or a record in it is damaged.
    """
    run = run.resolve()
    record = RunFolder(run).study
    study = record.study
    working = holder(run) or mirrored_by(run)
    trials = read_trials(run)
    states = Counter(_state(trial, working) for trial in trials)
    states[TO_COME] = space.budgets(study) - len(trials)
    running = [_running(run, trial, working, study) for trial in trials if trial.state is TrialState.RUNNING]
    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]  # one that was thawed has an outcome
    verdicts = Counter(seed.verdict for trial in ended for seed in trial.seed_outcomes)
    spent = budget_of(trials)
    for entry in running:
        verdicts.update(entry.verdicts)
    risks = [trial_risk((seed.best_risk, seed.verdict) for seed in trial.seed_outcomes) for trial in trials]
    known = [risk for risk in (*risks, *(entry.risk for entry in running)) if risk is not None]
    done = all(trial.state.final for trial in trials) and states[TO_COME] <= 0
    return Status(
        run=str(run),
        name=record.name,
        working=working,
        done=done,
        selected=layout.SELECTION.at(run).exists(),
        distilled=layout.STUDENT.at(run).exists(),
        trials=dict(states),
        seeds=dict(verdicts),
        frozen=spent.frozen,
        revived=spent.revived,
        best_risk=min(known, default=None),
        running=running,
        doing=_doing(run, working, running, done=done),
        failed={trial.id: trial.error for trial in trials if trial.state is TrialState.FAILED},
        seconds_left=_seconds_left(trials, running, states[TO_COME]),
    )


class PhaseNote:
    """Keeps ``phase.json``, so that ``status`` knows what happens after training; a phase that ends takes it away."""

    def __init__(self, run: Path) -> None:
        self._path, self._written = layout.PHASE.at(run), 0.0
        self._open: dict[str, Phase] = {}  # phases under way, the innermost last

    def __call__(self, phase: Phase) -> None:
        """Hear of a phase; its progress is written twice a second at most."""
        now = time.monotonic()
        if phase.ended:
            self._open.pop(phase.name, None)
            outer = next(reversed(self._open.values()), None)
            if outer is None:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
                return
            phase = outer
        fresh = phase.name not in self._open or not phase.done
        self._open[phase.name] = phase
        if fresh or now - self._written > 0.5:
            self._written = now
            with contextlib.suppress(StorageError):  # whoever works notices a full disk by itself
                PhaseRecord(host=socket.gethostname(), pid=os.getpid(), words=phase.words()).save(self._path)


def _doing(run: Path, working: Holder | None, running: Sequence[RunningTrial], *, done: bool) -> str:
    """What happens just now, until there is nothing more to do."""
    found = None
    with contextlib.suppress(UserError):
        found = PhaseRecord.load(layout.PHASE.at(run))
    if found is not None and (working is not None or _lives(found)):
        return found.words
    if working is not None:
        return f"training {len(running)} trials" if not done else "ending"
    if not done:
        return f"nobody works on this run; go on with: tips-dist resume {run}"
    return "nothing; it is done" if layout.STUDENT.at(run).exists() else f"nothing; teach with: tips-dist distill {run}"


def _lives(found: PhaseRecord) -> bool:
    """Whether the process that wrote a phase still works, as far as this machine can tell."""
    return found.host == socket.gethostname() and Path(f"/proc/{found.pid}").exists()


def _state(trial: Trial, working: Holder | None) -> str:
    """A trial's state; one whose driver was killed runs no more, whatever its record says."""
    return INTERRUPTED if trial.state is TrialState.RUNNING and working is None else str(trial.state)


def _running(run: Path, trial: Trial, working: Holder | None, study: Study) -> RunningTrial:
    path = layout.ALIVE.at(run, trial.id)
    try:
        alive, age = Alive.load(path), time.time() - path.stat().st_mtime
    except (UserError, OSError):  # not there yet, or being replaced
        alive, age = Alive(host="", pid=0), 0.0
    stuck = None
    if working is None:
        stuck = f"nobody works on this run; 'tips-dist resume {run}' goes on with it"
    elif age > study.resources.heartbeat_seconds:
        stuck = f"no sign of life from process {alive.pid} on {alive.host} for {age:.0f} s"
    return RunningTrial(
        trial=trial.id,
        step=alive.step,
        steps=trial.steps,
        risk=alive.risk,
        verdicts=alive.verdicts,
        steps_per_second=alive.steps_per_second,
        attempts=trial.attempts,
        host=alive.host or None,
        stuck=stuck,
    )


def _seconds_left(trials: Sequence[Trial], running: Sequence[RunningTrial], to_come: int) -> float | None:
    ended = [trial.wall_seconds for trial in trials if trial.state.final and trial.wall_seconds > 0]
    if not ended:
        return None
    mean = sum(ended) / len(ended)
    pending = sum(trial.state is TrialState.PENDING for trial in trials)
    under_way = sum(mean * (1 - min(1.0, entry.step / max(1, entry.steps))) for entry in running)
    seconds = (mean * (max(0, to_come) + pending) + under_way) / max(1, len(running))
    return round(float(seconds), 1)
