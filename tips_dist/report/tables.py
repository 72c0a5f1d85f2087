"""The summary as tables of words and numbers; :mod:`tips_dist.report.formats` prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tips_dist.bootstrap import Statistic
from tips_dist.runfolder import Summary
from tips_dist.runfolder.curves import METRICS
from tips_dist.runfolder.results import Budget, RepresentationSummary
from tips_dist.runfolder.spent import STEPS, TimeSpent
from tips_dist.stability.verdicts import KINDS

WORDS = (
    "verdicts",
    "verdict",
    "reason",
    "state",
    "why",
    "value",
    "dimension",
    "answer",
    "command",
    "candidates",
)  # columns of text; the first column is text always
_RESOLVED = "_resolved"
ESTIMATED = "Estimated without truth"
NOT_EVALUATED = "Errors in mm need truth: tips-dist evaluate RUN --truth FILE (nothing that decides reads it)."
INTERVALS = (
    "Brackets: 95 % bootstrap interval over trials and seeds (few seeds make it too narrow). Stopped at: median "
    "step. Saved: share of planned seed-steps that stopping left untrained."
)


MOST_LISTED = 6  # teachers in a sentence


@dataclass(frozen=True)
class Table:
    """A title, column heads (the first column is text, the others numbers) and rows of cells."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    @property
    def words(self) -> set[int]:
        """The columns of text; the others hold numbers."""
        return {index for index, name in enumerate(self.head) if index == 0 or name in WORDS}


def representation_tables(summary: Summary) -> list[Table]:
    """The tables by representation: what was estimated and, if evaluated, what was measured."""
    groups = summary.representations
    tables = [_estimated(groups)]
    if summary.evaluated:
        tables += [_measured(groups), _checkpoints(groups)]
    if any(group.errors and group.errors.raw for group in groups):
        tables.append(_averaged_and_raw(groups))
    return tables


def _estimated(groups: Sequence[RepresentationSummary]) -> Table:
    head = ("representation", "runs", "verdicts", "stopped at", "saved", "risk")
    rows = [
        (
            group.representation,
            str(group.runs),
            verdict_words(group.verdicts) or "none yet",
            number(group.stopped_step, 0),
            percent(group.steps_saved),
            interval(group.risk, None),
        )
        for group in groups
    ]
    return Table(f"{ESTIMATED} (risk: lower is better)", head, rows)


def _measured(groups: Sequence[RepresentationSummary]) -> Table:
    words = ("N-MPJPE as predicted", "N-MPJPE sign-resolved", "PA-MPJPE as predicted", "PA-MPJPE sign-resolved")
    head = ("representation", *words)
    rows = []
    for group in groups:
        metrics = group.errors.metrics if group.errors else {}
        rows.append((group.representation, *(interval(metrics.get(name), 1) for name in METRICS)))
    return Table("Measured against truth: the selected checkpoints, validation, mm", head, rows)


def _checkpoints(groups: Sequence[RepresentationSummary]) -> Table:
    head = ("representation", "selected", "best (needs truth)", "last", "random")
    rows = []
    for group in groups:
        against = group.errors.against if group.errors else {}
        others = (interval(against.get(name), 1, sign=True) for name in ("best", "last", "random"))
        selected = group.errors.checkpoints.get("selected") if group.errors else None
        rows.append((group.representation, number(selected.value if selected else None, 1), *others))
    return Table(
        "Which checkpoint: sign-resolved N-MPJPE on validation and the others minus the selected, mm", head, rows
    )


def _averaged_and_raw(groups: Sequence[RepresentationSummary]) -> Table:
    """Side by side, where both were judged (training.judge: both)."""
    names = ("selected", "best", "last")
    head = ("representation", *(f"{kind}: {name}" for name in names for kind in ("averaged", "raw")))
    rows = []
    for group in groups:
        if group.errors and group.errors.raw:
            both = group.errors.checkpoints, group.errors.raw
            cells = (interval(of.get(name), 1) for name in names for of in both)
            rows.append((group.representation, *cells))
    return Table("Averaged and raw weights: sign-resolved N-MPJPE, mm", head, rows)


def difference_tables(summary: Summary) -> list[Table]:
    """Differences between representations with intervals and effect sizes; none for a single representation."""
    titles = {
        "risk": ("Differences in risk, estimated without truth, all runs pooled", None),
        "n_mpjpe_resolved": ("Differences in sign-resolved N-MPJPE on validation, mm, all runs pooled", 1),
    }
    found = []
    for metric, (title, digits) in titles.items():
        rows = [
            (
                f"{row.first} - {row.second}",
                interval(row.difference, digits, sign=True),
                number(row.cliffs_delta, 2, sign=True),
            )
            for row in summary.differences
            if row.metric == metric
        ]
        if rows:
            found.append(Table(title, ("pair", "difference", "Cliff's delta"), rows))
    return found


def importance_table(found: Mapping[str, Mapping[str, float] | None]) -> list[Table]:
    """Searched dimensions by importance and representation; nothing where too few trials say anything."""
    rows = [
        (name, key, f"{value:.0%}")
        for name, values in found.items()
        for key, value in sorted((values or {}).items(), key=lambda item: -item[1])
    ]
    return (
        [Table("Importance for the risk (PED-ANOVA)", ("representation", "dimension", "share"), rows)] if rows else []
    )


def trial_table(summary: Summary, *, limit: int | None = None) -> Table:
    """A row per trial, in the order of the summary; a trial that failed says why."""
    keys = sorted({key for trial in summary.trials for key in trial.parameters})
    head = ("trial", "state", "verdicts", "stopped at", "risk", *(["mm"] if summary.evaluated else []), *keys)
    rows = []
    for trial in summary.trials[:limit]:
        errors = trial.errors.metrics.get("n_mpjpe_resolved") if trial.errors else None
        rows.append(
            (
                trial.trial,
                trial.error or trial.state.value,
                verdict_words(trial.verdicts) or "-",
                number(trial.stopped_step, 0),
                interval(trial.risk, None),
                *([interval(errors, 1)] if summary.evaluated else []),
                *(parameter(trial.parameters.get(key)) for key in keys),
            )
        )
    return Table("Trials (mm: sign-resolved N-MPJPE of the selected checkpoints, validation)", head, rows)


def budget_words(budget: Budget) -> str:
    """What stopping saved, and that a wrong stop can be undone."""
    trials = f" (whole trials stopped: {budget.stopped_trials})" if budget.stopped_trials else ""
    line = (
        f"Stopping saved {budget.saved:,} of {budget.planned:,} seed-steps{trials}. Seeds frozen: {budget.frozen}; "
        f"revived: {budget.revived}."
    )
    return f"{line} tips-dist resume RUN --thaw lets frozen ones go on." if budget.frozen else line


def time_table(found: TimeSpent | None) -> list[Table]:
    """Where the time of the machine went, the largest part first; nothing where no account was kept."""
    if found is None:
        return []
    unit, over = found.unit.removesuffix("s"), "" if found.sessions == 1 else f" in {found.sessions} sessions"
    parts = sorted(found.spent.items(), key=lambda item: -item[1])
    rows = [(what, f"{seconds:.1f}", f"{found.share(what):.1%}") for what, seconds in parts if seconds >= 0.05]
    title = f"Where the time went: {found.wall_seconds:.0f} s of {found.machine:g} {found.unit}{over}"
    return [Table(title, ("what", f"{unit}-seconds", "share"), rows)]


def time_words(found: TimeSpent) -> str:
    """The same in a line: how much of the machine's time was training steps, and what took most of the rest."""
    others = sorted(((name, found.share(name)) for name in found.spent if name != STEPS), key=lambda item: -item[1])
    most = ", ".join(f"{name} {share:.0%}" for name, share in others[:3])
    over = "" if found.sessions == 1 else f" over {found.sessions} sessions"
    return (
        f"Training steps took {found.share(STEPS):.0%} of the machine's time ({found.wall_seconds:.0f} s of "
        f"{found.machine:g} {found.unit}{over}); most of the rest: {most}."
    )


def parameter(value: object) -> str:
    """A value of the search space; a dash where the trial has none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def notes(summary: Summary) -> list[str]:
    """What has to be said beside the tables: student, trials that failed, how to read the numbers."""
    lines = []
    states = summary.trial_states
    unfinished = {state: count for state, count in states.items() if state not in ("finished", "stopped")}
    if unfinished:
        listed = ", ".join(f"{count} {state}" for state, count in sorted(unfinished.items()))
        lines.append(f"Of {sum(states.values())} trials, {listed}: their runs are not all counted above.")
    if summary.budget is not None and summary.budget.frozen + summary.budget.revived:
        lines.append(budget_words(summary.budget))
    lines += [
        f"Precision: {count} of {sum(states.values())} trials asked for {name} and ran in float32, for want of "
        "hardware for it (training.precision)."
        for name, count in sorted(summary.fallbacks.items())
    ]
    if summary.time is not None:
        lines.append(time_words(summary.time))
    if summary.teachers:
        first = summary.teachers[:MOST_LISTED]
        listed = ", ".join(f"{item.trial} seed {item.seed} step {item.step}" for item in first)
        more = len(summary.teachers) - len(first)
        lines.append(f"Teachers (chosen by risk, without truth): {listed}{f' and {more} more' if more else ''}.")
    for split, metrics in sorted((summary.student or {}).items()):  # test first
        n_mpjpe, pa_mpjpe = (
            f"{number(metrics.of(name), 1)} mm as predicted, {number(metrics.of(name + _RESOLVED), 1)} sign-resolved"
            for name in ("n_mpjpe", "pa_mpjpe")
        )
        lines.append(f"Student on {split}: N-MPJPE {n_mpjpe}; PA-MPJPE {pa_mpjpe}.")
        if (spread := metrics.spread) is not None:
            lines.append(
                f"Its own uncertainty on {split}: {number(spread.mean_spread, 1)} mm a joint, where depth errs by "
                f"{number(spread.mean_error, 1)}; {percent(spread.within_1)} of joints lie within one spread, "
                f"{percent(spread.within_2)} within two."
            )
    lines.append(INTERVALS if any(group.runs for group in summary.representations) else "No runs yet.")
    if not summary.evaluated:
        lines.append(NOT_EVALUATED)
    return lines


def verdict_words(verdicts: Mapping[str, int]) -> str:
    """Counts by verdict in a fixed order: "6 healthy, 2 diverged"."""
    names = [*KINDS, *sorted(set(verdicts) - set(KINDS))]
    return ", ".join(f"{verdicts[name]} {name.replace('_', '-')}" for name in names if verdicts.get(name))


def number(value: float | None, digits: int | None, *, sign: bool = False) -> str:
    """A number with fixed digits (None: four significant ones); a dash where there is none."""
    kind = ".4g" if digits is None else f".{digits}f"
    return "-" if value is None else f"{value:{'+' if sign else ''}{kind}}"


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"


def interval(found: Statistic | None, digits: int | None, *, sign: bool = False) -> str:
    """A statistic as "value (low..high)"; a dash where there is none, no brackets where one run is behind it."""
    if found is None:
        return "-"
    value = number(found.value, digits, sign=sign)
    if found.runs < 2:
        return value
    return f"{value} ({number(found.low, digits)}..{number(found.high, digits)})"
