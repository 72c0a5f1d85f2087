"""TensorBoard is started on a run that is finished and on one that goes on, and asked (or seen) what it shows."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests import chromium
from tests.test_monitoring import read
from tips_dist.files import UserError
from tips_dist.monitoring import Monitor
from tips_dist.report import tensorboard
from tips_dist.report.board import HEALTH, IN_PLAY, RISK, STUDY, VERDICTS, StudyBoard, count_tag
from tips_dist.report.tensorboard import launch, link
from tips_dist.runfolder import History, RunFolder, layout
from tips_dist.runfolder.example import build
from tips_dist.runfolder.history import append


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = build(tmp_path / "run", representations=("solo",), trials=2, seeds=2, steps=100)
    for number in range(2):
        monitor = Monitor(layout.EVENTS.at(run, f"solo-{number:03d}").parent)
        monitor.evaluation(50, [{"seed": seed, "risk": 1.0} for seed in range(2)])
        monitor.close()
    return run


def runs_shown(address: str, wanted: set[str]) -> set[str]:
    found: set[str] = set()
    deadline = time.monotonic() + 60
    while found != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        with urllib.request.urlopen(f"{address}data/runs") as answer:
            found = set(json.load(answer))
    return found


SEEDS = {None: ("solo-000", "solo-001"), "solo-000": ("solo-000",), "none": ()}


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_runs_are_called_as_study_trials_and_seeds_are(run: Path, seeds: str | None) -> None:
    wanted = {STUDY, f"{STUDY}/solo", "solo-000", "solo-001"}
    wanted |= {f"{trial}/seed{seed}" for trial in SEEDS[seeds] for seed in range(2)}
    board = launch(run, port=0, seeds=seeds)
    assert board.note == ""
    assert runs_shown(board.address, wanted) == wanted


def test_many_seeds_are_shown_when_asked_for(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=9, seeds=8, steps=100, histories=False)
    shows, note = tensorboard._seeds_shown(run, None)
    assert not shows("solo-000")
    assert "144 seeds" in note
    assert "--seeds" in note
    with pytest.raises(UserError, match="solo-777"):
        launch(run, port=0, seeds="solo-777")


def test_links_are_added_as_trials_come(run: Path, tmp_path: Path) -> None:
    view = tmp_path / "view"
    late = layout.EVENTS.at(run, "solo-001").parent
    late.rename(run / "away")
    link(run, view, lambda trial: False)
    assert [path.name for path in view.iterdir()] == ["solo-000"]
    (run / "away").rename(late)
    for _ in range(2):
        link(run, view, lambda trial: trial == "solo-001")
    assert sorted(path.name for path in view.iterdir()) == ["solo-000", "solo-001"]
    assert {path.name for path in (view / "solo-001").iterdir() if path.is_dir()} == {"seed0", "seed1"}


# ------------------------------------------------------------------------------------- what the study's run says


def cut(run: Path, *until: int) -> list[History]:
    """Take the rows after a step out of the trials' histories, and return those that are left out."""
    rest = []
    for step, path in zip(until, sorted(run.glob(layout.HISTORY.pattern)), strict=False):
        whole = History.load(path)
        History(row for row in whole if row.step <= step).save(path)
        rest.append(History(row for row in whole if row.step > step))
    return rest


def test_the_study_shows_risk_with_band_seeds_in_play_and_verdicts(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, seeds=8, steps=400)
    board = StudyBoard(run, tmp_path / "view")
    assert board.refresh()
    assert not board.refresh()  # nothing is new
    events = read(tmp_path / "view" / STUDY / "solo")
    rows = [row for row in RunFolder(run).history("solo-000") if row.step == 100]
    risks = sorted(row.risk for row in rows if row.risk is not None)
    values = {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    median, low, high = (values[tag][100] for tag in RISK)
    assert low <= median <= high
    assert median == pytest.approx(risks[len(risks) // 2])
    assert [values[IN_PLAY][step] for step in (50, 100, 400)] == [7, 7, 4]  # one never starts, three break
    assert [values[count_tag(kind)][400] for kind in ("healthy", "diverged", "non_finite")] == [4, 3, 1]
    study = read(tmp_path / "view" / STUDY)
    assert study.Images(HEALTH)[0].encoded_image_string.startswith(b"\x89PNG")
    words = study.Tensors(VERDICTS)[0].tensor_proto.string_val[0].decode()
    assert "| non-finite | solo-000 | 7 | 50 |" in words
    assert words.index("non-finite | solo") < words.index("diverged | solo")


def test_what_comes_late_changes_the_steps_that_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tips_dist.report.board.PATIENCE", 0.0)
    run = build(tmp_path / "run", representations=("solo",), trials=2, seeds=2, steps=400)
    left = cut(run, 400, 100)  # the second trial has just begun
    board = StudyBoard(run, tmp_path / "view")
    board.refresh()
    append(layout.HISTORY.at(run, "solo-001"), left[1])
    assert board.refresh()
    once = StudyBoard(run, tmp_path / "once")
    once.refresh()
    folders = [tmp_path / name / STUDY / "solo" for name in ("view", "once")]
    for tag in (*RISK, IN_PLAY):
        grown, whole = ([(one.step, one.value) for one in read(folder).Scalars(tag)] for folder in folders)
        assert grown == whole


def test_a_damaged_history_takes_nothing_from_the_others(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, seeds=2, steps=200)
    layout.HISTORY.at(run, "solo-000").write_text("{}\n")
    assert StudyBoard(run, tmp_path / "view").refresh()
    assert [path.name for path in (tmp_path / "view" / STUDY).iterdir() if path.is_dir()] == ["torso_legs"]


# ------------------------------------------------------------------------------------------------ what is drawn


def until(told: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := told()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def first_page(page: Page) -> str:
    """The words of the cards at the top once the picture of health has been drawn."""
    page.wait_for_function(
        "[...document.querySelectorAll('image-card img')].some(img => img.complete && img.naturalWidth > 300)",
        timeout=90_000,
    )
    return "".join(page.inner_text("body").split())


def packed(words: str) -> str:
    return "".join(words.split())  # TensorBoard breaks tags into pieces


@chromium.needed
@pytest.mark.slow
@pytest.mark.parametrize("live", [False, True], ids=["finished", "live"])
def test_the_first_page_shows_health(run: Path, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "RELOAD_SECONDS", 1)
    left = cut(run, *([50, 50] if live else []))
    board = launch(run, port=0)
    with chromium.opened(f"{board.address}?smoothing=0", 1440, 1000) as (page, told):
        words = first_page(page)
        assert words.index(packed(HEALTH)) < words.index(packed(RISK[1]))
        assert all(not word.startswith("Uncaught") for word in told.console)
        assert {url.split("/")[2] for url in told.requests} == {board.address.split("/")[2]}
        if live:
            assert "Step50" in words
            for rows, path in zip(left, sorted(run.glob(layout.HISTORY.pattern)), strict=True):
                append(path, rows)
            assert until(lambda: page.reload() and "Step100" in first_page(page))
        page.goto(f"{board.address}#custom_scalars")
        page.reload()
        titles = ("1 Study: risk", "1 Study: seeds", "Stability: risk")
        for title in titles:
            page.get_by_text(title, exact=True).first.wait_for(timeout=90_000)
        places = [page.get_by_text(title, exact=True).first.bounding_box() for title in titles]
        order = [place["y"] for place in places if place is not None]
        assert len(order) == 3
        assert order == sorted(order)
