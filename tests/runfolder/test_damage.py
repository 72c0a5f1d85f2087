"""A damaged run folder gives no traceback: every reading command says in one line which file, or does without it."""

from __future__ import annotations

import functools
import json
import operator
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tips_dist import cli
from tips_dist.data import procedural
from tips_dist.data.store import write_poses, write_truth
from tips_dist.runfolder import RunFolder

FIXTURES = Path(__file__).parent / "fixtures"
COMMANDS: dict[str, list[str]] = {
    "status": ["status", "RUN", "--json"],
    "summary": ["summary", "RUN", "--json"],
    "compare": ["compare", "RUN", "RUN", "--json"],
    "report": ["report", "RUN"],
    "select": ["select", "RUN", "--json"],
    "audit": ["audit", "RUN", "--json"],
}
JSON_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "nested deep": lambda content: b'{"a":' * 100_000,
    "a list": lambda content: b"[]",
    "newer": lambda content: json.dumps({**json.loads(content), "schema": 99}).encode(),
    "fields missing": lambda content: json.dumps({"schema": json.loads(content)["schema"]}).encode(),
    "not text": lambda content: b"\xff\xfe\x00\x01",
}
RECORDS = [
    "study.json",
    "trials/torso_legs-000/trial.json",
    "selection.json",
    "evaluation.json",
    "dependence.json",
    "student/student.json",
]
OTHERS = ["trials/torso_legs-000/history.jsonl", "trials/torso_legs-000/depths.npy", "optuna.journal", "study.yaml"]

Invoke = Callable[..., tuple[int, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line in this process; returns exit code and stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tips-dist", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = int(error.code or 0)
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run that the version before typed records made."""
    shutil.copytree(FIXTURES, tmp_path / "fixtures")
    return tmp_path / "fixtures" / "finished"


def told(run: Path, command: str, invoke: Invoke) -> tuple[int, str]:
    return invoke(*[str(run) if word == "RUN" else word for word in COMMANDS[command]])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_the_version_before_opens(command: str, run: Path, invoke: Invoke) -> None:
    assert told(run, command, invoke)[0] == 0


def test_a_run_of_the_version_before_has_everything(run: Path) -> None:
    folder = RunFolder(run)
    assert [trial.state for trial in folder.trials] == ["finished", "finished"]
    assert folder.study.resolved.training.average == 0.0  # there was no averaging
    assert folder.selection is not None
    assert folder.student is not None
    assert folder.dependence is not None
    assert folder.summary is not None
    assert folder.evaluation is not None
    frame = folder.frame()
    assert len(frame) == 12
    assert frame["n_mpjpe_resolved"].notna().all()
    assert folder.poses().digest == folder.study.data.digest


def test_a_run_of_the_version_before_can_be_evaluated_again(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    poses = RunFolder(run).poses()
    joints = np.random.default_rng(0).normal(0, 300, (len(poses), 17, 3)).astype(np.float32)
    write_truth(tmp_path / "t.truth3d.h5", joints, poses.digest)
    code, error = invoke("evaluate", run, "--truth", tmp_path / "t.truth3d.h5", "--json")
    assert (code, error) == (0, "")
    assert json.loads((run / "evaluation.json").read_text())["schema"] == 2
    assert len(RunFolder(run).curves.frame()) == 12


@pytest.mark.parametrize("damage", JSON_DAMAGE)
@pytest.mark.parametrize("file", RECORDS)
def test_a_damaged_record_is_one_line(file: str, damage: str, run: Path, invoke: Invoke) -> None:
    path = run / file
    path.write_bytes(JSON_DAMAGE[damage](path.read_bytes()))
    seen = 0
    for command in COMMANDS:
        code, error = told(run, command, invoke)
        assert code in (0, 2)
        assert "Traceback" not in error
        if code == 2:
            assert error.count("\n") == 1
            assert path.name in error
            seen += 1
    assert seen or file == "student/student.json"  # which is read by the commands that need the student


# One field of each record, deep inside where the record is deep: (file, way to it, as the error names it).
FIELDS: list[tuple[str, list[str | int], str]] = [
    ("study.json", ["data", "scale"], "data.scale"),
    ("study.json", ["resolved", "training", "steps"], "resolved.training.steps"),
    ("trials/torso_legs-000/trial.json", ["seeds"], "seeds"),
    ("trials/torso_legs-000/trial.json", ["outcome", "seeds", 0, "verdict"], "outcome.seeds.0.verdict"),
    ("selection.json", ["teachers", 0, "part_signs"], "teachers.0.part_signs"),
    ("evaluation.json", ["truth", "digest"], "truth.digest"),
    ("dependence.json", ["representations", "torso_legs", "long_range"], "representations.torso_legs.long_range"),
]


@pytest.mark.parametrize("damage", ["missing", "mistyped"])
@pytest.mark.parametrize(("file", "way", "name"), FIELDS, ids=[f"{file}: {name}" for file, _, name in FIELDS])
def test_a_single_damaged_field_is_named(
    file: str, way: list[str | int], name: str, damage: str, run: Path, invoke: Invoke
) -> None:
    path = run / file
    record = json.loads(path.read_text())
    *sections, last = way
    section = functools.reduce(operator.getitem, sections, record)
    assert last in section
    if damage == "mistyped":
        section[last] = {"a": []}
    else:
        del section[last]
    path.write_text(json.dumps(record))
    codes = set()
    for command in COMMANDS:
        code, error = told(run, command, invoke)
        codes.add(code)
        assert code in (0, 2)
        if code == 2:
            assert error.count("\n") == 1
            assert path.name in error
            assert f"{name}: " in error
    assert 2 in codes or (damage, name) == ("missing", "resolved.training.steps")  # a knob it did not know


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b'{"step": 1}\n', b"not: [closed\n", b"\xff\n"])
@pytest.mark.parametrize("file", OTHERS)
def test_other_damaged_files_give_no_traceback(file: str, content: bytes, run: Path, invoke: Invoke) -> None:
    (run / file).write_bytes(content)
    for command in COMMANDS:
        code, error = told(run, command, invoke)
        assert code in (0, 2), (command, error)
        assert error.count("\n") <= 1


@pytest.mark.parametrize("file", [*RECORDS, *OTHERS])
def test_a_missing_file_gives_no_traceback(file: str, run: Path, invoke: Invoke) -> None:
    (run / file).unlink()
    for command in COMMANDS:
        code, error = told(run, command, invoke)
        assert code in (0, 2), (command, error)
        assert error.count("\n") <= 1


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:100], lambda content: content[:-50]])
def test_a_damaged_candidate_is_not_chosen_and_blocks_nobody(
    damage: Callable[[bytes], bytes], run: Path, invoke: Invoke
) -> None:
    selection = RunFolder(run).selection
    assert selection is not None
    first = selection.teachers[0]
    path = run / first.file
    path.write_bytes(damage(path.read_bytes()))
    assert told(run, "select", invoke) == (0, "")
    again = RunFolder(run).selection
    assert again is not None
    assert first.file not in [teacher.file for teacher in again.teachers]
    (row,) = [row for row in again.seeds if (row.trial, row.seed) == (first.trial, first.seed)]
    assert row.file is None
    assert "is damaged" in row.why


def test_poses_that_were_moved_are_named(run: Path, tmp_path: Path, invoke: Invoke) -> None:
    (run.parent / "before.pose2d.h5").rename(tmp_path / "moved.pose2d.h5")
    code, error = invoke("distill", run)
    assert code == 2
    assert "say where it is now with --poses" in error
    write_poses(tmp_path / "other.pose2d.h5", procedural.generate(400, seed=9)[0])
    code, error = invoke("distill", run, "--poses", tmp_path / "other.pose2d.h5")
    assert code == 2
    assert "not the poses" in error
    assert invoke("distill", run, "--poses", tmp_path / "moved.pose2d.h5")[0] == 0
