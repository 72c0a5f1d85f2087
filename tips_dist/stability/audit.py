"""Would stopping have killed the best? Replays a stopping policy over a run's recorded histories."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tips_dist.config import Policy, validate
from tips_dist.files import UserError, read_json, read_json_lines, read_text
from tips_dist.stability.detectors import HEALTHY, Judge, Recipe, Verdict
from tips_dist.study_yaml import load_yaml


def audit(run: Path, policy: Policy | None = None) -> dict[str, Any]:
    """Replay ``policy`` (default: the built-in one) over every seed's history.

    A seed whose history was cut by stopping when it was made can only be replayed up to there; it is marked ``cut``
    and left out of the totals. Train with ``stopping: {divergence: off, plateau: off}`` for a full answer.

    Returns:
        ``seeds``: one row per seed, with the verdict, the step at which the policy stops it, the lowest risk seen up
        to there and over the whole history. ``totals``: the share of steps saved, and whether the seed with the
        lowest risk of all would have been stopped before it got there. ``policy``: the thresholds used.

    Raises:
        UserError: not a run folder, or no trial has a history.
    """
    policy = policy or Policy()
    trials = [read_json(path) for path in sorted((run / "trials").glob("*/trial.json"))]
    seeds = [row for trial in trials for row in _trial(run, trial, policy)]
    if not seeds:
        raise UserError(f"{run}: no trial with a history, so there is nothing to audit")
    return {"schema": 1, "policy": policy.model_dump(), "seeds": seeds, "totals": _totals(seeds)}


def answer(found: dict[str, Any]) -> str:
    """The totals of :func:`audit` in words."""
    totals = found["totals"]
    lines = []
    if totals["cut"]:
        lines.append(
            f"{totals['cut']} of {totals['seeds']} histories were cut by stopping when they were made and are left out "
            "of the totals; train with stopping.divergence=off and stopping.plateau=off for a full answer."
        )
    if totals["best"] is not None:
        best = totals["best"]
        lines.append(f"Stopped {totals['stopped']} seeds, {100 * totals['steps_saved']:.0f} % of the steps saved.")
        who = f"the eventual best ({best['trial']} seed {best['seed']}, risk {best['risk']:.4g})"
        if totals["best_killed"]:
            lines.append(f"It would have stopped {who} before its best step, at a loss of risk of "
                         f"{100 * (totals['best_risk_lost'] or 0):.1f} %.")  # fmt: skip
        else:
            lines.append(f"It would have kept {who}.")
    return "\n".join(lines)


def read_policy(path: Path) -> Policy:
    """Read a policy file: YAML with any of the thresholds of :class:`Policy`, the others at their defaults.

    Raises:
        UserError: the file is missing, or a key or value is wrong.
    """
    return validate(Policy, load_yaml(read_text(path, "policy file"), str(path)) or {}, where=str(path))


def replay(rows: list[dict[str, Any]], steps: int, recipe: Recipe, policy: Policy) -> tuple[Verdict, int | None]:
    """Judge one seed's rows in order: the verdict that stops it and when, or the last verdict and ``None``."""
    judge = Judge(steps, recipe, policy)
    for row in rows:
        verdict = judge.update(row["step"], {name: value for name, value in row.items() if "/" in name})
        if verdict.kind != HEALTHY:
            return verdict, row["step"]
    return judge.verdict, None


def _trial(run: Path, trial: dict[str, Any], policy: Policy) -> list[dict[str, Any]]:
    losses, training = trial["configuration"]["losses"], trial["configuration"]["training"]
    recipe = Recipe(losses["adversarial_kind"], losses["label_swap"], losses["real_label"])
    history = list(read_json_lines(run / "trials" / trial["id"] / "history.jsonl"))
    found = []
    for seed in trial["seeds"]:
        rows = [row for row in history if row["seed"] == seed]
        if rows:
            found.append(_seed(trial["id"], seed, rows, training["steps"], recipe, policy))
    return found


def _seed(
    trial: str, seed: int, rows: list[dict[str, Any]], steps: int, recipe: Recipe, policy: Policy
) -> dict[str, Any]:
    verdict, stop = replay(rows, steps, recipe, policy)
    whole = _lowest(rows)
    kept = _lowest([row for row in rows if stop is None or row["step"] <= stop])
    return {
        "trial": trial,
        "seed": seed,
        "verdict": verdict.kind,
        "reason": verdict.reason,
        "onset": verdict.onset,
        "stop_step": stop,
        "last_step": rows[-1]["step"],
        "cut": rows[-1]["step"] < steps and rows[-1]["risk"] is not None,
        "best_risk": whole[0],
        "best_step": whole[1],
        "kept_risk": kept[0],
        "kept_step": kept[1],
        "steps": steps,
    }


def _lowest(rows: list[dict[str, Any]]) -> tuple[float | None, int | None]:
    finite = [(row["risk"], row["step"]) for row in rows if row["risk"] is not None and math.isfinite(row["risk"])]
    return min(finite) if finite else (None, None)


def _totals(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    full = [row for row in seeds if not row["cut"]]
    judged = [row for row in full if row["best_risk"] is not None]
    best = min(judged, key=lambda row: (row["best_risk"], row["trial"], row["seed"])) if judged else None
    planned = sum(row["steps"] for row in full)
    trained = sum(row["stop_step"] or row["last_step"] for row in full)
    return {
        "seeds": len(seeds),
        "cut": len(seeds) - len(full),
        "stopped": sum(row["stop_step"] is not None for row in full),
        "steps_saved": 1 - trained / planned if planned else None,
        "best": None if best is None else {"trial": best["trial"], "seed": best["seed"], "risk": best["best_risk"]},
        "best_killed": None if best is None else best["kept_step"] != best["best_step"],
        "best_risk_lost": None if best is None or not best["kept_risk"] else best["kept_risk"] / best["best_risk"] - 1,
    }
