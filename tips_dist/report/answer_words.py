"""The answer in words: a few lines for a terminal, Markdown, LaTeX, CSV and the report's first box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tips_dist.report.answer import FEW_SEEDS, METRIC
from tips_dist.report.tables import Table, interval, number, parameter, verdict_words
from tips_dist.runfolder import Summary
from tips_dist.runfolder.results import (
    Answer,
    BestConfiguration,
    Broken,
    Choosing,
    Comparison,
    MeasuredAnswer,
    Recommendation,
)

FEW_TEACHERS = 3  # named in the answer; selection.json has all
NOTHING_YET = "No run has ended yet."
UNMEASURED = "nothing here was compared with truth: risk is an estimate, not an error"


@dataclass(frozen=True)
class AnswerLine:
    """One line of the answer: what it is about, what is said, and the command that goes with it."""

    topic: str
    text: str
    command: str | None = None


def answer_lines(summary: Summary) -> list[AnswerLine]:
    """The answer, line by line."""
    found = summary.answer
    if found is None or not found.broken:
        lines = [AnswerLine("Answer", NOTHING_YET)]
        return lines + [AnswerLine("Next", step.text, step.command) for step in (found.steps if found else ())]
    lines = [AnswerLine("Best configuration", _best(one)) for one in found.best]
    if not found.best:
        lines.append(AnswerLine("Best configuration", "None has a risk: more than half of the seeds of each broke."))
    lines += [AnswerLine("Use", *_use(found.recommended))] if found.recommended else []
    lines += [AnswerLine("Which is better", text) for text in _better(found)]
    lines += [AnswerLine("Broken seeds", _broken(one)) for one in found.broken]
    lines += [AnswerLine("Choosing without truth", _choosing(one)) for one in found.choosing]
    if not summary.evaluated:
        lines.append(AnswerLine("Errors", f"N{UNMEASURED[1:]}{_plus_minus(found)}."))
    return lines + [AnswerLine("Next", step.text, step.command) for step in found.steps]


def answer_table(lines: Sequence[AnswerLine]) -> Table:
    """The answer as a table, for formats that have nothing else."""
    return Table(
        "Answer", ("about", "answer", "command"), [(line.topic, line.text, line.command or "") for line in lines]
    )


def in_one_line(lines: Sequence[AnswerLine]) -> list[str]:
    """The answer as plain lines, "topic: text command"."""
    return [f"{line.topic}: {line.text}" + (f" {line.command}" if line.command else "") for line in lines]


# ------------------------------------------------------------------------------------------------ sentences


def _plus_minus(found: Answer) -> str:
    """How far true errors lie from the risk."""
    if found.plus_minus is None:
        return ""
    less, more = 100 * found.plus_minus / (1 + found.plus_minus), 100 * found.plus_minus
    return f"; nine errors in ten are thought to lie within -{less:.0f} and +{more:.0f} % of it, in mm"


def _best(one: BestConfiguration) -> str:
    parameters = ", ".join(f"{key} {parameter(value)}" for key, value in one.parameters.items())
    errors = "; ".join(f"{interval(value, 1)} mm on {split}" for split, value in one.errors.items())
    seeds = f"{one.seeds} seeds" + (f", {one.broken} broken" if one.broken else "")
    lead = f"{one.representation}: {one.trial}" + (f" ({parameters})" if parameters else "")
    of = f"the lowest of {one.tried} trials" if one.tried > 1 else "the only trial"
    return f"{lead}: risk {interval(one.risk, None)}, {of}, {seeds}" + (f"; {errors}" if errors else "") + "."


def _use(one: Recommendation) -> tuple[str, str]:
    first, more = one.teachers[:FEW_TEACHERS], len(one.teachers) - FEW_TEACHERS
    listed = ", ".join(first) + (f" and {more} more checkpoints" if more > 0 else "")
    teachers = f", taught by {listed}" if one.teachers and one.kind == "student" else ""
    what = "the student" if one.kind == "student" else "the candidate of lowest risk (there is no student yet)"
    order = sorted(one.errors.items(), key=lambda item: item[0] != "test")
    errors = "; ".join(f"{_mm(value)} on {split}" for split, value in order)
    known = f"sign-resolved N-MPJPE {errors}" if errors else "its error is not known yet"
    if errors and "test" not in one.errors:
        known += " (not measured on test)"
    return f"{what}, {one.file}{teachers}: {known}. It lifts with", one.lift


def _mm(found: MeasuredAnswer) -> str:
    ends = "" if found.low is None else f" ({number(found.low, 1)}..{number(found.high, 1)})"
    return f"{number(found.value, 1)} mm{ends}"


def _better(found: Answer) -> list[str]:
    """The best configurations by error where measured, else by risk; all runs pooled as a second opinion."""
    if len(found.broken) < 2:
        return []
    lines = []
    for rows in (found.chosen, found.pooled):
        metric = METRIC if any(row.metric == METRIC for row in rows) else "risk"
        lines += [compared(row) for row in rows if row.metric == metric]
    return lines


def compared(row: Comparison) -> str:
    """One comparison in words."""
    mm = row.metric == METRIC
    digits, unit = (1, " mm") if mm else (None, "")
    what = f"sign-resolved N-MPJPE on {row.split}" if mm else "risk, an estimate"
    found = row.difference
    if row.pooled:
        who, lead = (row.first, row.second), f"All {found.runs} runs pooled, {what}"
    else:
        who = (f"{row.first} ({row.first_trial})", f"{row.second} ({row.second_trial})")
        lead = f"Best configurations, {what}"
    if not row.sure:
        between = f"{number(found.low, digits)}..{number(found.high, digits)}"
        value = number(found.value, digits, sign=True)
        return f"{lead}: {who[0]} and {who[1]} cannot be told apart; difference {value}{unit} ({between})."
    better, worse = who if found.value < 0 else who[::-1]
    low, high = sorted((abs(found.low), abs(found.high)))
    few = found.runs < 2 * FEW_SEEDS
    caution = f"; {found.runs} seeds only, so take the interval as the least that is uncertain" if few else ""
    return (
        f"{lead}: {better} is better than {worse} by {number(abs(found.value), digits)}{unit} "
        f"({number(low, digits)}..{number(high, digits)}; Cliff's delta {_delta(row)}){caution}."
    )


def _delta(row: Comparison) -> str:
    return number(None if row.cliffs_delta is None else abs(row.cliffs_delta), 2)


def _broken(one: Broken) -> str:
    if not one.broken:
        return f"{one.representation}: none of {one.runs}."
    reasons = "; ".join(f"{reason} ({count})" for reason, count in list(one.reasons.items())[:3])
    return f"{one.representation}: {one.broken} of {one.runs}, {verdict_words(one.verdicts)}" + (
        f": {reasons}." if reasons else "."
    )


def _choosing(one: Choosing) -> str:
    def beside(name: str, value: float) -> str:
        return f"{name} {abs(value):.1f} mm {'worse' if value >= 0 else 'better'}"

    others = f"{beside('the last', one.last.value)}, {beside('a random one', one.random.value)}"
    return (
        f"{one.representation}, all {one.selected.runs} runs, validation: the checkpoint kept has "
        f"{one.selected.value:.1f} mm; the best there was (needs truth) is "
        f"{abs(one.best.value):.1f} mm better; {others}."
    )
