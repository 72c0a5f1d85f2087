"""Names and errors with markup, escapes, formulas and scripts: shown as they are by every reader of a run folder."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.test_escaping import HOSTILE
from tests.test_monitoring import read
from tips_dist import cli
from tips_dist.escaping import plain
from tips_dist.monitoring import Monitor
from tips_dist.report.board import STUDY, VERDICTS, StudyBoard
from tips_dist.report.errors import ERROR_COLUMNS, error_tables
from tips_dist.report.formats import print_tables
from tips_dist.runfolder import example
from tips_dist.runfolder.example import build

CASE = Path(__file__).parents[2] / "../shared/cases/markup_trial.json"
EVIL = (
    "\x1b[2J\x1b]0;owned\x07[/data/x] [enforce fail at alloc.cpp] <script>alert(1)</script> =1+1 | `x` \\input{y} 100%"
)


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A study with a hostile name, a seed that ended for a hostile reason and a trial that failed with one."""
    folder = build(tmp_path / "run", trials=2, steps=200)
    change(folder / "study.json", name=EVIL)
    (folder / "study.yaml").write_text(f"name: {EVIL}\n")
    trial = folder / "trials/torso_legs-000/trial.json"
    outcome = json.loads(trial.read_text())["outcome"]
    outcome["seeds"][0] |= {"reason": EVIL, "verdict": "diverged"}
    change(trial, outcome=outcome)
    change(folder / "trials/torso_legs-001/trial.json", state="failed", error=EVIL, outcome=None)
    return folder


def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "argv", ["tips-dist", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as error:
        assert not error.code, capsys.readouterr().err
    return capsys.readouterr().out


READING = [
    ["status"], ["status", "--follow"], ["summary"], ["audit"], ["report"],
    *(["summary", "--by", "trial", *style] for style in ([], ["--csv"], ["--markdown"], ["--latex"])),
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_no_reader_obeys_it(
    run: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = invoke(monkeypatch, capsys, command[0], run, *command[1:])
    assert "\x1b" not in found
    assert "\x07" not in found
    if command == ["summary", "--by", "trial"]:
        assert plain(EVIL) in " ".join(found.split())


@pytest.mark.skipif(not CASE.exists(), reason="the shared cases are not here")
@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_the_error_that_broke_the_table(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(tmp_path / "run", trials=2, steps=200)
    (run / "trials/solo-000/trial.json").write_text(CASE.read_text())
    found = invoke(monkeypatch, capsys, command[0], run, *command[1:])
    if "trial" in command and not {"--markdown", "--latex"} & set(command):
        assert "No such file or directory: '[/data/x]'" in " ".join(found.split())


def test_the_page_has_no_script_but_ours(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke(monkeypatch, capsys, "report", run)
    text = (run / "report.html").read_text()
    assert "<script>alert" not in text
    assert "\x1b" not in text
    figures = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    drawn = json.dumps([json.loads(figure) for figure in figures])
    assert "<script>" not in drawn
    assert "&lt;script&gt;alert(1)" in drawn  # the hover text of the seed


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_terminal_table_of_weights_with_such_a_name(text: str) -> None:
    values: dict[str, float | None] = dict.fromkeys(ERROR_COLUMNS, 1.0)
    metrics = example.metrics(by={"action": {text: values}})
    screen = Console(file=io.StringIO(), width=400)
    print_tables(screen, error_tables(metrics, text), [text])
    assert isinstance(screen.file, io.StringIO)
    found = screen.file.getvalue()
    assert found.count(" ".join(plain(text).split())) >= 2 or "  " in plain(text)
    assert "\x1b" not in found


def test_tensorboard_gets_words_that_are_no_markdown(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.verdict(50, 0, "diverged", "**bold** <b>x</b> [a](http://b)", None)
    monitor.close()
    (text,) = read(tmp_path).Tensors("verdict/seed0/text_summary")
    words = text.tensor_proto.string_val[0].decode()
    assert words == r"**diverged** at step 50: \*\*bold\*\* &lt;b&gt;x&lt;/b&gt; \[a\](http&#58;//b)"


def test_errors_for_people_are_cleaned_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tips-dist", "summary", str(tmp_path / "a\x1b[2Jb")])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.startswith(f"tips-dist: {tmp_path}/a\\x1b[2Jb: no such run folder")


def test_the_page_of_several_such_runs_has_no_script_but_ours(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(run, tmp_path / "<img src=x onerror=alert(1)>")
    found = invoke(monkeypatch, capsys, "report", run, other, "-o", tmp_path / "page.html")
    found += invoke(monkeypatch, capsys, "compare", run, other)
    assert "\x1b" not in found
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\x1b" not in text


@pytest.mark.skipif(not CASE.exists(), reason="the shared cases are not here")
def test_the_study_in_tensorboard_shows_such_a_run(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=2, steps=200)
    (run / "trials/solo-000/trial.json").write_text(CASE.read_text())
    history = run / "trials/torso_legs-000/history.jsonl"
    rows = [json.loads(line) | {"verdict": "<script>*x*</script>"} for line in history.read_text().splitlines()]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert StudyBoard(run, tmp_path / "view").refresh()
    (text,) = read(tmp_path / "view" / STUDY).Tensors(VERDICTS)
    words = text.tensor_proto.string_val[0].decode()
    assert "<script>" not in words
    assert r"&lt;script&gt;\*x\*" in words
