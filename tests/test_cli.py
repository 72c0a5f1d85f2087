"""Commands' happy paths, and every exit code: 0 done, 1 failed, 2 bad input, 130 interrupted.

Those that read a run folder have ``test_reading_commands.py``.
"""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Invoke
from tips_dist import __version__, cli
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses
from tips_dist.files import StorageError, UserError
from tips_dist.runfolder.example import build
from tips_dist.storage import Store
from tips_dist.study import run as studies

STUDY = """
name: tiny
representations: [solo, torso_legs]
seeds: 2
data: {procedural: {poses: 1200}}
model: {width: 16}
training: {steps: 20, evaluate_every: 10, batch_size: 32, validation_poses: 32}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path


# ------------------------------------------------------------------------------------------------ the frame


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['tips-dist', '--help']\n"
        "from tips_dist.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'pandas', 'optuna', 'numpy', 'pydantic', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = used.ru_utime + used.ru_stime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Stability studies" in done.stdout
    assert used.ru_utime + used.ru_stime - before < 0.5  # seconds of processor time: a busy machine is no fault


def test_version(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"tips-dist {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sumary"], "No such command 'sumary'"),
        (["summary"], "Missing argument 'RUN'"),
        (["run", "a.yaml", "--fast"], "No such option: --fast"),
        (["monitor", "runs/x", "--port", "99999"], "--port"),
    ],
)
def test_a_wrong_command_line_is_bad_input(invoke: Invoke, arguments: list[str], words: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(("error", "expected"), [(UserError, 2), (StorageError, 1)])
def test_errors_for_people_are_one_line(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: type[Exception], expected: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("poses.h5: row 3: not finite")

    monkeypatch.setattr("tips_dist.commands.reading.summary", fail)
    assert invoke("summary", "runs/x") == (expected, "", "tips-dist: poses.h5: row 3: not finite\n")


# ------------------------------------------------------------------------------------------------ run, resume


@pytest.fixture
def fake_start(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the study by one that reports an event and leaves a synthetic run folder; records its arguments."""
    seen: dict[str, Any] = {}

    def start(study: Any, *, runs: Path, progress: Callable[[Any], None], **others: Any) -> Path:
        seen.update(others, study=study, runs=runs)
        progress(studies.StudyEvent("solo-000", "solo", "running", 10, 20, 0.5, {"healthy": 2}, 99.0))
        return build(runs.resolve() / "tiny-20260101-000000", trials=1, steps=200, evaluated=False)

    monkeypatch.setattr(studies, "start", start)
    return seen


def test_run_ends_with_the_summary_and_what_was_written(
    invoke: Invoke, study: Path, fake_start: dict[str, Any]
) -> None:
    code, out, err = invoke("run", study, "--set", "seeds=3", "--runs", "here")
    assert code == 0
    assert fake_start["study"].seeds == 3
    assert fake_start["overrides"] == ["seeds=3"]
    assert fake_start["text"] == STUDY
    assert "solo-000 running, step 10/20" in err
    assert "Estimated without truth" in out
    assert "here/tiny-20260101-000000/student/student.safetensors" in out
    assert "Measured against truth" not in out
    assert Path("here/tiny-20260101-000000/summary.json").exists()


@pytest.mark.parametrize(
    ("words", "thaw"),
    [((), None), (("--thaw",), []), (("--thaw", "solo-000:1", "plateaued"), ["solo-000:1", "plateaued"])],
)
def test_resume_thaws_the_seeds_that_are_named(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], thaw: list[str] | None
) -> None:
    run = build(tmp_path / "run", trials=1, steps=200, evaluated=False)
    seen: dict[str, Any] = {}

    def resume(folder: Path, **others: Any) -> Path:
        seen.update(others)
        return folder

    monkeypatch.setattr(studies, "resume", resume)
    assert invoke("resume", run, *words)[0] == 0
    assert seen["thaw"] == thaw


def test_seeds_without_thaw_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200, evaluated=False)
    code, _, err = invoke("resume", run, "solo-000:1")
    assert (code, err) == (2, "tips-dist: solo-000:1: seeds are named with --thaw alone\n")


def test_run_json_is_the_summary(invoke: Invoke, study: Path, fake_start: dict[str, Any]) -> None:
    code, out, _ = invoke("run", study, "--json")
    assert code == 0
    assert json.loads(out)["schema"] == 1


def test_truth_is_read_after_everything_is_decided(
    invoke: Invoke, study: Path, fake_start: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def evaluate_run(run: Path, truth: Path, device: str, measured: object) -> dict[str, Any]:
        calls.append(truth)
        assert (run / "selection.json").exists()
        assert fake_start["study"] is not None
        return {}

    monkeypatch.setattr("tips_dist.evaluation.evaluate.evaluate_run", evaluate_run)
    truth = tmp_path / "a.truth3d.h5"
    truth.write_bytes(b"")
    assert invoke("run", study, "--truth", truth)[0] == 0
    assert calls == [truth]
    assert "truth" not in fake_start


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("name: x\nrepresentations: [solo]\nsedes: 4\n", [], "tiny.yaml: sedes: unknown key (did you mean 'seeds'?)"),
        ("name: x\nrepresentations: [solo]\nseeds: 0\n", [], "tiny.yaml: seeds:"),
        ("name: x\nrepresentations: [solo]\nseeds: many\n", [], "tiny.yaml: seeds:"),
        ("name: x\nrepresentations: [sole]\n", [], "no representation 'sole' (did you mean 'solo'?)"),
        (
            "name: x\nrepresentations: [solo]\nspace: {training.steps: {}}\n",
            [],
            "space.training.steps: expected one of",
        ),
        ("name: [\n", [], "not valid YAML"),
        ("- 1\n", [], "a study file is a mapping"),
        (STUDY, ["--set", "seeds"], "--set seeds: expected key=value"),
        (STUDY, ["--truth", "nowhere.h5"], "--truth nowhere.h5: no such file"),
        (STUDY, ["--set", "data.poses=nowhere.pose2d.h5"], "nowhere.pose2d.h5"),
    ],
)
def test_bad_studies_end_before_anything_is_written(
    invoke: Invoke, study: Path, text: str, arguments: list[str], words: str
) -> None:
    study.write_text(text)
    before = set(Path().rglob("*"))
    code, out, err = invoke("run", study, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("tips-dist: ")
    assert len(err.splitlines()) == 1
    assert set(Path().rglob("*")) == before


def test_a_missing_study_file(invoke: Invoke) -> None:
    assert invoke("run", "no.yaml") == (2, "", "tips-dist: no.yaml: no such study file\n")


@pytest.mark.parametrize("command", ["run", "resume"])
def test_ctrl_c_prints_the_line_that_resumes(
    invoke: Invoke, study: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    run = build(Path.cwd() / "runs" / "my run", trials=1, steps=100)

    def interrupted(*_: object, **__: object) -> Path:
        raise studies.StudyInterrupted(run)

    monkeypatch.setattr(studies, "start" if command == "run" else "resume", interrupted)
    (run / "a.truth3d.h5").write_bytes(b"")
    for more in ([], ["--truth", "runs/my run/a.truth3d.h5"]):
        code, out, err = invoke(command, study if command == "run" else run, *more)
        assert (code, out) == (130, "")
        line = shlex.join(["tips-dist", "resume", "runs/my run", *more])
        assert err.splitlines()[-1] == f"Interrupted; the state is saved. Go on with: {line}"


def test_what_was_not_saved_is_not_called_saved(invoke: Invoke, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Path:
        raise studies.StudyInterrupted(Path("runs/r"), [f"solo-{number:03d}" for number in range(4)], 6.0)

    monkeypatch.setattr(studies, "start", interrupted)
    code, _, err = invoke("run", study)
    assert code == 130
    assert err.splitlines()[-1] == (
        "Interrupted; 4 running trials (solo-000, solo-001, solo-002, …) could not save within 6 s and will go on from "
        "the last checkpoint (TIPS_DIST_GRACE=SECONDS waits longer). Go on with: tips-dist resume runs/r"
    )


def test_resume_passes_on_its_options(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build(Path.cwd() / "r", trials=1, steps=100)
    seen: dict[str, Any] = {}

    def resume(folder: Path, **others: Any) -> Path:
        seen.update(others)
        return folder

    monkeypatch.setattr(studies, "resume", resume)
    code, out, _ = invoke("resume", run, "--trials", "+2")
    assert code == 0
    assert seen["trials"] == 2
    assert "Estimated without truth" in out


# ------------------------------------------------------------------------------------------------ data, train


def test_data_generate_then_inspect(invoke: Invoke) -> None:
    code, out, _ = invoke("data", "generate", "-o", "d/made", "--poses", 1200, "--json")
    assert code == 0
    made = json.loads(out)
    code, out, _ = invoke("data", "inspect", "d/made.pose2d.h5", "--picture", "d/made.png", "--json")
    assert code == 0
    assert json.loads(out)["digest"] == made["digest"]
    assert Path("d/made.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = invoke("data", "inspect", "d/made.pose2d.h5")
    assert code == 0
    assert "poses: 1200" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "none.pose2d.h5"], "none.pose2d.h5"),
        (["import", "cmv", "x", "-o", "y"], "cmv: unknown format"),
        (["import", "cmu", "none.h5", "-o", "y"], "none.h5: no such file"),
        (["import", "cmu", "none.h5", "-o", "y", "--set", "cameras"], "--set cameras: expected key=value"),
        (["import", "cmu", "none.h5", "-o", "y", "--set", "camera=3"], "camera: unknown key"),
    ],
)
def test_bad_data_is_one_line(invoke: Invoke, arguments: list[str], words: str) -> None:
    code, out, err = invoke("data", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_train_runs_one_configuration_without_ray(invoke: Invoke, study: Path) -> None:
    code, out, err = invoke("train", study, "-o", "one", "--representation", "torso_legs", "--set", "seeds=1")
    assert code == 0
    assert "Seed 0: " in out
    assert "Parameters per seed: " in out
    assert "step 20/20" in err
    assert len(Path("one/history.jsonl").read_text().splitlines()) == 2
    assert any(Path("one/tensorboard/seed0").iterdir())


def test_train_takes_the_studys_seed_and_poses_at_an_address(
    invoke: Invoke, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    write_poses(Path("made.pose2d.h5"), procedural.generate(1200, 0)[0])
    Store("memory://train").put(Path("made.pose2d.h5"), "made.pose2d.h5")
    changes = ["seed=7", "training.steps=10", "data.poses=memory://train/made.pose2d.h5"]
    code, out, err = invoke("train", study, "-o", "one", *(word for change in changes for word in ("--set", change)))
    assert code == 0, err
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("Seed ")] == ["Seed 7", "Seed 8"]
    assert {json.loads(line)["seed"] for line in Path("one/history.jsonl").read_text().splitlines()} == {7, 8}


def test_train_refuses_data_of_another_content(invoke: Invoke, study: Path) -> None:
    code, out, err = invoke("train", study, "-o", "one", "--set", "data.digest='000000000000'")
    assert (code, out) == (2, "")
    assert "bring the file that was meant" in err
    assert len(err.splitlines()) == 1


def test_train_names_a_representation_that_is_not_in_the_study(invoke: Invoke, study: Path) -> None:
    code, _, err = invoke("train", study, "-o", "one", "--representation", "left_right")
    assert code == 2
    assert "--representation left_right: not in the study" in err


def test_help_says_in_full_what_each_command_does(invoke: Invoke) -> None:
    for arguments in ([], ["data"], ["jobs"]):
        said = " ".join(invoke(*arguments, "--help")[1].split())
        assert "..." not in said.replace("ARGS]...", "")
    assert "Write a commented study file to start from, and say the next commands." in " ".join(
        invoke("--help")[1].split()
    )


def test_init_writes_a_study_and_says_what_comes_next(invoke: Invoke, tmp_path: Path) -> None:
    code, said, _ = invoke("init")
    assert code == 0
    assert (tmp_path / "study.yaml").exists()
    assert "tips-dist run study.yaml" in said


@pytest.mark.parametrize("command", ["status", "summary", "report", "select", "audit"])
def test_a_path_that_is_too_long_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tips-dist", command, "a/" * 3000])
    with pytest.raises(SystemExit) as end:
        cli.main()
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.count("\n") == 1
    assert "too long" in error
    assert len(error) < 200
