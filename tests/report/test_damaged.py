"""A damaged run folder gives every reading command one line that names the file, exit code 2, and never a traceback."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tips_dist import cli
from tips_dist.runfolder.example import build

FILES = (
    "study.json", "trials/solo-000/trial.json", "trials/solo-000/history.jsonl", "trials/solo-000/alive.json",
    "trials/solo-000/depths.npy", "selection.json", "dependence.json", "evaluation.json", "curves.npz",
    "student/student.json", "summary.json", "study.yaml", "optuna.journal", "mirror.json", "lock",
)  # fmt: skip
COMMANDS = (
    ["status"], ["status", "--json"], ["status", "--follow"], ["summary"], ["summary", "--by", "trial"], ["report"],
    ["audit"], ["select"], ["distill"], ["compare"], ["monitor"],
)  # fmt: skip


def _fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every field of a JSON document, of lists that of the first item's."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))[:1]
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _fields(item, (*path, key))


def _with(text: str, place: tuple[str | int, ...], change: Callable[[Any, Any], None]) -> str:
    document = json.loads(text)
    owner = document
    for key in place[:-1]:
        owner = owner[key]
    change(owner, place[-1])
    return json.dumps(document)


def _nulled(owner: Any, key: Any) -> None:
    owner[key] = None


def _worded(owner: Any, key: Any) -> None:
    owner[key] = {"\x1b[2J": ["?"]}


def _removed(owner: Any, key: Any) -> None:
    del owner[key]


WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a list": lambda content: b"[]\n",
    "a number": lambda content: b"7\n",
    "null": lambda content: b"null\n",
    "deep": lambda content: b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "deep object": lambda content: b'{"schema":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
    "newer": lambda content: b'{"schema": 999}\n',
    "bare": lambda content: b'{"schema": 1}\n',
    "junk": lambda content: bytes(range(256)) * 20,
    "not UTF-8": lambda content: content.replace(b"a", b"\xff"),
    "NaN": lambda content: b'{"schema": NaN}\n',
    "half a character": lambda content: b'{"schema": 1, "name": "\\ud800"}\n',
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = build(tmp_path_factory.mktemp("damaged") / "run", trials=1, seeds=2, steps=200, depths=16)
    (run / "trials/solo-000/alive.json").write_text('{"host": "here", "pid": 1, "step": 10}')
    (run / "optuna.journal").write_text("")
    (run / "mirror.json").write_text(
        '{"url": "s3://b/r", "host": "h", "pid": 1, "time": 1.0, "interval_seconds": 1.0, "ended": true}'
    )
    (run / "lock").write_text('{"host": "here", "pid": 1, "since": "2026-01-01"}')
    return run


def ask(command: list[str], run: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and standard error of a command; an exception that leaves it is a failed test."""
    more = [str(run)] if command[0] == "compare" else []
    monkeypatch.setattr("tips_dist.report.tensorboard.launch", lambda *_: pytest.skip("it would serve"))
    monkeypatch.setattr("threading.Event.wait", lambda *_: True)
    monkeypatch.setattr("tips_dist.report.tensorboard.launch", lambda *_: "http://127.0.0.1")
    monkeypatch.setattr(sys, "argv", ["tips-dist", command[0], str(run), *more, *command[1:]])
    error = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(error):
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return code, error.getvalue()


def check(run: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in COMMANDS:
        code, error = ask(command, run, monkeypatch)
        where = f"{' '.join(command)}: {error}"
        assert code in (0, 2), where
        assert "\x1b" not in error, where
        if code == 2:
            assert error.startswith("tips-dist: "), where
            assert len(error.splitlines()) == 1, where
            assert len(error) < 1000, where
            if command != ["distill"]:  # the example's student has no weights to learn from: it fails anyway
                assert Path(file).name in error, where


@pytest.mark.parametrize("damage", WHOLE)
@pytest.mark.parametrize("file", FILES)
def test_damaged_files(whole: Path, tmp_path: Path, file: str, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / file).write_bytes(WHOLE[damage]((run / file).read_bytes()))
    check(run, file, monkeypatch)


@pytest.mark.parametrize("change", [_nulled, _worded, _removed])
@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".json")])
def test_damaged_fields(
    whole: Path, tmp_path: Path, file: str, change: Callable[[Any, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (whole / file).read_text()
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for place in _fields(json.loads(text)):
        (run / file).write_text(_with(text, place, change))
        check(run, file, monkeypatch)


@pytest.mark.parametrize("file", [*FILES, "trials", "student", "trials/solo-000"])
def test_folders_in_the_place_of_files_and_files_that_are_gone(
    whole: Path, tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for replace in ((run_ := tmp_path / "folder"), tmp_path / "gone", tmp_path / "file"):
        shutil.copytree(whole, replace)
        path = replace / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if replace == run_:
            path.mkdir()
        if replace.name == "file":
            path.write_bytes(b"")
        check(replace, file, monkeypatch)
