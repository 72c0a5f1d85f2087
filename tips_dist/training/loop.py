"""The training loop: sample, step, evaluate, judge, keep, report. Read it top to bottom and you know the system."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tips_dist.config import Configuration
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.models import parameters_per_seed
from tips_dist.monitoring import Monitor, verdict_tag
from tips_dist.runfolder import HistoryRow, Outcome, SeedOutcome
from tips_dist.runfolder.records import Execution
from tips_dist.stability.signals import readings
from tips_dist.stability.statistic import trial_risk
from tips_dist.stability.verdicts import KINDS, ends_seed, is_sound
from tips_dist.training import execution, precision, records
from tips_dist.training.identity import identity_of
from tips_dist.training.state import State
from tips_dist.training.validation import validation_set


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


class Interrupted(Exception):  # noqa: N818 (an outcome, not an error)
    """Training was asked to stop; its state is on disk and the same call goes on from there."""


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
    per_seed: Mapping[str, Sequence[float]] | None = None,
) -> Outcome:
    """Train all seeds of a configuration as one packed program, going on from ``folder``'s checkpoint if it has one.

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
        per_seed: values of single seeds, dotted key -> one per seed, for what :mod:`values` lets differ in a pack.

    Raises:
        UserError: the data or the checkpoint do not fit the configuration, or the batch not the workers.
        StorageError: a write failed; the last good checkpoint was kept.
    """
    plan = plan or execution.Plan(workers, threads, device)
    if plan.threads_each:
        torch.set_num_threads(plan.threads_each)
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(execution.workers(plan, configuration))
        where, training, scale = plan.device_of(0), configuration.training, normalisation_scale(poses)
        state = State(configuration, tuple(seeds), where, per_seed or {}, group)
        identity = identity_of(configuration, per_seed or {}, poses.digest, scale)
        record = stack.enter_context(records.Recorder(folder, configuration, state.seeds, identity))
        record.restore(state)
        stack.enter_context(precision.applied(state.matmul))
        learnt = poses.rows("train")
        present = None if poses.present[learnt].all() else poses.present[learnt]
        engine = execution.lead(state, normalised(poses, learnt, scale), plan, present)
        validation = validation_set(poses, configuration, scale).to(where)
        parameters = {name: parameters_per_seed(net, len(state.active) or 1) for name, net in state.networks.items()}

        while state.active and state.step < training.steps:
            began, first = time.perf_counter(), state.step

            # --- Sample and step, up to the next evaluation step -----------------------------------------------------
            for batch in engine.batches():
                if should_stop is not None and should_stop():
                    state.seconds += time.perf_counter() - began
                    record.checkpoint(state)
                    record.finish()
                    raise Interrupted(f"stopped at step {state.step}; the state is saved")
                engine.step(batch)

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
                if ends_seed(verdict.kind, configuration.stopping):
                    ended.append(seed)
                    state.stopped[seed] = state.step

            # --- Keep: candidates by risk, depths of this step, history ----------------------------------------------
            record.keep(state, rows, measured)
            elapsed = time.perf_counter() - began
            state.seconds += elapsed
            speed = (state.step - first) * len(state.active) / elapsed
            if monitor is not None:
                unbroken = sum(is_sound(judge.verdict.kind) for judge in state.judges.values())
                whole = {"throughput/steps_per_second": speed, "risk/best": _lowest_risk(state)}
                whole["risk/unbroken_seeds"] = unbroken
                kinds = Counter(judge.verdict.kind for judge in state.judges.values())
                whole |= {verdict_tag(kind): kinds[kind] for kind in KINDS}
                told = [{"seed": row.seed, "verdict": row.verdict, **row.signals} for row in rows]
                monitor.evaluation(state.step, [*told, whole])
                monitor.poses(state.step, state.active, validation.poses, measured.depths)
            state.compact(group.tell({"ended": ended})["ended"])
            finished = state.step == training.steps or not state.active
            if finished or state.step % (training.checkpoint_every * training.evaluate_every) == 0:
                record.checkpoint(state)  # written while the next steps are taken

            # --- Report ----------------------------------------------------------------------------------------------
            if report is not None:
                report(_progress(state, speed))

        record.finish()
    return Outcome(
        seeds=[_outcome(state, seed) for seed in state.seeds],
        training_seconds=state.seconds,
        parameters=parameters,
        execution=Execution(workers=plan.workers, matmul=state.matmul, precision=training.precision),
    )


def _lowest_risk(state: State) -> float | None:
    """The trial's risk so far."""
    return trial_risk(
        (state.best[seed][0] if seed in state.best else None, judge.verdict.kind)
        for seed, judge in state.judges.items()
    )


def _progress(state: State, speed: float) -> Progress:
    return Progress(
        step=state.step,
        steps=state.configuration.training.steps,
        risk=_lowest_risk(state),
        verdicts={seed: judge.verdict.kind for seed, judge in state.judges.items()},
        steps_per_second=speed,
        active_seeds=len(state.active),
    )


def _outcome(state: State, seed: int) -> SeedOutcome:
    verdict = state.judges[seed].verdict
    best_risk, best_step = state.best.get(seed, (None, None))
    stopped = state.stopped.get(seed, state.step)
    return SeedOutcome(
        seed=seed,
        verdict=verdict.kind,
        reason=verdict.reason,
        onset=verdict.onset,
        stopped_step=stopped,
        best_risk=best_risk,
        best_step=best_step,
        values=dict(verdict.values),
        candidates=[one.about.step for one in state.candidates[seed]],
    )
