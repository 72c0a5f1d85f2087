"""The training loop: sample, step, evaluate, judge, keep, report. Read it top to bottom and you know the system.

A trial is a generator (:func:`course`): it yields its engine where steps are due, and whoever runs it takes them, alone
(:func:`train`) or together with other trials' (module ``together``). All else is each trial's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from tips_dist.config import Configuration
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.models import parameters_per_seed
from tips_dist.monitoring import Monitor, verdict_tag
from tips_dist.runfolder import HistoryRow, Outcome, SeedOutcome
from tips_dist.runfolder.records import CrossingSpan, Execution
from tips_dist.runfolder.spent import NOTHING, Spent
from tips_dist.stability.signals import readings
from tips_dist.stability.statistic import trial_risk
from tips_dist.stability.verdicts import KINDS, is_sound
from tips_dist.training import execution, freezing, records
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.identity import identity_of
from tips_dist.training.job import Job
from tips_dist.training.pieces import in_more
from tips_dist.training.players import Players
from tips_dist.training.sampling import Sampler
from tips_dist.training.state import State
from tips_dist.training.validation import rows_digest, validation_rows, validation_set


@dataclass(frozen=True)
class Progress:
    """What a run tells at each evaluation step."""

    step: int
    steps: int
    risk: float | None  # of the trial so far, see stability/statistic.py
    verdicts: dict[int, str]
    steps_per_second: float  # seed-steps
    active_seeds: int
    message: str = ""
    spent: Spent = NOTHING


class Interrupted(Exception):  # noqa: N818 (an outcome, not an error)
    """Training was asked to stop; its state is on disk and the same call goes on from there."""


class Material:
    """A data set as training takes it; trials that run as one program share it."""

    def __init__(self, poses: Poses) -> None:
        self.poses, self.scale = poses, normalisation_scale(poses)
        learnt = poses.rows("train")
        self.learnt = normalised(poses, learnt, self.scale)  # (N, 17, 2)
        self.present = None if poses.present[learnt].all() else poses.present[learnt]
        self._sampler: Sampler | None = None

    def sampler(self, players: Players) -> Sampler:
        """Batches for players; made for the first, and right for all of the same program."""
        if self._sampler is None:
            self._sampler = sampler_for(players, self.learnt, self.present)
        return self._sampler


class Taken(NamedTuple):
    """What a trial is told of the steps that it asked for."""

    seconds: float  # its share of the time that they took
    whole: bool = True  # False: asked to stop before the next evaluation step
    trials: int = 1  # that took them together
    note: str = ""  # for its progress


Course = Generator[Engine, "Taken | None", Outcome]


def train(
    configuration: Configuration,
    seeds: Sequence[int],
    poses: Poses,
    folder: Path,
    *,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    monitor: Monitor | None = None,
    workers: int = 1,
    plan: execution.Plan | None = None,
    thaw: Sequence[int] = (),
) -> Outcome:
    """Train all seeds of a configuration as one packed program, going on from ``folder``'s checkpoint if it has one.

    Where memory is too short for a step of all seeds at once, they take it piece by piece (module ``pieces``).

    Args:
        configuration: everything that decides the numbers besides the seeds.
        seeds: random starts; seed k gives the same run whatever it is packed with.
        poses: the 2D data; ``train`` rows are learnt from, ``validation`` rows judged on.
        folder: the trial's own folder; history, depths, candidates and checkpoints are written below it.
        report: called at each evaluation step; an exception it raises ends the run.
        should_stop: polled at each step; when true the state is saved and :class:`Interrupted` raised.
        threads: torch threads of all workers together; ``None`` leaves them alone.
        device: where to train; several workers on "cuda" take a card each.
        monitor: a TensorBoard writer, or ``None``.
        workers: processes that train together, each on its share of every batch; the numbers do not depend on it.
        plan: instead of threads, device and workers, when workers are on several machines.
        thaw: seeds that no verdict but ``non_finite`` stops; those that are frozen go on from where they stopped.

    Raises:
        UserError: the data or the checkpoint do not fit the configuration, or the batch not the workers or memory.
        StorageError: a write failed; the last good checkpoint was kept.
    """
    plan = plan or execution.Plan(workers, threads, device)
    job, material = Job(configuration, seeds, folder, report, monitor, thaw), Material(poses)
    if plan.threads_each:
        torch.set_num_threads(plan.threads_each)
    while True:
        try:
            return _alone(course(job, material, plan), should_stop)
        except RuntimeError as error:
            more = in_more(plan.pieces, len(seeds), error)
        plan = dataclasses.replace(plan, pieces=more)  # and go on from the last checkpoint
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _alone(running: Course, should_stop: Callable[[], bool] | None) -> Outcome:
    """Run a trial by itself: its own state takes the steps."""
    taken: Taken | None = None
    with contextlib.closing(running):
        try:
            while True:
                engine = running.send(taken)
                began = time.perf_counter()
                try:
                    whole = engine.advance(should_stop)
                except Exception as error:  # the trial ends as if it had raised it
                    running.throw(error)
                    raise
                note = f"memory is short: a step takes the seeds in {engine.pieces} pieces" if engine.pieces > 1 else ""
                taken = Taken(time.perf_counter() - began, whole, note=note)
        except StopIteration as ended:
            outcome: Outcome = ended.value
            return outcome


def course(job: Job, material: Material, plan: execution.Plan) -> Course:
    """One trial: yields its engine where steps are due, up to the next evaluation step; whoever runs it takes them.

    Returns:
        How its seeds ended.

    Raises:
        Interrupted: it was told that it is to stop; its state is saved.
        Exception: what :func:`train` raises.
    """
    configuration, training, thaw, monitor = job.configuration, job.configuration.training, job.thaw, job.monitor
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(execution.workers(plan, configuration))
        state, together = State(configuration, tuple(job.seeds), plan.device_of(0), group), 1
        identity = identity_of(configuration, material.poses.digest, material.scale)
        record = stack.enter_context(records.Recorder(job.folder, configuration, state.seeds, identity))
        record.restore(state)
        freezing.thaw(state, record, thaw)
        execution.lead(state, material.learnt, plan, material.present)
        engine = Engine(state, material.sampler(state), plan.pieces)
        validation = validation_set(material.poses, configuration, material.scale).to(state.device)
        parameters = {
            name: parameters_per_seed(net, len(state.active or state.seeds)) for name, net in state.networks.items()
        }

        while state.active and state.step < training.steps:
            began, first = time.perf_counter(), state.step

            # --- Sample and step, up to the next evaluation step -----------------------------------------------------
            taken = yield engine
            assert taken is not None
            stepped, together = time.perf_counter(), max(together, taken.trials)
            state.seconds += taken.seconds
            state.spent = state.spent.plus(steps=taken.seconds)
            if not taken.whole:
                record.checkpoint(state)
                record.finish(state)
                raise Interrupted(f"stopped at step {state.step}; the state is saved")

            # --- Evaluate: signals from held-out 2D poses and fixed views --------------------------------------------
            measured = engine.measure(validation)

            # --- Judge: risk and verdict per seed --------------------------------------------------------------------
            rows, ended = [], []
            for seed, values in zip(state.active, readings(measured.signals), strict=True):
                judge = state.judges[seed]
                before = judge.verdict.kind
                verdict = judge.update(state.step, values)
                rows.append(HistoryRow(state.step, seed, values["risk/total"], verdict.kind, values))
                if verdict.kind != before and monitor is not None:
                    monitor.verdict(state.step, seed, verdict.kind, verdict.reason, verdict.onset)
                if freezing.ends(state, seed, verdict, thaw):
                    ended.append(seed)
                    state.stopped[seed] = state.step

            # --- Keep: candidates by risk, depths of this step, history ----------------------------------------------
            judged = time.perf_counter()
            state.spent = state.spent.plus(evaluation=judged - stepped)
            record.keep(state, rows, measured)
            now = time.perf_counter()
            state.seconds += now - stepped
            speed = (state.step - first) * len(state.active) / (now - began)
            if monitor is not None:
                told = [{"seed": row.seed, "verdict": row.verdict, **row.signals} for row in rows]
                monitor.evaluation(state.step, [*told, _whole(state, speed)], seeds_only=bool(state.round))
                monitor.poses(state.step, state.active, validation.poses, measured.depths)
            freezing.freeze(state, record, ended)
            state.compact(ended)
            finished = state.step == training.steps or not state.active
            if finished or state.step % (training.checkpoint_every * training.evaluate_every) == 0:
                record.checkpoint(state)  # written while the next steps are taken

            # --- Thaw: stopped seeds that are to go on ---------------------------------------------------------------
            execution.tell(state, ended, changed=freezing.thaw(state, record, thaw))

            # --- Report ----------------------------------------------------------------------------------------------
            if job.report is not None:
                job.report(_progress(state, speed, taken.note))
            state.spent = state.spent.plus(records=time.perf_counter() - judged)

        record.finish(state)
    return Outcome(
        seeds=[_outcome(state, seed) for seed in state.seeds],
        training_seconds=state.seconds,
        parameters=parameters,
        execution=Execution(workers=plan.workers, matmul=state.matmul, precision=state.precision, trials=together),
        judged_on=rows_digest(validation_rows(material.poses, training.validation_poses)),
        spent=state.spent,
    )


def _whole(state: State, speed: float) -> dict[str, float | None]:
    """What TensorBoard shows of the trial as a whole."""
    kinds = Counter(judge.verdict.kind for judge in state.judges.values())
    unbroken = sum(is_sound(judge.verdict.kind) for judge in state.judges.values())
    whole = {"throughput/steps_per_second": speed, "risk/best": _lowest_risk(state), "risk/unbroken_seeds": unbroken}
    return whole | {verdict_tag(kind): kinds[kind] for kind in KINDS}


def _lowest_risk(state: State) -> float | None:
    """The trial's risk so far."""
    return trial_risk(
        (state.best[seed][0] if seed in state.best else None, judge.verdict.kind)
        for seed, judge in state.judges.items()
    )


def _progress(state: State, speed: float, note: str) -> Progress:
    return Progress(
        step=state.step,
        steps=state.configuration.training.steps,
        risk=_lowest_risk(state),
        verdicts={seed: judge.verdict.kind for seed, judge in state.judges.items()},
        steps_per_second=speed,
        active_seeds=len(state.active),
        message="; ".join(filter(None, (state.note, note))),
        spent=state.spent,
    )


def _outcome(state: State, seed: int) -> SeedOutcome:
    judge = state.judges[seed]
    verdict = judge.verdict
    best_risk, best_step = state.best.get(seed, (None, None))
    return SeedOutcome(
        seed=seed,
        verdict=verdict.kind,
        reason=verdict.reason,
        onset=verdict.onset,
        stopped_step=state.reached(seed),
        frozen=state.frozen.get(seed),
        thawed=state.thawed.get(seed),
        best_risk=best_risk,
        best_step=best_step,
        values=dict(verdict.values),
        candidates=[one.about.step for one in state.candidates[seed]],
        crossings=[CrossingSpan(**dataclasses.asdict(one)) for one in judge.crossings],
        settled=judge.settled,
    )
