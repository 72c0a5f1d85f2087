"""Commands that open truth, and nothing else does: evaluate, scorecard, and the end of ``run --truth``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.commands.aside import Aside
from tips_dist.commands.output import console, print_json, say, showing
from tips_dist.files import JSON, UserError

if TYPE_CHECKING:
    from tips_dist.bootstrap import Statistic
    from tips_dist.data.store import Poses
    from tips_dist.evaluation.evaluate import TrueCurves
    from tips_dist.evaluation.scorecard import Called, Scorecard
    from tips_dist.report.tables import Table

COLUMNS = {
    "within": "within a seed (median)",
    "across": "across seeds",
    "mm": "regret, mm",
    "share": "of the random-to-oracle gap",
    "auroc": "AUROC",
    "told": "diverged told",
    "drifting": "drifting told",
    "crossing": "crossings told",
    "false_stops": "healthy stopped",
    "crossing_stopped": "crossing stopped",
    "delay": "delay, of the budget",
    "saved": "steps saved",
    "lost_mm": "mm lost",
    "lost": "of the error",
    "best_lost": "best seed lost",
}
TABLES = {
    "ordering": ("estimate", "How well the risk orders checkpoints: Spearman with the true error"),
    "selection": ("choice", "What choosing checkpoints without truth costs against the best of each seed"),
    "detection": ("alarm", "Seeds that went wrong told, others stopped by mistake, and after how much delay (median)"),
    "stopping": (
        "rule",
        "What stopping saves, costs at the checkpoint then selected, and trials that lose their best seed",
    ),
}


def evaluate(folder: Path, truth: Path, poses: Path | None, *, device: str = "auto", as_json: bool) -> None:
    """Evaluate a run, print the tables that show it."""
    from tips_dist.devices import device_for
    from tips_dist.evaluation.evaluate import evaluate_run
    from tips_dist.report import formats, summary, tables
    from tips_dist.report.answer_words import answer_lines

    with showing("evaluating", folder):
        result = evaluate_run(folder, truth, poses, device=device_for(device))
        found = summary.write_summary(folder)
    if as_json:
        print_json(result.plain())
        return
    formats.print_answer(console(), answer_lines(found))
    formats.print_tables(console(), tables.representation_tables(found), tables.notes(found))
    say(f"Wrote {folder / 'evaluation.json'}")


def evaluate_network(
    weights: Path,
    truth: Path,
    poses: Path | None,
    split: str,
    output: Path | None,
    *,
    device: str = "auto",
    as_json: bool,
) -> None:
    """Evaluate one candidate or student on one split of any data set, print the tables."""
    if poses is None:
        raise UserError(f"evaluate {weights}: say which poses with --poses NAME.pose2d.h5")
    from tips_dist.devices import device_for
    from tips_dist.evaluation import evaluate as evaluations
    from tips_dist.report import errors, formats

    with showing("evaluating"):
        result = evaluations.evaluate_weights(
            weights, truth, poses, split=split, output=output, device=device_for(device)
        )
    if as_json:
        print_json(result.plain())
        return
    known = "the data set it was trained on" if result.trained_on_this_data else "a data set it never saw"
    notes = [f"{result.poses.source}: {known}."]
    notes += [f"Wrote {output}"] if output else []
    title = f"{weights.name} on {split}"
    formats.print_tables(console(), errors.error_tables(result.metrics, title), notes)


class AtTheEnd(Aside["TrueCurves"]):
    """The evaluation that ends a run, after everything is decided.

    What needs no student, the errors of every evaluation step, is measured while that is taught, in another process.
    """

    def __init__(self, truth: Path) -> None:
        super().__init__(measure_run, needed=["tips_dist.evaluation.evaluate"])
        self.truth = truth

    def conclude(self, run: Path, poses: Poses) -> None:
        """Select and distil a run whose trials have ended, as a study does by itself."""
        from tips_dist.study.run import select_and_distil

        self.start()
        select_and_distil(run, poses, decided=lambda: self.begin(run, self.truth))

    def evaluate(self, folder: Path) -> None:
        """Evaluate the run."""
        from tips_dist.devices import AUTO, device_for
        from tips_dist.evaluation.evaluate import evaluate_run

        evaluate_run(folder, self.truth, device=device_for(AUTO), measured=self.result())


def measure_run(folder: Path, truth: Path) -> TrueCurves:
    """The true errors of every evaluation step of a run."""
    from tips_dist.evaluation.evaluate import measure_curves
    from tips_dist.runfolder import RunFolder

    return measure_curves(RunFolder(folder), truth)


def show_scorecard(
    folders: Sequence[Path], truth: Path, poses: Path | None, policy: Path | None, *, as_json: bool, output: Path | None
) -> None:
    """Say how good the decisions of one or more runs were, of each and of all together."""
    from tips_dist.audit import read_policy
    from tips_dist.evaluation import scorecard as cards
    from tips_dist.evaluation.evaluate import labelled_histories
    from tips_dist.files import write_json

    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("scorecard: a run folder is named twice, so its seeds would count twice")
    names = [folder.name for folder in folders] if len({f.name for f in folders}) == len(folders) else map(str, folders)
    chosen = read_policy(policy) if policy else None
    with showing("replaying decisions"):
        runs = {
            name: labelled_histories(path, truth, poses, name=name) for name, path in zip(names, folders, strict=True)
        }
        found = {name: cards.scorecard(histories, chosen) for name, histories in runs.items()}
        pooled = cards.scorecard([one for histories in runs.values() for one in histories], chosen)
    document = {
        "schema": 2,
        "runs": {name: plain_scorecard(card) for name, card in found.items()},
        "pooled": plain_scorecard(pooled) if len(runs) > 1 else None,
    }
    if output is not None:
        write_json(output, document)
    if as_json:
        print_json(document)
        return
    for name, card in found.items():
        print_scorecard(name, card, called=True)
    if len(runs) > 1:
        print_scorecard(f"all {len(runs)} runs together", pooled, called=False)
    if output is not None:
        say(f"Wrote {output}")


def plain_scorecard(card: Scorecard) -> dict[str, JSON]:
    """A scorecard as JSON values; what is not finite is null."""
    plain: dict[str, JSON] = _plain(dataclasses.asdict(card))
    return plain


def print_scorecard(name: str, card: Scorecard, *, called: bool) -> None:
    """The answer, then the tables; with ``called`` also what was said of each seed."""
    from tips_dist.report.formats import print_tables

    shown = [_table(key, getattr(card, key)) for key in TABLES if getattr(card, key)]
    lines = [f"Brackets: 95 % bootstrap interval over {card.drawn}."]
    if card.covered is not None and not math.isnan(card.covered.value):
        inside = f"{100 * card.covered.value:.0f} % ({100 * card.covered.low:.0f}..{100 * card.covered.high:.0f})"
        lines.append(
            f"Of the checkpoints after the first quarter {inside} have an error within the 90 % interval of their risk."
        )
    if card.cut:
        lines.append(
            f"{card.cut} of {card.seeds} histories were cut by stopping when they were made: what would have come is "
            "unknown, so detection and stopping leave them out. For a full answer train with stopping.divergence=off "
            "and stopping.plateau=off."
        )
    say(_headline(name, card))
    print_tables(console(), [*shown, *([_called(card)] if called else [])], lines)


def _headline(name: str, card: Scorecard) -> str:
    """The answer first: what a user of the run gets, and what the oracle would have got."""
    said = (
        f"{name}: {card.seeds} seeds of {card.trials} trials, {card.diverged} truly diverged, {card.drifting} drifted, "
    )
    said += f"{card.crossed} crossed."
    if card.chosen is None:
        return f"{said} No checkpoint has a risk and an error."
    one = card.chosen
    same = one.error_mm <= one.best_mm
    cost = "the best there is" if same else f"{one.error_mm - one.best_mm:.1f} mm above the best there is"
    best = "" if same else f" ({one.best_trial} seed {one.best_seed} step {one.best_step}, {one.best_mm:.1f} mm)"
    return (
        f"{said} Lowest risk of all: {one.trial} seed {one.seed} step {one.step}, {one.error_mm:.1f} mm; {cost}{best}."
    )


def _table(key: str, rows: Mapping[str, Any]) -> Table:
    from tips_dist.report.tables import Table

    first, title = TABLES[key]
    plain = {name: vars(row) for name, row in rows.items()}
    columns = [column for column in COLUMNS if any(row.get(column) is not None for row in plain.values())]
    body = [(name, *(_cell(row, column) for column in columns)) for name, row in plain.items()]
    return Table(title, (first, *(COLUMNS[column] for column in columns)), body)


def _called(card: Scorecard) -> Table:
    from tips_dist.report.tables import Table, number

    head = ("trial", "seed", "verdict", "called at", "since", "truly", "selected", "best", "last", "why")
    rows = [
        (
            row.trial,
            str(row.seed),
            row.verdict,
            number(row.called, 0),
            number(row.onset, 0),
            _became(row),
            *(number(mm, 1) for mm in (row.selected_mm, row.best_mm, row.last_mm)),
            row.reason,
        )
        for row in card.called
    ]
    return Table("What was called of each seed and when, what truly became of it, and its errors in mm", head, rows)


def _became(row: Called) -> str:
    """What truly became of a seed, in a few words."""
    words = row.fate + (f" from {row.true_onset}" if row.true_onset is not None else "")
    return words + (", crossed" if row.crossed else "") + (", by then" if row.cut else "")


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column == "best_lost":
        return f"{row[column]} of {row['trials']}"
    found: Statistic | None = row.get(column)
    if found is None or math.isnan(found.value):
        return "-"
    return f"{found.value:.2f} ({found.low:.2f}..{found.high:.2f})"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
