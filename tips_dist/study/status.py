"""Where a study stands, by reading its run folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tips_dist.config import Study
from tips_dist.files import UserError, read_json
from tips_dist.mirror import mirrored_by
from tips_dist.study import space
from tips_dist.study.folder import read_record, recorded_study
from tips_dist.study.records import FINAL, Trial, holder, read_trials
from tips_dist.study.trainable import ALIVE_FILE


def status(run: Path) -> dict[str, Any]:
    """Where a study stands, by reading its folder; works while it runs and after it died.

    Returns:
        ``working`` (who holds the lock, or None), ``trials`` (state -> number, with "to_come"), ``seeds`` (verdict ->
        number, of finished and running trials), ``best_risk`` (over seeds; None if there is none yet), ``running`` (one
        entry per running trial, with ``stuck``: a reason or None), ``failed`` (id -> error), ``seconds_left`` (an
        estimate from the trials finished, or None).

    Raises:
        UserError: this is not a run folder.
    """
    run = run.resolve()
    record = read_record(run)
    study = recorded_study(record)
    working = holder(run) or mirrored_by(run)
    trials = read_trials(run)
    states = Counter(trial.state for trial in trials)
    states["to_come"] = sum(space.budget(study, name) for name in study.representations) - len(trials)
    running = [_running(run, trial, working, study) for trial in trials if trial.state == "running"]
    seeds = [seed for trial in trials for seed in (trial.outcome or {}).get("seeds", [])]
    verdicts = Counter(str(seed["verdict"]) for seed in seeds)
    for entry in running:
        verdicts.update(entry["verdicts"])
    risks = [seed["best_risk"] for seed in seeds if seed["best_risk"] is not None]
    risks += [entry["risk"] for entry in running if entry["risk"] is not None]
    return {
        "run": str(run),
        "name": record["name"],
        "working": working,
        "done": all(trial.state in FINAL for trial in trials) and states["to_come"] <= 0,
        "selected": (run / "selection.json").exists(),
        "distilled": (run / "student" / "student.json").exists(),
        "trials": dict(states),
        "seeds": dict(verdicts),
        "best_risk": min(risks, default=None),
        "running": running,
        "failed": {trial.id: trial.error for trial in trials if trial.state == "failed"},
        "seconds_left": _seconds_left(trials, running, states["to_come"]),
    }


def _running(run: Path, trial: Trial, working: dict[str, Any] | None, study: Study) -> dict[str, Any]:
    path = trial.folder(run) / ALIVE_FILE
    try:
        alive, age = read_json(path), time.time() - path.stat().st_mtime
    except (UserError, OSError):
        alive, age = {}, 0.0
    stuck = None
    if working is None:
        stuck = f"nobody works on this run; 'tips-dist resume {run}' goes on with it"
    elif age > study.resources.heartbeat_seconds:
        stuck = f"no sign of life from process {alive.get('pid')} on {alive.get('host')} for {age:.0f} s"
    return {
        "trial": trial.id,
        "step": alive.get("step", 0),
        "steps": trial.configuration["training"]["steps"],
        "risk": alive.get("risk"),
        "verdicts": alive.get("verdicts", {}),
        "steps_per_second": alive.get("steps_per_second"),
        "attempts": trial.attempts,
        "host": alive.get("host"),
        "stuck": stuck,
    }


def _seconds_left(trials: Sequence[Trial], running: Sequence[dict[str, Any]], to_come: int) -> float | None:
    ended = [trial.wall_seconds for trial in trials if trial.state in FINAL and trial.wall_seconds > 0]
    if not ended:
        return None
    mean = sum(ended) / len(ended)
    pending = sum(trial.state == "pending" for trial in trials)
    under_way = sum(mean * (1 - min(1.0, entry["step"] / max(1, entry["steps"]))) for entry in running)
    seconds = (mean * (max(0, to_come) + pending) + under_way) / max(1, len(running))
    return round(float(seconds), 1)
