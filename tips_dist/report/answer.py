"""What a study found, in a few sentences for somebody who reads nothing else."""

from __future__ import annotations

from tips_dist.bootstrap import Statistic
from tips_dist.report.tables import interval, number, verdict_words
from tips_dist.runfolder import Summary
from tips_dist.runfolder.results import Difference, RepresentationSummary


def answer(summary: Summary) -> list[str]:
    """Sentences: which representation did best, how sure that is, who stayed sound, what choosing by risk cost."""
    groups = [group for group in summary.representations if group.runs]
    if not groups:
        return ["No run has ended yet."]
    measured = all(group.errors for group in groups)
    sentences = [_best(groups, measured)]
    metric = "n_mpjpe_resolved" if measured else "risk"
    sentences += [_difference(row, measured) for row in summary.differences if row.metric == metric]
    sentences.append("How runs ended: " + "; ".join(_ended(group) for group in groups) + ".")
    if measured:
        sentences += [_choice(group) for group in groups]
    else:
        sentences.append("Nothing here was compared with truth: risk is an estimate, not an error.")
    return [sentence for sentence in sentences if sentence]


def _best(groups: list[RepresentationSummary], measured: bool) -> str:
    found = [(group, _error(group) if measured else group.risk) for group in groups]
    known = sorted(((group, value) for group, value in found if value), key=lambda pair: pair[1].value)
    if not known:
        return "No run has a usable checkpoint."
    what, digits, unit = ("sign-resolved N-MPJPE", 1, " mm") if measured else ("median risk", None, "")
    listed = ", ".join(f"{group.representation} {interval(value, digits)}{unit}" for group, value in known)
    lead = "Error of the checkpoints that were chosen without truth" if measured else "Lowest risk of a run"
    return f"{lead}, {what}, best first: {listed}."


def _error(group: RepresentationSummary) -> Statistic | None:
    return group.errors.metrics.get("n_mpjpe_resolved") if group.errors else None


def _difference(row: Difference, measured: bool) -> str:
    found, unit = row.difference, " mm" if measured else ""
    sure = found.low > 0 or found.high < 0
    verb = "higher" if found.value > 0 else "lower"
    size = number(abs(found.value), 1 if measured else None)
    ends = sorted((abs(found.low), abs(found.high))) if sure else (found.low, found.high)
    between = f"{number(ends[0], 1 if measured else None)}..{number(ends[1], 1 if measured else None)}"
    if not sure:
        difference = number(found.value, 1 if measured else None, sign=True)
        return (
            f"{row.first} and {row.second} cannot be told apart by {'error' if measured else 'risk'}: "
            f"difference {difference}{unit}, interval {between}."
        )
    delta = number(row.cliffs_delta, 2, sign=True)
    return f"{row.first} is {size}{unit} {verb} than {row.second} (interval {between}, Cliff's delta {delta})."


def _ended(group: RepresentationSummary) -> str:
    saved = f", {group.steps_saved:.0%} of steps saved" if group.steps_saved else ""
    return f"{group.representation}, of {group.runs} runs {verdict_words(group.verdicts)}{saved}"


def _choice(group: RepresentationSummary) -> str:
    against = group.errors.against if group.errors else {}
    best, *others = (against.get(name) for name in ("best", "last", "random"))
    if best is None or None in others:
        return ""
    cost = -best.value
    last, random = (other.value + cost for other in others if other is not None)
    return (
        f"{group.representation}: choosing by risk cost {cost:.1f} mm against the best checkpoint; "
        f"the last one would have cost {last:.1f} mm, a random one {random:.1f} mm."
    )
