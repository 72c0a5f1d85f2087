"""The scorecard of bank 2: what decisions without truth are worth, beside every single signal and trivial baseline.

    make scorecard                                          # under a minute, from the committed bank
    python -m benchmarks.stability.scorecard --refresh      # and write the tables into README.md and docs/deciding.md

PROTOCOL.md says what is judged on what. Risks are those of a fit without the source that they are judged on; brackets
are 95 % bootstrap intervals over runs. Headline tables are of averaged weights.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.stability import bank, calibrate, scores
from benchmarks.stability.bank import Curves
from benchmarks.stability.histories import histories, of_run
from tips_dist.bootstrap import Statistic, mean_over_groups
from tips_dist.commands.evaluating import COLUMNS
from tips_dist.config import Policy
from tips_dist.evaluation import labels
from tips_dist.evaluation.histories import LabelledHistory
from tips_dist.evaluation.scorecard import Card, Detection, StoppingScore, detection, stopping
from tips_dist.files import write_text
from tips_dist.replay import choosable
from tips_dist.stability import goals
from tips_dist.stability.risk import CALIBRATION, Regime

HERE = Path(__file__).parent
PAGES = {"full": HERE / "README.md", "short": HERE.parents[1] / "docs" / "deciding.md"}
BEGIN, END = "<!-- scorecard:begin -->", "<!-- scorecard:end -->"
OURS, PRODUCT, BEFORE = "risk", "risk, where the product may choose", "the risk before"
SHORT = (OURS, PRODUCT, BEFORE, "views", "bones", "sliced Wasserstein", "generator's loss", "last checkpoint", "random")
LENGTHS = ("long", "short")
WORDS = {"several": "several cameras", "one": "one camera"}


def main() -> None:
    """Print the tables, and write them where they are quoted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh", action="store_true", help="write README.md and docs/deciding.md as well")
    parser.add_argument("--raw", action="store_true", help="of the raw weights")
    arguments = parser.parse_args()
    found = Bench("raw" if arguments.raw else "averaged")
    texts = {"full": full(found), "short": short(found)}
    print(texts["full"])
    if arguments.refresh:
        for page, text in texts.items():
            refresh(PAGES[page], text)


def refresh(path: Path, text: str) -> None:
    """Put ``text`` between the markers of a page, with the digest of what it is made of."""
    write_text(path, inserted(path.read_text(), f"<!-- of {digest()} -->\n{text}"))


def digest() -> str:
    """Of the bank, the calibration and the thresholds: a page that quotes another one is out of date."""
    found = hashlib.sha256(Policy().model_dump_json().encode())
    for path in [*sorted(bank.BANK.glob("*/*.npz")), CALIBRATION, goals.TABLE]:
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


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
    def seeds(self, cameras: str) -> list[LabelledHistory]:
        """All of them."""
        return histories(self.runs[cameras], self.risks[cameras])

    def card(self, cameras: str, source: str = "", length: str = "") -> Card:
        """Of one source or all, of long or short runs or all."""
        return Card(
            [
                one
                for one in self.seeds(cameras)
                if one.run.startswith(f"{source}/" if source else "") and (f"-{length}-" in one.run or not length)
            ]
        )

    @functools.cache  # noqa: B019
    def detection(self, cameras: str, source: str = "") -> dict[str, Detection]:
        """Of one source or all."""
        return detection(self.card(cameras, source))

    @functools.cache  # noqa: B019
    def stopping(self, source: str, length: str) -> dict[str, StoppingScore]:
        """Of one source or all, of long or short runs; empty without any."""
        card = self.card("several", source, length)
        return stopping(card) if card.histories else {}

    @functools.cache  # noqa: B019
    def judged(self, cameras: str) -> dict[str, dict[str, scores.Judged]]:
        """Rule -> source -> what it did."""
        found: dict[str, dict[str, scores.Judged]] = {}
        rules = {BEFORE: scores.BEFORE[cameras], **scores.SINGLE, **scores.COMBINED, **scores.TRIVIAL}
        for source in self.sources:
            own = [one for one in self.runs[cameras] if one.run.source == source]
            ours: scores.Rule = functools.partial(calibrate.log_risk, self.risks[cameras][source])
            for name, rule in {OURS: ours, **rules}.items():
                judged = scores.pooled(rule, own)
                if judged is not None:
                    found.setdefault(name, {})[source] = judged
            product = [_as_the_product(one, self.risks[cameras][source], place) for place, one in enumerate(own)]
            if (chosen := scores.together(product)) is not None:
                found.setdefault(PRODUCT, {})[source] = chosen
            random = scores.together([scores.random_choice(one, place) for place, one in enumerate(own)])
            if random is not None:
                found.setdefault("random", {})[source] = random
        return found


def _as_the_product(curves: Curves, regime: Regime, run: int) -> scores.Judged:
    """The lowest risk where the product may choose: outside mirror crossings, and once a seed has settled."""
    risks = [choosable(one).risks for one in of_run(curves, regime)]
    return scores.judged(np.stack(risks, axis=-1), curves, run)


def source_of(curves: Curves) -> str:
    """Of the motion."""
    return curves.run.source


def recipe_of(curves: Curves) -> str:
    """Of the training."""
    return curves.run.recipe


def full(found: Bench) -> str:
    """All tables, as Markdown."""
    parts = [reach_table(found), bank_table(found)]
    for cameras in calibrate.CAMERAS:
        parts += list(choice_tables(found, cameras))
        parts.append(interval_table(found, cameras))
        parts.append(recipe_table(found, cameras))
    parts += [detection_table(found), stopping_table(found)]
    return "\n\n".join(parts)


def short(found: Bench) -> str:
    """What a person who must decide needs of it."""
    parts = [reach_table(found), *(next(choice_tables(found, cameras, SHORT)) for cameras in calibrate.CAMERAS)]
    parts += [interval_table(found, cameras) for cameras in calibrate.CAMERAS]
    return "\n\n".join([*parts, detection_table(found), stopping_table(found)])


# --- tables ----------------------------------------------------------------------------------------------------------


def reach_table(found: Bench) -> str:
    """The aims, and what was measured, all sources together."""
    rows: list[list[object]] = []

    def add(aim: str, measured: Statistic | None, reached: Callable[[float], bool], digits: int = 2) -> None:
        said = "-" if measured is None or not np.isfinite(measured.value) else "no"
        rows.append([aim, figure(measured, digits), "yes" if said == "no" and reached(measured.value) else said])  # type: ignore[union-attr]

    told = found.detection("several")["detectors (ours)"]
    add("diverged seeds told, 0.90", told.told, lambda x: x >= 0.9)
    add("crossing seeds told, 0.90", told.crossing, lambda x: x >= 0.9)
    add("drifting seeds told, 0.80", told.drifting, lambda x: x >= 0.8)
    add("healthy seeds stopped, at most 0.05", told.false_stops, lambda x: x <= 0.05)
    add("AUROC of the alarm's score, 0.97", told.auroc, lambda x: x >= 0.97)
    for length, saved in (("long", 0.4), ("short", None)):
        row = found.stopping("", length).get("verdicts (ours)")
        if row is None:
            continue
        if saved is not None:
            add(f"steps saved on {length} runs, {saved:.2f}", row.saved, lambda x: x >= 0.4)
        add(f"share of the error lost on {length} runs, at most 0.01", row.lost, lambda x: x <= 0.01, 3)
        rows.append(
            [f"best seeds lost, {length} runs, none", f"{row.best_lost} of {row.trials}", _said(not row.best_lost)]
        )
    for cameras, aim in (("several", 1.0), ("one", 2.0)):
        by = found.judged(cameras)[OURS]
        judged = scores.together([renumbered(one, place) for place, one in enumerate(by.values())])
        if judged is not None:
            regret = mean_over_groups(judged.regret, judged.run)
            add(f"{WORDS[cameras]}: regret, mm, {aim:.0f}", regret, lambda x, aim=aim: x <= aim, 1)  # type: ignore[misc]
            lasting = long_regret(found, cameras)
            add(f"{WORDS[cameras]}: the same, long runs", lasting, lambda x, aim=aim: x <= aim, 1)  # type: ignore[misc]
            add(
                f"{WORDS[cameras]}: Spearman within a run, 0.90",
                mean_over_groups(judged.within, judged.run),
                lambda x: x >= 0.9,
            )
        shares = [calibrate.covered(found.risks[cameras][one.run.source], [one]) for one in found.runs[cameras]]
        places = np.repeat(np.arange(len(shares)), [len(one[0]) for one in shares])
        inside = mean_over_groups(np.concatenate([one[0] for one in shares]), places)
        add(f"{WORDS[cameras]}: errors inside the 90 % interval, 0.85 to 0.95", inside, lambda x: 0.85 <= x <= 0.95)
        better = level(found.judged(cameras))
        words = "; ".join(better) or "none"
        rows.append([f"{WORDS[cameras]}: single signals that choose better than the risk", words, _said(not better)])
    return table("**Aims and what was measured**, sources left out, all together", ["aim", "measured", "reached"], rows)


def long_regret(found: Bench, cameras: str) -> Statistic | None:
    """Regret of the risk on long runs, most of which settle."""
    judged = []
    for place, curves in enumerate(one for one in found.runs[cameras] if one.run.length == "long"):
        rule: scores.Rule = functools.partial(calibrate.log_risk, found.risks[cameras][curves.run.source])
        judged.append(scores.judge(rule, curves, place))
    total = scores.together([one for one in judged if one is not None])
    return None if total is None else mean_over_groups(total.regret, total.run)


def renumbered(judged: scores.Judged, place: int) -> scores.Judged:
    """Runs of different sources are different runs."""
    return replace(judged, run=judged.run + 1000 * place)


def _said(reached: bool) -> str:
    return "yes" if reached else "no"


def bank_table(found: Bench) -> str:
    """How many runs and seeds, and what became of them."""
    rows = []
    for source in found.sources:
        for length in LENGTHS:
            card = found.card("several", source, length)
            if not card.histories:
                continue
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
        "regret, mm": lambda one: figure(mean_over_groups(one.regret, one.run), 1),
        "Spearman with true error within a run": lambda one: figure(mean_over_groups(one.within, one.run)),
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
        rows.append([source, f"+ {100 * regime.plus_minus:.0f} %", figure(mean_over_groups(shares, places)),
                     figure(mean_over_groups(chosen, places)), f"{np.exp(off):.2f}"])  # fmt: skip
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
            cells = [mean_over_groups(judged.regret, judged.run), mean_over_groups(judged.within, judged.run)]
            rows.append([recipe, len(judged.run), figure(cells[0], 1), figure(cells[1]),
                         figure(mean_over_groups(shares, places))])  # fmt: skip
    head = ["recipe left out", "seeds", "regret, mm", "Spearman within a run", "errors inside"]
    return table(f"**{WORDS[cameras]}: the risk on recipes left out**", head, rows)


def detection_table(found: Bench) -> str:
    """What detectors told, by source."""
    columns = ["told", "drifting", "crossing", "false_stops", "crossing_stopped", "delay", "auroc"]
    rows = []
    for cameras in calibrate.CAMERAS:
        for source in found.sources:
            for name, row in found.detection(cameras, source).items():
                if cameras == "several" or name.endswith("(ours)"):
                    rows.append([WORDS[cameras], source, name, *(figure(getattr(row, column)) for column in columns)])
    return table("**Detection**", ["cameras", "source", "alarm", *(COLUMNS[column] for column in columns)], rows)


def stopping_table(found: Bench) -> str:
    """What stopping saved and lost, long and short runs apart."""
    rows = []
    for length in LENGTHS:
        for source in found.sources:
            for name, row in found.stopping(source, length).items():
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
                difference = mean_over_groups(judged.regret - ours.regret, judged.run)
                if difference.high < 0:
                    better.append(f"{name} on {source}, {-difference.value:.1f} mm")
    return better


if __name__ == "__main__":
    main()
