"""Several runs in one page: what differs, how sure that is, and what is drawn of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests import chromium
from tips_dist.report import comparing
from tips_dist.report.comparison_page import write_comparison
from tips_dist.report.summary import summarise
from tips_dist.runfolder import RunFolder, layout
from tips_dist.runfolder.example import build
from tips_dist.runfolder.records import Trial


def worse(run: Path, by: float) -> None:
    """Raise all risks of a run."""
    for path in run.glob(layout.TRIAL.pattern):
        trial = Trial.load(path)
        assert trial.outcome is not None
        seeds = [
            seed.model_copy(update={"best_risk": None if seed.best_risk is None else seed.best_risk + by})
            for seed in trial.outcome.seeds
        ]
        trial.now(outcome=trial.outcome.model_copy(update={"seeds": seeds})).write(run)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunFolder]:
    """The same study twice, the second with worse risks and not evaluated."""
    folders = [build(tmp_path / name, trials=1, seeds=8, steps=400) for name in ("first", "second")]
    worse(folders[1], 0.2)
    layout.EVALUATION.at(folders[1]).unlink()
    return [RunFolder(folder) for folder in folders]


def test_a_difference_is_told_where_it_is_sure(runs: list[RunFolder]) -> None:
    found = comparing.run_differences(runs, [summarise(run) for run in runs])
    assert [(row.representation, row.metric) for row in found] == [("solo", "risk"), ("torso_legs", "risk")]
    row = found[1]
    assert row.sure
    assert row.difference.value == pytest.approx(-0.2)
    assert row.chance < 0.05
    line = comparing.comparison_lines(found)[1].text
    assert line.startswith(
        "torso_legs, best configurations, risk, an estimate: first (torso_legs-000) is better than second"
    )


def test_a_study_cannot_be_told_from_itself(tmp_path: Path) -> None:
    runs = [RunFolder(build(tmp_path / name, trials=1, seeds=8, steps=400)) for name in ("a", "b")]
    found = comparing.run_differences(runs, [summarise(run) for run in runs])
    assert {row.metric for row in found} == {"risk", "n_mpjpe_resolved"}
    assert not any(row.sure for row in found)
    assert all("cannot be told apart" in line.text for line in comparing.comparison_lines(found))


def test_several_tests_at_once_count_as_several(tmp_path: Path) -> None:
    """Holm: the smallest of k chances is taken k times, and none falls below one that was smaller."""
    rows = comparing.run_differences(
        runs := [RunFolder(build(tmp_path / name, trials=1, seeds=8, steps=400)) for name in "ab"],
        [summarise(run) for run in runs],
    )
    chances = [0.04, 0.01, 0.03]
    corrected = comparing._holm([replace(rows[0], chance=chance) for chance in chances])
    assert [row.chance for row in corrected] == pytest.approx([0.06, 0.03, 0.06])


def test_studies_of_other_data_are_not_tested(runs: list[RunFolder]) -> None:
    record = runs[1].study
    other = record.data.model_copy(update={"digest": "0" * 64})
    record.model_copy(update={"data": other}).save(layout.STUDY.at(runs[1].path))
    runs = [RunFolder(run.path) for run in runs]
    assert comparing.run_differences(runs, [summarise(run) for run in runs]) == []
    assert "notes" in comparing.comparison_lines([])[0].text


def test_one_page_for_several_runs(runs: list[RunFolder], tmp_path: Path) -> None:
    text = write_comparison(tmp_path / "page.html", runs, [summarise(run) for run in runs]).read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Side by side", "The numbers", "Over the steps"]
    assert text.index("is better than second") < text.index("<h2>")
    figures = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)]
    traces = [trace for figure in figures for trace in figure["data"] if trace["mode"] == "lines"]
    lines = {trace.get("name"): trace["line"] for trace in traces}
    first, second = lines["torso_legs, first"], lines["torso_legs, second"]
    assert first["color"] == second["color"]  # the representation's
    assert first["dash"] != second["dash"]  # the run's


def test_lists_that_were_set_differently_are_words(tmp_path: Path) -> None:
    runs = [RunFolder(build(tmp_path / "-".join(names), representations=names, trials=1, seeds=2, steps=200))
            for names in (("solo",), ("solo", "torso_legs"))]  # fmt: skip
    [table] = comparing._settings(runs, ["one", "two"])
    assert ("representations", "solo", "solo, torso_legs") in table.rows


@chromium.needed
def test_chromium_draws_the_comparison(runs: list[RunFolder], tmp_path: Path) -> None:
    page_file = write_comparison(tmp_path / "page.html", runs, [summarise(run) for run in runs])
    with chromium.opened(page_file.as_uri(), 1280, 2500) as (page, told):
        count = page.locator("figure").count()
        page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {count}")
    assert count >= 3
    assert told.console == []
    assert told.requests == []
