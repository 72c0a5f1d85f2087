"""The example plug-in end to end: on a cluster of two nodes, on one of which it may be missing, and installed afresh.

``pytest tests/chaos/test_plug_ins.py -m chaos``: some minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chaos.nodes import cluster
from tests.chaos.stage import ROOT
from tips_dist.files import read_json
from tips_dist.runfolder import RunFolder

pytestmark = pytest.mark.chaos

EXAMPLE = ROOT / "examples" / "graph_lifter"
SMALLER = (
    "data.procedural.poses=1500",
    "training.steps=100",
    "training.batch_size=32",
    "training.evaluate_every=10",
    "model.width=32",
    "distillation.steps=50",
    "search.enqueue=[{model.lifter: graph, losses.extra.even_sides: 1.0}, "
    "{model.lifter: packed, losses.extra.even_sides: 0.5}]",
)


def call(program: Path, *words: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a command of ours said; it must succeed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [str(program), *words],
        cwd=folder,
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def run_study(
    program: Path, folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> tuple[RunFolder, str]:
    """Run the example's study, made smaller; its run folder and what was said."""
    sets = [word for one in SMALLER for word in ("--set", one)]
    said = call(program, "run", str(EXAMPLE / "study.yaml"), *sets, *words, folder=folder, environment=environment)
    (path,) = (folder / "runs").glob("graph-*")
    return RunFolder(path), said


def check(run: RunFolder) -> None:
    """Search, verdicts, selection and distillation, with the foreign lifter, loss and signal in play."""
    assert [trial.state for trial in run.trials] == ["finished"] * 4
    assert {"graph", "packed"} == {trial.parameters["model.lifter"] for trial in run.trials}
    assert all(seed.verdict for trial in run.trials for seed in trial.seed_outcomes)
    assert "graph/stretch" in run.frame().columns
    assert run.selection is not None
    assert {choice.trial for choice in run.selection.seeds} == {trial.id for trial in run.trials}
    assert run.student is not None
    (plugin,) = run.study.plugins
    assert plugin.name == "graph_lifter"


def nodes_of(run: RunFolder) -> set[str]:
    return {read_json(path)["node"] for path in run.path.glob("trials/*/alive.json")}


def programs() -> Path:
    return Path(sys.executable).parent / "tips-dist"


def test_a_plug_in_given_as_a_file_travels_to_both_nodes(tmp_path: Path) -> None:
    with cluster(2) as nodes:
        where = {**nodes["environment"], "PYTHONPATH": str(ROOT)}
        plugin = ("--plugin", str(EXAMPLE / "graph_lifter.py"))
        words = ("--address", nodes["address"], *plugin)
        run, _ = run_study(programs(), tmp_path, *words, environment=where)
        check(run)
        assert nodes_of(run) == set(nodes["raylets"])
    call(programs(), "report", str(run.path), *plugin, folder=tmp_path, environment={"PYTHONPATH": str(ROOT)})
    assert (run.path / "report.html").stat().st_size > 100_000


def test_trials_keep_away_from_a_node_that_lacks_an_installed_one(tmp_path: Path) -> None:
    target = tmp_path / "site"
    install(sys.executable, EXAMPLE, tmp_path, "--target", str(target))
    both = {"PYTHONPATH": f"{target}{os.pathsep}{ROOT}"}
    with cluster(2, of_first=both) as nodes:
        words = ("--address", nodes["address"])
        run, said = run_study(programs(), tmp_path, *words, environment={**nodes["environment"], **both})
        check(run)
        assert nodes_of(run) == {next(iter(nodes["raylets"]))}
    (line,) = [line for line in said.splitlines() if "plug-in" in line]
    assert "plug-in graph_lifter 0.1.0" in line
    assert "is not installed; install the same graph-lifter on every node; trials go to other nodes" in line


def test_a_fresh_environment_runs_the_foreign_lifter_to_its_report(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False)
    python = fresh / "bin" / "python"
    packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    # Its dependencies are those that are installed here: nothing is downloaded.
    Path(packages, "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    for project in (ROOT, EXAMPLE):
        install(sys.executable, project, tmp_path, "--target", packages)
    program = fresh / "bin" / "tips-dist"
    program.write_text(f"#!{python}\nfrom tips_dist.cli import main\nmain()\n")
    program.chmod(0o755)
    nothing = {"PYTHONPATH": ""}
    where = subprocess.check_output(
        [python, "-c", "import tips_dist; print(tips_dist.__file__)"], text=True, cwd=tmp_path, env=nothing
    )
    assert where.startswith(packages)
    listed = json.loads(call(program, "plugins", "--json", folder=tmp_path, environment=nothing))
    assert [one["name"] for one in listed["plugins"]] == ["graph_lifter"]
    run, _ = run_study(program, tmp_path, environment=nothing)
    check(run)
    call(program, "data", "generate", "--poses", "200", "-o", "some", folder=tmp_path, environment=nothing)
    student = str(run.path / "student" / "student.safetensors")
    words = ("lift", student, "some.pose2d.h5", "-o", "lifted.npz")
    call(program, *words, folder=tmp_path, environment=nothing)
    assert (tmp_path / "lifted.npz").exists()
    call(program, "report", str(run.path), folder=tmp_path, environment=nothing)
    assert (run.path / "report.html").exists()


def install(python: str, project: Path, scratch: Path, *words: str) -> None:
    """Build a project's wheel from a copy of its source, and install that alone."""
    copy = scratch / f"source-{project.name}"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "graph_lifter.py"):
        if (project / name).exists():
            shutil.copy(project / name, copy)
    if (project / "tips_dist").exists():
        shutil.copytree(project / "tips_dist", copy / "tips_dist", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = scratch / f"wheels-{project.name}"
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(copy)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", *words, str(wheel)], check=True)
