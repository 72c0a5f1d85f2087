from __future__ import annotations

from pathlib import Path

import pytest

from tips_dist.files import UserError
from tips_dist.report import choosing
from tips_dist.report.comparing import comparison_notes, comparison_tables
from tips_dist.report.formats import fitted, latex
from tips_dist.report.runs import seed_runs
from tips_dist.report.summary import summarise
from tips_dist.report.tables import (
    Table,
    difference_tables,
    importance_table,
    notes,
    representation_tables,
    trial_table,
)
from tips_dist.runfolder import RunFolder, layout
from tips_dist.runfolder.example import build


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(build(tmp_path_factory.mktemp("choosing") / "run", trials=3, steps=400))


@pytest.mark.parametrize(
    ("conditions", "trials"),
    [
        ([], 6),
        (["representation=solo"], 3),
        (["representation!=solo"], 3),
        (["trial=solo-001"], 1),
        (["training.steps=400", "representation=SOLO"], 3),
        (["training.generator_lr > 0"], 6),
        (["model.batch_norm=false"], 6),
    ],
)
def test_where(run: RunFolder, conditions: list[str], trials: int) -> None:
    chosen = choosing.where(run, conditions)
    assert len(chosen.trials) == trials
    assert {item.trial for item in seed_runs(chosen)} == {trial.id for trial in chosen.trials}
    assert [group.representation for group in summarise(chosen).representations] == list(
        dict.fromkeys(trial.representation for trial in chosen.trials)
    )


def test_where_compares_numbers_as_numbers(run: RunFolder) -> None:
    rates = [float(trial.parameters["training.generator_lr"]) for trial in run.trials]
    limit = sorted(rates)[2]
    assert len(choosing.where(run, [f"training.generator_lr<={limit}"]).trials) == 3


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("solo", "expected KEY=VALUE"),
        ("training.rate=1", "no key 'training.rate'"),
        ("representation<3", "is no number"),
        ("training.steps=many", "is a number, 'many' is not"),
        ("representation=left_right", "no trial of"),
    ],
)
def test_a_bad_condition_is_named(run: RunFolder, condition: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        choosing.where(run, [condition])


@pytest.mark.parametrize("key", ["risk", "error", "training.generator_lr", "stopped_step", "trial"])
@pytest.mark.parametrize("descending", [False, True])
def test_sort(run: RunFolder, key: str, descending: bool) -> None:
    trials = summarise(run).trials
    values = [choosing._value(trial, key) for trial in choosing.by(trials, key, descending=descending)]
    assert values == sorted(values, reverse=descending)
    assert len(values) == 6


def test_sort_puts_trials_without_a_value_last(run: RunFolder) -> None:
    trials = summarise(run).trials
    trials[0] = trials[0].model_copy(update={"risk": None})
    for descending in (False, True):
        assert choosing.by(trials, "risk", descending=descending)[-1] is trials[0]
    with pytest.raises(UserError, match="--sort speed: expected one of trial"):
        choosing.by(trials, "speed")


def test_a_wide_table_goes_on_below_and_loses_nothing(run: RunFolder) -> None:
    table = trial_table(summarise(run))
    parts = fitted(table, 60)
    assert len(parts) > 1
    assert [name for part in parts for name in part.head[1:]] == list(table.head[1:])
    for part in parts:
        assert [row[0] for row in part.rows] == [row[0] for row in table.rows]
        widest = [max(len(word) for cell in cells for word in cell.split()) for cells in zip(*part.rows, strict=True)]
        assert sum(widest) + len(widest) <= 60
    assert fitted(table, 500) == [Table(table.title, table.head, list(table.rows))]


def test_latex_is_balanced_and_escaped(run: RunFolder) -> None:
    summary = summarise(run)
    text = latex([*representation_tables(summary), *difference_tables(summary), trial_table(summary)], notes(summary))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 6
    body = "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"torso\_legs" in body
    assert "torso_legs" not in body
    assert ".." not in body
    for table in text.split(r"\begin{table}")[1:]:
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1


def test_importances_by_size() -> None:
    (table,) = importance_table({"solo": {"a": 0.2, "b": 0.8}, "torso_legs": None})
    assert table.rows == [("solo", "b", "80%"), ("solo", "a", "20%")]
    assert importance_table({"solo": None}) == []


def test_studies_side_by_side(tmp_path: Path) -> None:
    runs = [RunFolder(build(tmp_path / name, trials=1, steps=steps)) for name, steps in (("a", 200), ("b", 400))]
    numbers, settings = comparison_tables(runs, [summarise(run) for run in runs])
    assert [row[0] for row in numbers.rows] == ["solo, a", "solo, b", "torso_legs, a", "torso_legs, b"]
    assert settings.rows == [("training.steps", "200", "400")]
    assert any("different budgets" in line for line in comparison_notes(runs))


def test_studies_of_other_data_are_not_comparable(tmp_path: Path) -> None:
    folders = [build(tmp_path / name, trials=1, steps=200) for name in ("a", "b")]
    record = RunFolder(folders[1]).study
    other = record.data.model_copy(update={"digest": "0" * 64})
    record.model_copy(update={"data": other}).save(layout.STUDY.at(folders[1]))
    assert comparison_notes([RunFolder(folder) for folder in folders]) == [
        "The studies saw different data: neither risks nor errors can be compared across them."
    ]
