"""What a study found, in a few sentences for somebody who reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tips_dist.report.tables import interval, number, verdict_words


def answer(summary: Mapping[str, Any]) -> list[str]:
    """Sentences: which representation did best, how sure that is, who stayed sound, what choosing by risk cost."""
    groups = [group for group in summary["representations"] if group["runs"]]
    if not groups:
        return ["No run has ended yet."]
    measured = all(group["errors"] for group in groups)
    sentences = [_best(groups, measured)]
    metric = "n_mpjpe_resolved" if measured else "risk"
    sentences += [_difference(row, measured) for row in summary["differences"] if row["metric"] == metric]
    sentences.append("How runs ended: " + "; ".join(_ended(group) for group in groups) + ".")
    if measured:
        sentences += [_choice(group) for group in groups]
    else:
        sentences.append("Nothing here was compared with truth: risk is an estimate, not an error.")
    return [sentence for sentence in sentences if sentence]


def _best(groups: list[dict[str, Any]], measured: bool) -> str:
    def of(group: dict[str, Any]) -> dict[str, Any] | None:
        found: dict[str, Any] | None = group["errors"]["metrics"]["n_mpjpe_resolved"] if measured else group["risk"]
        return found

    known = sorted((group for group in groups if of(group)), key=lambda group: float((of(group) or {})["value"]))
    if not known:
        return "No run has a usable checkpoint."
    what, digits, unit = ("sign-resolved N-MPJPE", 1, " mm") if measured else ("median risk", None, "")
    listed = ", ".join(f"{group['representation']} {interval(of(group), digits)}{unit}" for group in known)
    lead = "Error of the checkpoints that were chosen without truth" if measured else "Lowest risk of a run"
    return f"{lead}, {what}, best first: {listed}."


def _difference(row: Mapping[str, Any], measured: bool) -> str:
    found, unit = row["difference"], " mm" if measured else ""
    sure = found["low"] > 0 or found["high"] < 0
    verb = "higher" if found["value"] > 0 else "lower"
    size = number(abs(found["value"]), 1 if measured else None)
    ends = sorted((abs(found["low"]), abs(found["high"]))) if sure else (found["low"], found["high"])
    between = f"{number(ends[0], 1 if measured else None)}..{number(ends[1], 1 if measured else None)}"
    if not sure:
        difference = number(found["value"], 1 if measured else None, sign=True)
        return (
            f"{row['first']} and {row['second']} cannot be told apart by {'error' if measured else 'risk'}: "
            f"difference {difference}{unit}, interval {between}."
        )
    delta = number(row["cliffs_delta"], 2, sign=True)
    return f"{row['first']} is {size}{unit} {verb} than {row['second']} (interval {between}, Cliff's delta {delta})."


def _ended(group: Mapping[str, Any]) -> str:
    saved = f", {group['steps_saved']:.0%} of steps saved" if group["steps_saved"] else ""
    return f"{group['representation']}, of {group['runs']} runs {verdict_words(group['verdicts'])}{saved}"


def _choice(group: Mapping[str, Any]) -> str:
    against = group["errors"]["against"]
    if not all(against.get(name) for name in ("best", "last", "random")):
        return ""
    cost = -against["best"]["value"]
    last, random = (against[name]["value"] + cost for name in ("last", "random"))
    return (
        f"{group['representation']}: choosing by risk cost {cost:.1f} mm against the best checkpoint; "
        f"the last one would have cost {last:.1f} mm, a random one {random:.1f} mm."
    )
