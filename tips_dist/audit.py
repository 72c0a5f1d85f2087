"""Would stopping have killed the best? Replays a stopping policy over a run's recorded histories, without truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tips_dist.config import Goal, Policy
from tips_dist.files import UserError, read_text
from tips_dist.replay import SeedHistory, choosable, read_histories, replay
from tips_dist.runfolder import Audit, RunFolder
from tips_dist.runfolder.results import AuditBest, AuditSeed, AuditTotals
from tips_dist.sections import validate
from tips_dist.stability.goals import thresholds
from tips_dist.study_yaml import load_yaml


def audit_words(audit: Audit) -> str:
    """The totals of an audit in words."""
    totals, lines = audit.totals, []
    if totals.cut:
        lines.append(
            f"{totals.cut} of {totals.seeds} histories were cut by stopping when they were made and are left out "
            "of the totals; train with stopping.divergence=off and stopping.plateau=off for a full answer."
        )
    if totals.best is not None and totals.steps_saved is not None:
        best = totals.best
        lines.append(f"Stopped {totals.stopped} seeds, {100 * totals.steps_saved:.0f} % of the steps saved.")
        who = f"the eventual best ({best.trial} seed {best.seed}, risk {best.risk:.4g})"
        if totals.best_killed:
            lost = 100 * (totals.best_risk_lost or 0)
            lines.append(f"It would have stopped {who} before its best step, at a loss of risk of {lost:.1f} %.")
        else:
            lines.append(f"It would have kept {who}.")
    return "\n".join(lines)


def audit_run(run: Path, policy: Policy | None = None, goal: Goal | None = None) -> Audit:
    """Replay ``policy`` (default: the built-in one) over every seed's history.

    Thresholds that it leaves open follow from ``goal`` (default: the built-in one). A checkpoint inside a mirror
    crossing, or before the seed settled on one side, counts for no lowest risk: it would not be chosen.

    A seed whose history was cut by stopping when it was made can only be replayed up to there; it is marked ``cut``
    and left out of the totals. Train with ``stopping: {divergence: off, plateau: off}`` for a full answer.

    Raises:
        UserError: not a run folder, or no trial has a history.
    """
    policy = thresholds(policy or Policy(), goal)
    seeds = [_seed(history, policy) for history in read_histories(RunFolder(run))]
    if not seeds:
        raise UserError(f"{run}: no trial with a history, so there is nothing to audit")
    return Audit(policy=policy, seeds=seeds, totals=_totals(seeds))


def read_policy(path: Path) -> Policy:
    """Read a policy file: YAML with any of the thresholds of :class:`Policy`, the others at their defaults.

    Raises:
        UserError: the file is missing, or a key or value is wrong.
    """
    return validate(Policy, load_yaml(read_text(path, "policy file"), str(path)) or {}, where=str(path))


def read_goal(text: str) -> Goal:
    """A goal as a study file writes it: ``1 %`` or ``0.01``.

    Raises:
        UserError: it is no share from 0.5 % to 5 %.
    """
    return validate(Goal, {"loss": text if text.strip().endswith("%") else load_yaml(text, "--goal")}, where="--goal")


def _seed(history: SeedHistory, policy: Policy) -> AuditSeed:
    verdict, stop = replay(history, policy)
    chosen = choosable(history, policy)
    best, kept = chosen.lowest_risk(), chosen.lowest_risk(stop)
    return AuditSeed(
        trial=history.trial,
        seed=history.seed,
        verdict=verdict.kind,
        reason=verdict.reason,
        onset=verdict.onset,
        stop_step=None if stop is None else history.steps[stop],
        last_step=history.steps[-1],
        steps=history.budget,
        cut=history.cut,
        best_risk=None if best is None else float(history.risks[best]),
        best_step=None if best is None else history.steps[best],
        kept_risk=None if kept is None else float(history.risks[kept]),
        kept_step=None if kept is None else history.steps[kept],
    )


def _totals(seeds: Sequence[AuditSeed]) -> AuditTotals:
    full = [row for row in seeds if not row.cut]
    ranked = sorted((row.best_risk, row.trial, row.seed, row) for row in full if row.best_risk is not None)
    risk, _, _, best = ranked[0] if ranked else (None, "", 0, None)
    planned = sum(row.steps for row in full)
    trained = sum(row.stop_step or row.last_step for row in full)
    return AuditTotals(
        seeds=len(seeds),
        cut=len(seeds) - len(full),
        stopped=sum(row.stop_step is not None for row in full),
        steps_saved=1 - trained / planned if planned else None,
        best=None if best is None or risk is None else AuditBest(trial=best.trial, seed=best.seed, risk=risk),
        best_killed=None if best is None else best.kept_step != best.best_step,
        best_risk_lost=None if best is None or risk is None or not best.kept_risk else best.kept_risk / risk - 1,
    )
