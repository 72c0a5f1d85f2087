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
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.evaluation.evaluate import evaluate_run
from tips_dist.files import UserError
from tips_dist.models import load_weights
from tips_dist.report.summary import write_summary
from tips_dist.runfolder import RunFolder

FIXTURES = Path(__file__).parent / "fixtures"
COMMANDS: dict[str, list[str]] = {
    "status": ["status", "RUN", "--json"],
    "summary": ["summary", "RUN", "--json"],
    "compare": ["compare", "RUN", "RUN", "--json"],
    "report": ["report", "RUN"],
    "select": ["select", "RUN", "--json"],
    "audit": ["audit", "RUN", "--json"],
    "distill": ["distill", "RUN"],
    "evaluate": ["evaluate", "RUN", "--truth", "TRUTH", "--json"],
    "scorecard": ["scorecard", "RUN", "--truth", "TRUTH", "--json"],
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
READERS: dict[str, set[str]] = {  # of each record: a damaged one ends them, the others do without
    "study.json": set(COMMANDS),
    "trials/torso_legs-000/trial.json": set(COMMANDS) - {"distill"},
    "selection.json": {"summary", "compare", "report", "distill", "evaluate"},
    "evaluation.json": {"summary", "compare", "report"},
    "dependence.json": {"report"},
    "student/student.json": {"summary", "report", "evaluate"},
    "summary.json": set(),
}
NUMPY, ARCHIVE = b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)  # beginnings of files
OTHERS: dict[str, tuple[set[str], list[bytes]]] = {  # who reads them, and what may stand in them
    "trials/torso_legs-000/history.jsonl": (
        {"summary", "report", "select", "audit", "evaluate", "scorecard"},
        [b"", b'{"step": 1}\n', b"\xff\n"],
    ),
    "trials/torso_legs-000/depths.npy": ({"report", "select", "evaluate", "scorecard"}, [b"", NUMPY, ARCHIVE]),
    "curves.npz": ({"report"}, [b"", NUMPY, ARCHIVE]),
    "optuna.journal": ({"summary"}, [b"", b"\xff\n"]),
    "study.yaml": ({"report"}, [b"not: [closed\n", b"\xff\n"]),
    "student/student.safetensors": ({"evaluate"}, [b"", b"\xff\n"]),
}
TRUTH = "any.truth3d.h5"

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
def old(tmp_path: Path) -> Path:
    """A copy of the run that the version before typed records made, with a truth of its poses beside it."""
    shutil.copytree(FIXTURES, tmp_path / "fixtures")
    return with_truth(tmp_path / "fixtures" / "finished")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run evaluated and summarised by this version."""
    folder = tmp_path_factory.mktemp("now")
    shutil.copytree(FIXTURES, folder / "fixtures")
    run = with_truth(folder / "fixtures" / "finished")
    evaluate_run(run, run.parent / TRUTH)
    write_summary(run)
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(evaluated.parent, tmp_path / "fixtures")
    return tmp_path / "fixtures" / evaluated.name


def with_truth(run: Path) -> Path:
    poses = RunFolder(run).poses()
    joints = np.random.default_rng(0).normal(0, 300, (len(poses), 17, 3)).astype(np.float32)
    write_truth(run.parent / TRUTH, joints, poses.digest)
    return run


def told(run: Path, command: str, invoke: Invoke) -> tuple[int, str]:
    words = {"RUN": str(run), "TRUTH": str(run.parent / TRUTH)}
    return invoke(*[words.get(word, word) for word in COMMANDS[command]])


def one_line_or_none(code: int, error: str) -> None:
    """Done without a word, or one line and exit code 2."""
    assert (code, error.count("\n")) in ((0, 0), (2, 1)), error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_the_version_before_opens(command: str, old: Path, invoke: Invoke) -> None:
    assert told(old, command, invoke) == (0, "")


def test_a_run_of_the_version_before_has_everything(old: Path) -> None:
    folder = RunFolder(old)
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


def test_a_run_of_the_version_before_can_be_evaluated_again(old: Path, invoke: Invoke) -> None:
    assert told(old, "evaluate", invoke) == (0, "")
    assert json.loads((old / "evaluation.json").read_text())["schema"] == 2
    assert len(RunFolder(old).curves.frame()) == 12


@pytest.mark.parametrize("damage", JSON_DAMAGE)
@pytest.mark.parametrize("file", [file for file in READERS if READERS[file]])
def test_a_damaged_record_is_one_line(file: str, damage: str, run: Path, invoke: Invoke) -> None:
    """That names the file, from every command that reads it."""
    path = run / file
    path.write_bytes(JSON_DAMAGE[damage](path.read_bytes()))
    for command in sorted(READERS[file]):
        code, error = told(run, command, invoke)
        assert code == 2, command
        assert error.count("\n") == 1, error
        assert path.name in error


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
    expected = 0 if (damage, name) == ("missing", "resolved.training.steps") else 2  # as of before that knob
    for command in sorted(READERS[file] & {"summary", "report", "select", "evaluate"}):
        code, error = told(run, command, invoke)
        assert code == expected, (command, error)
        if expected:
            assert error.count("\n") == 1
            assert path.name in error
            assert f"{name}: " in error


@pytest.mark.parametrize("file", ["dependence.json", "student/student.json", "summary.json"])
def test_a_damaged_record_hinders_nobody_who_does_not_read_it(file: str, run: Path, invoke: Invoke) -> None:
    for command in ["summary", "report", "evaluate", "distill"]:
        if command not in READERS[file]:
            (run / file).write_bytes(b"[]")
            assert told(run, command, invoke) == (0, "")


@pytest.mark.parametrize(("file", "content"), [(file, content) for file in OTHERS for content in OTHERS[file][1]])
def test_other_damaged_files_give_no_traceback(file: str, content: bytes, run: Path, invoke: Invoke) -> None:
    for command in sorted(OTHERS[file][0]):
        (run / file).write_bytes(content)
        one_line_or_none(*told(run, command, invoke))


@pytest.mark.parametrize("file", [*READERS, *OTHERS])
def test_a_missing_file_gives_no_traceback(file: str, run: Path, invoke: Invoke) -> None:
    readers = READERS[file] if file in READERS else OTHERS[file][0]
    for command in sorted(readers):
        (run / file).unlink(missing_ok=True)
        one_line_or_none(*told(run, command, invoke))


READ: dict[str, Callable[[RunFolder], object]] = {
    "study.json": lambda folder: folder.study,
    "trials/torso_legs-000/trial.json": lambda folder: folder.trials,
    "trials/torso_legs-000/history.jsonl": lambda folder: list(folder.history("torso_legs-000")),
    "trials/torso_legs-000/depths.npy": lambda folder: folder.depths(folder.trial("torso_legs-000")),
    "trials/torso_legs-000/candidates/seed0-step30.safetensors": lambda folder: load_weights(
        folder.path / "trials/torso_legs-000/candidates/seed0-step30.safetensors"
    ),
    "evaluation.json": lambda folder: folder.evaluation,
    "curves.npz": lambda folder: folder.curves,
}


@pytest.mark.parametrize("file", READ)
def test_bytes_that_changed_are_one_line_or_harmless(file: str, run: Path) -> None:
    """Anywhere, in the first bytes (where the headers are), and with the end cut off."""
    path, random = run / file, np.random.default_rng(0)
    content, refused = path.read_bytes(), 0
    for number in range(60):
        damaged = bytearray(content)
        reach = len(content) if number % 2 else min(len(content), 200)
        for place in random.integers(0, reach, 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(content))] if number % 7 == 0 else damaged)
        try:
            READ[file](RunFolder(run))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
            assert path.name in str(error)
    assert refused > 10


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
