"""The scorecard of bank 2: what decisions without truth are worth, beside every single signal and trivial baseline.

    make scorecard                                          # under a minute, from the committed bank
    python -m benchmarks.stability.scorecard --refresh      # and write the tables into README.md and docs/deciding.md

PROTOCOL.md says what is judged on what. Risks are those of a fit without the source that they are judged on; brackets
are 95 % bootstrap intervals over runs. Headline tables are of averaged weights.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.stability import bank, calibrate, scores
from benchmarks.stability.bank import Curves
from benchmarks.stability.histories import histories
from tips_dist.bootstrap import Statistic
from tips_dist.commands.evaluating import COLUMNS
from tips_dist.evaluation import labels
from tips_dist.evaluation.scorecard import Card, detection, stopping
from tips_dist.files import write_text
from tips_dist.stability.risk import Regime

HERE = Path(__file__).parent
PAGES = {"full": HERE / "README.md", "short": HERE.parents[1] / "docs" / "deciding.md"}
BEGIN, END = "<!-- scorecard:begin -->", "<!-- scorecard:end -->"
OURS = "risk"
SHORT = (OURS, "round weights", "views", "bones", "sliced Wasserstein", "generator's loss", "last checkpoint", "random")
WORDS = {"several": "several cameras", "one": "one camera"}


def main() -> None:
    """Print the tables, and write them where they are quoted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh", action="store_true", help="write README.md and docs/deciding.md as well")
    parser.add_argument("--raw", action="store_true", help="of the raw weights")
    arguments = parser.parse_args()
    found = Bench("raw" if arguments.raw else "averaged")
    print(full(found))
    if arguments.refresh:
        for page, text in (("full", full(found)), ("short", short(found))):
            refresh(PAGES[page], text)


def refresh(path: Path, text: str) -> None:
    """Put ``text`` between the markers of a page."""
    write_text(path, inserted(path.read_text(), text))


def inserted(page: str, text: str) -> str:
    """A page with ``text`` between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


class Bench:
    """The bank, and the risks that were fitted without each source."""

    def __init__(self, kind: str = "averaged") -> None:
        self.kind = kind
        everything = {cameras: list(bank.load(cameras=cameras)) for cameras in calibrate.CAMERAS}
        self.runs = {name: [one for one in runs if one.kind == kind] for name, runs in everything.items()}
        self.chosen: dict[str, str] = {}  # cameras -> form of the risk
        self.risks: dict[str, dict[str, Regime]] = {}  # cameras -> source left out -> risk
        self.recipes: dict[str, dict[str, Regime]] = {}
        for cameras, regime in calibrate.CAMERAS.items():
            self.chosen[cameras], _ = calibrate.best_form(regime, everything[cameras])
            fit = calibrate.forms(regime)[self.chosen[cameras]]
            self.risks[cameras] = calibrate.left_out(fit, everything[cameras], source_of)
            self.recipes[cameras] = calibrate.left_out(fit, everything[cameras], recipe_of)

    @property
    def sources(self) -> list[str]:
        """In the order of the bank."""
        return list(self.risks["several"])

    @functools.cache  # noqa: B019 - one bench, a handful of calls
    def histories(self, cameras: str, source: str) -> list[Card]:
        """Long and short runs of a source."""
        own = [one for one in self.runs[cameras] if one.run.source == source]
        lengths = [[one for one in own if one.run.length == length] for length in ("long", "short")]
        return [Card(histories(runs, self.risks[cameras])) for runs in [own, *lengths]]

    def judged(self, cameras: str) -> dict[str, dict[str, scores.Judged]]:
        """Rule -> source -> what it did."""
        found: dict[str, dict[str, scores.Judged]] = {}
        rules = {"round weights": scores.ROUND[cameras], **scores.SINGLE, **scores.COMBINED, **scores.TRIVIAL}
        for source in self.sources:
            own = [one for one in self.runs[cameras] if one.run.source == source]
            ours = functools.partial(calibrate.log_risk, self.risks[cameras][source])
            for name, rule in {OURS: ours, **rules}.items():
                judged = scores.pooled(rule, own)
                if judged is not None:
                    found.setdefault(name, {})[source] = judged
            random = scores.together([scores.random_choice(one, place) for place, one in enumerate(own)])
            if random is not None:
                found.setdefault("random", {})[source] = random
        return found


def source_of(curves: Curves) -> str:
    """Of the motion."""
    return curves.run.source


def recipe_of(curves: Curves) -> str:
    """Of the training."""
    return curves.run.recipe


def full(found: Bench) -> str:
    """All tables, as Markdown."""
    parts = [bank_table(found)]
    for cameras in calibrate.CAMERAS:
        parts += list(choice_tables(found, cameras))
        parts.append(interval_table(found, cameras))
        parts.append(recipe_table(found, cameras))
    parts += [detection_table(found), stopping_table(found)]
    return "\n\n".join(parts)


def short(found: Bench) -> str:
    """What a person who must decide needs of it."""
    parts = [next(choice_tables(found, cameras, SHORT)) for cameras in calibrate.CAMERAS]
    parts += [interval_table(found, cameras) for cameras in calibrate.CAMERAS]
    return "\n\n".join([*parts, detection_table(found), stopping_table(found)])


# --- tables ----------------------------------------------------------------------------------------------------------


def bank_table(found: Bench) -> str:
    """How many runs and seeds, and what became of them."""
    rows = []
    for source in found.sources:
        for length, card in zip(("long", "short"), found.histories("several", source)[1:], strict=True):
            fates = Counter(history.fate for history in card.histories)
            crossed = sum(history.crossed for history in card.histories)
            counts = [fates[fate] for fate in labels.FATES]
            rows.append([source, length, len(card.trials), len(card.histories), *counts, crossed])
    head = ["source", "runs", "configurations", "seeds", *labels.FATES, "of all: crossed"]
    return table(f"**What became of the seeds** ({found.kind} weights)", head, rows)


def choice_tables(found: Bench, cameras: str, names: Sequence[str] | None = None) -> Iterator[str]:
    """Regret, and the two rank correlations, of every rule by source."""
    judged = {name: by for name, by in found.judged(cameras).items() if names is None or name in names}
    measures: dict[str, Callable[[scores.Judged], str]] = {
        "regret, mm": lambda one: figure(scores.mean(one.regret, one.run), 1),
        "Spearman with true error within a run": lambda one: figure(scores.mean(one.within, one.run)),
        "Spearman with true error across seeds": lambda one: figure(scores.across(one)),
    }
    for measure, print_one in measures.items():
        rows = [[name, *(print_one(by[source]) if source in by else "" for source in found.sources)]
                for name, by in judged.items()]  # fmt: skip
        rows = [row for row in rows if any(cell not in ("", "-") for cell in row[1:])]
        title = f"**{WORDS[cameras]}: {measure}**; risk of a fit without the source, form: {found.chosen[cameras]}"
        yield table(title, ["rule", *found.sources], rows)
        if measure.startswith("regret"):
            continue


def interval_table(found: Bench, cameras: str) -> str:
    """How often the 90 % interval of a risk holds the true error."""
    rows = []
    for source, regime in found.risks[cameras].items():
        own = [one for one in found.runs[cameras] if one.run.source == source]
        shares, chosen, places = calibrate.covered(regime, own)
        off = calibrate.residuals(regime, own).median
        rows.append([source, f"+ {100 * regime.plus_minus:.0f} %", figure(scores.mean(shares, places)),
                     figure(scores.mean(chosen, places)), f"{np.exp(off):.2f}"])  # fmt: skip
    head = ["source left out", "interval", "errors inside", "of chosen checkpoints", "error over risk, median"]
    return table(f"**{WORDS[cameras]}: the risk in millimetres**, 90 % wanted", head, rows)


def recipe_table(found: Bench, cameras: str) -> str:
    """Regret and coverage with the recipe left out."""
    rows = []
    for recipe, regime in found.recipes[cameras].items():
        own = [one for one in found.runs[cameras] if one.run.recipe == recipe]
        judged = scores.pooled(functools.partial(calibrate.log_risk, regime), own)
        shares, _, places = calibrate.covered(regime, own)
        if judged is not None:
            cells = [scores.mean(judged.regret, judged.run), scores.mean(judged.within, judged.run)]
            rows.append([recipe, len(judged.run), figure(cells[0], 1), figure(cells[1]),
                         figure(scores.mean(shares, places))])  # fmt: skip
    head = ["recipe left out", "seeds", "regret, mm", "Spearman within a run", "errors inside"]
    return table(f"**{WORDS[cameras]}: the risk on recipes left out**", head, rows)


def detection_table(found: Bench) -> str:
    """What detectors told, by source."""
    columns = ["told", "drifting", "crossing", "false_stops", "crossing_stopped", "delay", "auroc"]
    rows = []
    for cameras in calibrate.CAMERAS:
        for source in found.sources:
            for name, row in detection(found.histories(cameras, source)[0]).items():
                if cameras == "several" or name.endswith("(ours)"):
                    rows.append([WORDS[cameras], source, name, *(figure(getattr(row, column)) for column in columns)])
    return table("**Detection**", ["cameras", "source", "alarm", *(COLUMNS[column] for column in columns)], rows)


def stopping_table(found: Bench) -> str:
    """What stopping saved and lost, long and short runs apart."""
    rows = []
    for place, length in enumerate(("long", "short"), 1):
        for source in found.sources:
            card = found.histories("several", source)[place]
            for name, row in (stopping(card) if card.histories else {}).items():
                lost = [figure(row.saved), figure(row.lost_mm), figure(row.lost, 3), f"{row.best_lost} of {row.trials}"]
                rows.append([length, source, name, *lost])
    head = ["runs", "source", "rule", "steps saved", "mm lost", "share of the error lost", "best seed lost"]
    return table("**Stopping**, several cameras", head, rows)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    lines = [title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def figure(found: Statistic | None, digits: int = 2) -> str:
    """A value with its interval."""
    if found is None or not np.isfinite(found.value):
        return "-"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f}..{found.high:.{digits}f})"


def level(found: Mapping[str, Mapping[str, scores.Judged]]) -> list[str]:
    """Single signals that choose better than the risk by more than the interval of the difference."""
    better = []
    for name in scores.SINGLE:
        for source, judged in found.get(name, {}).items():
            ours = found[OURS][source]
            if len(ours.regret) == len(judged.regret):
                difference = scores.mean(judged.regret - ours.regret, judged.run)
                if difference.high < 0:
                    better.append(f"{name} on {source}, {-difference.value:.1f} mm")
    return better


if __name__ == "__main__":
    main()
