"""``tips-dist init``, and the program installed from a wheel, in an empty folder outside of the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from tips_dist import study_schema
from tips_dist.commands import start
from tips_dist.files import StorageError, UserError
from tips_dist.study_file import load_study

ROOT = Path(__file__).parents[1]
Call = Callable[..., subprocess.CompletedProcess[str]]


def test_it_writes_the_quickstart_with_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start.init(tmp_path / "new")
    written = load_study(tmp_path / "new/study.yaml")
    quickstart = load_study(ROOT / "studies/quickstart.yaml")
    assert written.data.poses == "data/quickstart.pose2d.h5"
    assert written.model_copy(update={"data": quickstart.data}) == quickstart
    schema = json.loads((tmp_path / "new" / study_schema.FILE).read_text())
    jsonschema.validate(written.model_dump(mode="json", exclude_unset=True), schema)
    said = capsys.readouterr().out
    assert f"cd {tmp_path / 'new'}" in said
    assert "tips-dist run study.yaml" in said


def test_what_is_commented_out_is_right(tmp_path: Path) -> None:
    """Each commented example in the file is a line that the program takes."""
    start.init(tmp_path)
    study = tmp_path / "study.yaml"
    text = study.read_text()
    examples = [line[1:].strip() for line in text.splitlines() if line.startswith("#   ") and "tips-dist" not in line]
    assert len(examples) >= 6
    kept = [line for line in text.splitlines() if not line.startswith("search:")]
    nested = [f"  {line}" if line.startswith(("training.", "losses.", "model.")) else line for line in examples]
    study.write_text("\n".join([*kept, *nested]) + "\n")
    found = load_study(study)
    assert found.search.trials == 12
    assert set(found.space) == {"training.generator_lr", "losses.consistency_90", "model.width"}
    assert found.stopping.plateau == "off"


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        start.init(tmp_path)
    assert (tmp_path / "study.yaml").read_text() == "mine"
    assert not (tmp_path / study_schema.FILE).exists()


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        start.init(tmp_path / "file/inner")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """The program as a wheel has it, unpacked and run in an empty folder; gives what a command said."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source, work = folder / "source", folder / "empty"
    source.mkdir()
    work.mkdir()
    shutil.copytree(ROOT / "tips_dist", source / "tips_dist", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-w", str(folder), str(source)], check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    carried = {path.relative_to(folder / "site") for path in (folder / "site/tips_dist").rglob("*") if path.is_file()}
    lacking = {path.relative_to(source) for path in (source / "tips_dist").rglob("*") if path.is_file()} - carried
    assert not lacking, "files that pyproject.toml's package-data leaves out of the wheel"
    shutil.rmtree(source)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}

    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "tips_dist.cli", *arguments]
        done = subprocess.run(program, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stderr
        return done

    return call


def test_a_wheel_works_in_an_empty_folder(installed: Call) -> None:
    """From nothing to a trained trial, and to one line about a wrong key."""
    assert "tips-dist 0." in installed("--version").stdout
    said = installed("init").stdout
    assert "tips-dist data generate -o data/quickstart" in said
    installed("data", "generate", "-o", "data/quickstart", "--poses", "600")
    small = [
        "model.width=16",
        "seeds=2",
        "training={steps: 20, evaluate_every: 10, batch_size: 32, validation_poses: 32}",
    ]
    options = [word for value in small for word in ("--set", value)]
    installed("train", "study.yaml", "-o", "trial", *options)
    refused = installed("run", "study.yaml", "--set", "trainig.steps=10", code=2).stderr
    assert refused.startswith("tips-dist: study.yaml: trainig: unknown key (did you mean 'training'?)")
    assert refused.count("\n") == 1


@pytest.mark.chaos  # Ray, and a program that starts eight times: a minute, five on a busy machine
def test_the_whole_path_from_a_wheel(installed: Call) -> None:
    """What a newcomer does, in an empty folder: study file, data, a small run on Ray, its report, the lifted poses."""
    installed("init", "mine")
    installed("data", "generate", "-o", "mine/data/quickstart", "--poses", "4000")
    small = (
        "model.width=16",
        "seeds=2",
        "representations=[solo]",
        "training={steps: 20, evaluate_every: 10, batch_size: 32, validation_poses: 32}",
        "distillation={teachers: 2, steps: 20}",
    )
    options = [word for value in small for word in ("--set", value)]
    truth = ("--truth", "mine/data/quickstart.truth3d.h5")
    ended = installed("run", "mine/study.yaml", "--runs", "runs", *truth, *options)
    assert "Best configuration: " in ended.stdout
    lifting = re.findall(r"^    (tips-dist lift \S+ .*)$", ended.stdout, re.MULTILINE)
    reporting = re.findall(r"^    (tips-dist report \S+)$", ended.stdout, re.MULTILINE)
    for line in (*lifting, *reporting):  # the lines that the answer gives work as they stand
        installed(*shlex.split(line)[1:])
    run = shlex.split(reporting[0])[-1]
    assert json.loads(installed("status", run, "--json").stdout)["doing"] == "nothing; it is done"
    assert "report.html" in installed("report", run).stdout
