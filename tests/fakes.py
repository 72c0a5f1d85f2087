"""A training loop that trains nothing: study logic is tested with it in milliseconds.

It has the signature of ``tips_dist.training.loop.train``, draws its risks from the configuration, seed and step, writes
``history.jsonl`` and a checkpoint, goes on from it, and misbehaves on command.
"""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tips_dist.config import Configuration
from tips_dist.data.store import Poses
from tips_dist.files import JSON, append_json_lines, read_json, read_json_lines, write_json, write_text
from tips_dist.runfolder import Outcome, SeedOutcome, layout
from tips_dist.runfolder.records import FrozenRecord, Identity
from tips_dist.runfolder.spent import NOTHING, Spent
from tips_dist.runfolder.weights import METADATA
from tips_dist.stability.statistic import trial_risk

HOG_GIGABYTES = 6


@dataclass(frozen=True)
class Progress:
    step: int
    steps: int
    risk: float | None
    verdicts: dict[int, str]
    steps_per_second: float
    active_seeds: int
    message: str = ""
    spent: Spent = NOTHING


class Interrupted(Exception):  # noqa: N818 (as in the real loop)
    pass


@dataclass(frozen=True)
class FakeTraining:
    """Call it like the real loop. Commands are keyed by trial id; those done once leave a mark in the folder."""

    step_seconds: float = 0.0
    diverge: Mapping[str, Mapping[int, int]] = field(default_factory=dict)  # trial -> {seed: step}
    verdict: str = "diverged"  # of those
    silent: Sequence[str] = ()  # trials that never have a risk
    fail: Mapping[str, int] = field(default_factory=dict)  # raises at this step
    kill: Mapping[str, int] = field(default_factory=dict)  # SIGKILLs its worker at this step, once
    stop: Mapping[str, int] = field(default_factory=dict)  # SIGSTOPs its worker at this step, once
    torn: Mapping[str, int] = field(default_factory=dict)  # tears its newest checkpoint, then SIGKILL, once
    hog: Mapping[str, int] = field(default_factory=dict)  # takes memory from this step on until it is killed, always

    def __call__(
        self,
        configuration: Configuration,
        seeds: Sequence[int],
        poses: Poses,
        folder: Path,
        *,
        report: Callable[[Any], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        threads: int | None = None,
        device: str = "cpu",
        thaw: Sequence[int] = (),
    ) -> Any:
        trial, training = folder.name, configuration.training
        state = load_checkpoint(folder)
        if state is None or state["thaw"] != list(thaw):  # whoever is thawed begins anew here, to the same numbers
            state = {"step": 0, "best": {str(s): None for s in seeds}, "ended": {}, "onset": {}, "thaw": list(thaw)}
        cut_history(folder, state["step"])
        for step in range(state["step"] + 1, training.steps + 1):
            if should_stop is not None and should_stop():
                save_checkpoint(folder, state)
                raise Interrupted
            time.sleep(self.step_seconds)
            self._misbehave(trial, step, folder)
            if step % training.evaluate_every:
                continue
            self._evaluate(configuration, seeds, folder, step, state)
            state["step"] = step
            if (step // training.evaluate_every) % training.checkpoint_every == 0:
                save_checkpoint(folder, state)
            if report is not None:
                verdicts = {s: self.verdict if str(s) in state["ended"] else "healthy" for s in seeds}
                risk = trial_risk(((state["best"][str(s)] or {}).get("risk"), verdicts[s]) for s in seeds)
                active = len(seeds) - len(state["ended"])
                risk = None if trial in self.silent else risk
                report(Progress(step, training.steps, risk, verdicts, 1000.0, active))
            if len(state["ended"]) == len(seeds):
                break
        ended = [self._outcome(s, state) for s in seeds]
        return Outcome(seeds=ended, training_seconds=0.0, parameters={"lifter": 1, "discriminator": 1})

    def _evaluate(
        self, configuration: Configuration, seeds: Sequence[int], folder: Path, step: int, state: dict[str, Any]
    ) -> None:
        rows: list[dict[str, JSON]] = []
        for seed in seeds:
            key = str(seed)
            if key in state["ended"]:
                continue
            risk = fake_risk(configuration, seed, step)
            diverged = step >= self.diverge.get(folder.name, {}).get(seed, 10**9)
            rows.append({"step": step, "seed": seed, "risk": risk, "verdict": self.verdict if diverged else "healthy"})
            if diverged:
                state["onset"].setdefault(key, step)
            if diverged and seed not in state["thaw"]:
                state["ended"][key] = step
                freeze(configuration, folder, seed, step, self.verdict)
            elif state["best"][key] is None or risk < state["best"][key]["risk"]:
                state["best"][key] = {"risk": risk, "step": step}
        append_json_lines(folder / "history.jsonl", rows)

    def _outcome(self, seed: int, state: dict[str, Any]) -> SeedOutcome:
        best, ended, onset = (
            state["best"][str(seed)] or {},
            state["ended"].get(str(seed)),
            state["onset"].get(str(seed)),
        )
        verdict, reason = (self.verdict, "told to") if onset else ("healthy", "")
        return SeedOutcome(
            seed=seed,
            verdict=verdict,
            reason=reason,
            onset=onset,
            stopped_step=ended or state["step"],
            best_risk=best.get("risk"),
            best_step=best.get("step"),
            frozen=ended,
        )

    def _misbehave(self, trial: str, step: int, folder: Path) -> None:
        if step == self.fail.get(trial):
            raise ValueError(f"told to fail at step {step}")
        if step == self.hog.get(trial):
            taken: list[Any] = []
            while len(taken) < HOG_GIGABYTES * 16:
                taken.append(np.ones(2**23))  # 64 MB
                time.sleep(0.01)
            time.sleep(600)
        mark = folder / "misbehaved"
        if mark.exists() or step not in (self.kill.get(trial), self.stop.get(trial), self.torn.get(trial)):
            return
        mark.touch()
        if step == self.torn.get(trial):
            path = folder / "checkpoint" / "state.json"
            path.write_bytes(path.read_bytes()[:7])
        os.kill(os.getpid(), signal.SIGSTOP if step == self.stop.get(trial) else signal.SIGKILL)


def fake_risk(configuration: Configuration, seed: int, step: int) -> float:
    """Falls with the steps towards a floor that the learning rate decides; noise from configuration, seed and step."""
    rate = configuration.training.generator_lr
    entropy = [int(1e12 * rate), zlib.crc32(configuration.representation.encode()), seed, step]
    noise = np.random.default_rng(entropy).normal()
    floor = abs(np.log10(rate) + 3.5)
    return float(floor + np.exp(-step / configuration.training.steps) + 0.02 * noise)


def freeze(configuration: Configuration, folder: Path, seed: int, step: int, verdict: str) -> None:
    identity = Identity(configuration=configuration, configuration_digest="", data_digest="", scale=1.0)
    about = FrozenRecord(
        seed=seed, step=step, verdict=verdict, reason="", onset=None, judge={}, average_since=0, identity=identity
    )
    path = layout.FROZEN.beside(folder).with_name(layout.frozen_name(seed))
    path.parent.mkdir(exist_ok=True)
    save_file({"none": np.zeros(1)}, path, {METADATA: json.dumps(about.plain())})


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    path = folder / "checkpoint" / "state.json"
    if path.exists():
        path.replace(path.with_name("previous.json"))
    write_json(path, state)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    for name in ("state.json", "previous.json"):
        try:
            return dict(read_json(folder / "checkpoint" / name))
        except Exception:
            continue
    return None


def cut_history(folder: Path, step: int) -> None:
    path = folder / "history.jsonl"
    rows = [row for row in read_json_lines(path) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def fake_conclude(run: Path, poses: Poses) -> None:
    """Stands in for selection and distillation: the best seed of every finished trial, in a selection.json."""
    seeds = []
    for path in sorted((run / "trials").glob("*/trial.json")):
        record = read_json(path)
        if record["state"] == "finished":
            seeds += [{"trial": record["id"], **seed} for seed in record["outcome"]["seeds"]]
    write_json(run / "selection.json", {"schema": 1, "seeds": seeds})


def fake_poses(count: int = 64) -> Poses:
    """A tiny data set: half train, the rest validation and test."""
    rng = np.random.default_rng(0)
    codes = np.zeros(count, dtype=np.int32)
    split = np.repeat(np.array([0, 0, 1, 2], dtype=np.int8), count // 4)
    return Poses(
        poses=rng.normal(500, 100, (count, 17, 2)).astype(np.float32),
        subject=codes,
        sequence=(np.arange(count) * 8 // count).astype(np.int32),
        camera=codes,
        frame=np.arange(count, dtype=np.int32),
        split=split,
        subject_names=("nobody",),
        sequence_names=tuple(f"nothing_{k}" for k in range(8)),
        camera_names=("none",),
        source="fake",
        frame_rate_hz=50.0,
    )
