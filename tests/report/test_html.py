from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from plotly.offline import get_plotlyjs_version

from tests import chromium
from tips_dist.bootstrap import Statistic
from tips_dist.drawing import SIDE_COLOUR
from tips_dist.report.curves import band, read_series
from tips_dist.report.figures import stops
from tips_dist.report.forest import forest_figures
from tips_dist.report.html import write_report
from tips_dist.report.style import REPRESENTATION, VERDICT_COLOUR
from tips_dist.report.summary import write_summary
from tips_dist.runfolder import RunFolder, TrialState, read_trial
from tips_dist.runfolder.example import build
from tips_dist.runfolder.fetching import fetch_run
from tips_dist.runfolder.results import TrialSummary
from tips_dist.study.importance import importances

PLOTLY_SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
HOSTILE = '</script><img src="https://example.invalid/x.png"> &'


def write(run: Path) -> Path:
    """The report of a synthetic run, with everything in it that a report can have."""
    folder, summary = RunFolder(run), write_summary(run)
    poses = np.random.default_rng(0).normal(0, 0.1, (64, 17, 2))
    ranks = importances(folder.study.study, summary.trials)
    return write_report(folder, summary, importances=ranks, poses=poses)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = build(tmp_path_factory.mktemp("report") / "run", trials=6, seeds=8, steps=1000, depths=64)
    record = read_trial(run, "solo-000")
    assert record.outcome is not None
    seeds = [seed.model_copy(update={"reason": HOSTILE}) for seed in record.outcome.seeds]
    record.now(outcome=record.outcome.model_copy(update={"seeds": seeds})).write(run)
    return write(run)


def figures(text: str) -> list[dict[str, Any]]:
    return [
        json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    ]


def test_the_page_has_every_section_and_the_answer_first(report: Path) -> None:
    text = report.read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Side by side", "Lifted poses", "The numbers", "Over the steps", "When and why runs ended", "Risk and error",
        "Search", "What depths depend on", "Selection", "Every trial", "Environment",
    ]  # fmt: skip
    assert text.index('class="answer"') < text.index("<h2>")
    assert "torso_legs" in text[text.index('class="answer"') : text.index("<h2>")]
    for digest in ("d" * 64, "e" * 64, "f" * 64):
        assert digest in text


def test_every_figure_has_words_for_who_cannot_see_it(report: Path) -> None:
    text = report.read_text()
    labels = re.findall(r'role="group" aria-label="([^"]*)"', text)
    assert len(labels) == text.count("<figure>") == len(figures(text)) >= 12
    assert all(len(label) > 40 for label in labels)
    assert any("median from" in label for label in labels)


def test_names_from_outside_cannot_become_markup(report: Path) -> None:
    text = report.read_text()
    assert HOSTILE not in text
    assert 'src="https://' not in text


def test_a_representation_has_one_colour_everywhere(report: Path) -> None:
    for figure in figures(report.read_text()):
        for trace in figure["data"]:
            look = REPRESENTATION.get(trace.get("name", ""))
            colour = (trace.get("line") or trace.get("marker") or {}).get("color")
            if look is not None and isinstance(colour, str) and colour.startswith("#"):
                assert colour == look.colour


def test_the_page_of_144_runs_stays_below_2_5_mb(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=9, seeds=8, steps=12_000, every=100, depths=64)
    assert write(run).stat().st_size < 2.5e6


def test_the_packed_library_is_the_plotly_that_was_published(report: Path) -> None:
    """The file of the npm package plotly.js-cartesian-dist-min, of the version that plotly.py brings whole."""
    (packed,) = re.findall(r'<script id="plotly"[^>]*>(.*?)</script>', report.read_text(), re.DOTALL)
    unpacked = zlib.decompress(base64.b64decode(packed))
    assert hashlib.sha256(unpacked).hexdigest() == PLOTLY_SHA256
    assert f"v{get_plotlyjs_version()}" in unpacked[:200].decode()


def test_every_trial_has_a_drawer_with_parameters_verdicts_and_what_was_kept(report: Path) -> None:
    text = report.read_text()
    summary = RunFolder(report.parent).summary
    assert summary is not None
    for trial in summary.trials:
        drawer = text[text.index(f'<details id="{trial.trial}">') :]
        drawer = drawer[: drawer.index("</details>")]
        for word in (
            *trial.parameters,
            "lowest risk",
            "kept step",
            "onset",
            "last, mm",
            "candidates",
            "Risk of each seed",
            trial.verdicts and "verdict",
        ):
            assert str(word) in drawer
        assert "1 teachers" not in drawer
    first = min(summary.trials, key=lambda row: row.risk.value if row.risk else 9e9)
    assert text.index("<details id=") == text.index(f'<details id="{first.trial}">')  # the best comes first


def test_the_forest_shows_what_the_answer_says(report: Path) -> None:
    summary = RunFolder(report.parent).summary
    assert summary is not None
    assert summary.answer is not None
    risk = next(one for one in forest_figures(summary) if one.title == "Risk")
    dots = {trace.text[0]: trace for trace in risk.figure.data if trace.text}
    for best in summary.answer.best:
        dot = dots[f"{best.representation}, {best.trial}"]
        assert (dot.x[0], dot.error_x.array[0]) == (best.risk.value, best.risk.high - best.risk.value)


def test_a_study_whose_runs_all_end_together_has_a_sensible_axis(tmp_path: Path) -> None:
    series = read_series(RunFolder(build(tmp_path / "run", representations=("torso_legs",), steps=400)), ["risk"])
    drawn = stops(series)
    assert drawn is not None
    assert tuple(drawn.figure.layout.xaxis.range) == (0, 416)


def test_no_colour_means_two_things() -> None:
    """Representations, verdicts, left and right: any two colours of different languages are well apart."""
    languages = [
        [colour(look.colour) for look in REPRESENTATION.values()],
        [colour(one) for one in set(VERDICT_COLOUR.values())],
        [np.array(SIDE_COLOUR[side]) for side in ("left", "right")],
    ]
    for one, other in itertools.combinations(languages, 2):
        assert min(np.linalg.norm(a - b) for a in one for b in other) > 60


def colour(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.mark.parametrize("missing", ["evaluation.json", "selection.json", "study.yaml"])
def test_a_page_without_what_is_not_there(tmp_path: Path, missing: str) -> None:
    run = build(tmp_path / "run", trials=1, steps=400)
    (run / missing).unlink()
    text = write(run).read_text()
    assert "</html>" in text
    assert ("N-MPJPE, sign-resolved" in text) == (missing != "evaluation.json")


def test_a_page_with_a_folder_in_the_place_of_the_study_file(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200)
    (run / "study.yaml").unlink()
    (run / "study.yaml").mkdir()
    assert "</html>" in write(run).read_text()


def test_a_page_of_a_run_at_an_address_is_the_page_of_the_run(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=400, depths=64)
    here, there = write(run), write(fetch_run(run.as_uri(), "report", tmp_path / "copy"))
    titles = [re.findall(r"<h[23]>(.*?)</h", page.read_text()) for page in (here, there)]
    assert titles[0] == titles[1]
    assert "What depths depend on" in titles[0]


def test_a_page_of_a_study_that_has_just_begun(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=400, evaluated=False, selected=False)
    for trial in RunFolder(run).trials:
        trial.now(outcome=None, state=TrialState.RUNNING).write(run)
    assert "No run has ended yet." in write(run).read_text()


def test_series_and_bands(tmp_path: Path) -> None:
    run = RunFolder(build(tmp_path / "run", trials=1, seeds=8, steps=400))
    series = read_series(run, ["risk"])
    found = band([item for item in series if item.run.representation == "solo"], "risk")
    assert found is not None
    rows = [row for row in run.history("solo-000") if row.step == 100 and row.risk is not None]
    place = int(np.flatnonzero(found.steps == 100)[0])
    assert found.median[place] == pytest.approx(np.median([row.risk for row in rows]))
    assert found.runs[place] == 7
    assert found.runs[-1] == 4  # four were stopped before the end
    assert band([item for item in series if item.run.seed == 7], "risk") is None


def test_importance_finds_the_dimension_that_decides(tmp_path: Path) -> None:
    study = RunFolder(build(tmp_path / "run")).study.study
    random = np.random.default_rng(0)
    trials = [
        TrialSummary(
            trial="solo-000",
            representation="solo",
            state=TrialState.FINISHED,
            error=None,
            parameters={"training.generator_lr": lr, "losses.consistency_90": float(random.uniform(0, 10))},
            wall_seconds=1.0,
            teachers=0,
            runs=1,
            verdicts={},
            stopped_step=None,
            steps_saved=None,
            risk=Statistic(value=risk, low=risk, high=risk, runs=1),
            errors=None,
        )
        for lr in np.exp(random.uniform(np.log(5e-5), np.log(1e-3), 40)).tolist()
        for risk in [float(abs(np.log10(lr) + 3.5))]
    ]
    found = importances(study, trials)
    assert found["torso_legs"] is None
    assert found["solo"] is not None
    assert found["solo"]["training.generator_lr"] > 0.8


@chromium.needed
@pytest.mark.parametrize("width", [1280, 390])
def test_chromium_draws_every_figure_without_a_word_or_a_request(report: Path, width: int) -> None:
    count = len(figures(report.read_text()))
    with chromium.opened(report.as_uri(), width) as (page, told):
        page.evaluate("document.querySelectorAll('details').forEach(drawer => drawer.open = true)")
        for place in range(count):  # figures are drawn when they come near the view
            page.locator(".plot").nth(place).scroll_into_view_if_needed()
        page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {count}")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert told.console == []
    assert told.requests == []
    assert overflow <= 0


@chromium.needed
def test_a_phone_shows_every_caption_whole_and_a_name_breaks_at_its_dots(report: Path) -> None:
    with chromium.opened(report.as_uri(), 390) as (page, _):
        ends = page.evaluate(
            "[...document.querySelectorAll('section > .table caption span')].map(e => e.getBoundingClientRect().right)"
        )
        wide = page.evaluate("[...document.querySelectorAll('.table')].some(box => box.scrollWidth > box.clientWidth)")
        heads = page.locator("#every-trial > .table th").evaluate_all("heads => heads.map(e => e.innerHTML)")
    assert wide  # so that a caption as wide as its table would be cut
    assert ends
    assert max(ends) <= 390
    assert any("training.<wbr>generator_lr" in head for head in heads)


@chromium.needed
def test_the_browser_would_tell_of_errors_and_requests(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://127.0.0.1:9/pixel.png"><script>undefinedFunction()</script>')
    with chromium.opened(bad.as_uri()) as (_, told):
        pass
    assert any("undefinedFunction is not defined" in line for line in told.console)
    assert told.requests == ["http://127.0.0.1:9/pixel.png"]


@chromium.needed
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(report: Path, scheme: Literal["light", "dark"]) -> None:
    """The rules of WCAG that axe-core can check by itself, with a drawer open and all figures drawn."""
    with chromium.opened(report.as_uri()) as (page, _):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("document.querySelector('details').open = true")
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2")
        found = Axe().run(page).response["violations"]
    serious = [
        (rule["id"], rule["nodes"][0]["html"][:200]) for rule in found if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []


@chromium.needed
def test_boxes_over_axes_keep_the_trials_that_go_through_them(report: Path) -> None:
    """Of parallel coordinates: the low half of the last axis, then the top of the first, then a double click."""
    with chromium.opened(report.as_uri(), 1280, 1000) as (page, told):
        plot = page.locator("#search .plot").first
        plot.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('#search .js-plotly-plot .main-svg')")
        rows = page.locator("#every-trial > .table tbody tr:not(.brushed)")
        every = rows.count()
        counts = [every]
        for axis in ("last", "first"):
            box = page.evaluate(AXIS, axis)
            page.mouse.move(box["x"] - 12, box["from"])
            page.mouse.down()
            page.mouse.move(box["x"] + 12, box["to"], steps=5)
            page.mouse.up()
            page.wait_for_function(f"document.querySelectorAll('tr.brushed').length > {every - counts[-1]}")
            counts.append(rows.count())
        page.mouse.dblclick(box["x"] + 60, box["to"] + 30)
        page.wait_for_function("document.querySelectorAll('tr.brushed').length === 0")
    assert counts == sorted(counts, reverse=True)
    assert 0 <= counts[2] < counts[1] < every
    assert told.console == []


AXIS = """which => {
  const plot = document.querySelector("#search .js-plotly-plot"), size = plot._fullLayout._size;
  const {left, top} = plot.getBoundingClientRect(), x = plot._fullLayout.xaxis, y = plot._fullLayout.yaxis;
  const place = which === "last" ? plot.layout.meta.brush - 1 : 0;
  const at = value => top + size.t + y.d2p(value);
  return {x: left + size.l + x.d2p(place), from: at(place ? -0.1 : 1.1), to: at(place ? 0.5 : 0.95)};
}"""
