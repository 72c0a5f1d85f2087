"""One small study with the real loop through every command: from a path, from an address, from a mirror, interrupted.

All four must decide the same, and what is printed must be what is on disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import new_bucket, serving
from tests.study.conftest import run_trials_inline
from tips_dist import cli
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.runfolder import RunFolder
from tips_dist.stability.statistic import trial_risk
from tips_dist.storage import Store
from tips_dist.study.monitored import monitored_train

STUDY = """
name: whole
data: {{poses: {poses}}}
representations: [solo, torso_legs]
seeds: 2
model: {{width: 12, discriminator_blocks: 1, student_blocks: 1}}
training: {{steps: 30, batch_size: 16, evaluate_every: 10, checkpoint_every: 1, validation_poses: 32, candidates: 1}}
distillation: {{teachers: 3, steps: 40, batch_size: 32}}
"""
SECTIONS = [
    "Side by side", "Lifted poses", "The numbers", "Over the steps", "When and why runs ended", "Risk and error",
    "What depths depend on", "Selection", "Every trial", "Environment",
]  # fmt: skip


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process; exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["tips-dist", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as error:
            code = int(error.code or 0)
    return code, out.getvalue(), err.getvalue()


def answer(*arguments: object) -> Any:
    """What a command that must succeed prints as JSON."""
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@dataclass
class World:
    """A folder with poses and their truth, and the same poses in a bucket."""

    folder: Path
    bucket: str
    train: Callable[..., Any] = monitored_train

    @property
    def truth(self) -> Path:
        return self.folder / "made.truth3d.h5"

    def start(self, name: str, poses: str, *options: object) -> tuple[int, str, str]:
        """``run`` with truth, into a folder of its own."""
        study = self.folder / f"{name}.yaml"
        study.write_text(STUDY.format(poses=poses))
        return command("run", study, "--runs", self.folder / name, "--truth", self.truth, "--json", *options)

    def run(self, name: str) -> Path:
        """The one run folder of this kind."""
        (found,) = (self.folder / name).glob("whole-*")
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    poses, joints = procedural.generate(1200, 5)
    write_poses(folder / "made.pose2d.h5", poses)
    write_truth(folder / "made.truth3d.h5", joints, poses.digest)
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        made = World(folder, new_bucket(server, patch, folder))
        Store(f"{made.bucket}/data").put(folder / "made.pose2d.h5", "made.pose2d.h5")
        yield made


@pytest.fixture(scope="module")
def here(world: World) -> Path:
    """The run on Ray whose poses lie at a path, evaluated: what the others are compared with."""
    code, out, err = world.start("path", "made.pose2d.h5")
    assert code == 0, err
    run = world.run("path")
    assert json.loads(out) == json.loads((run / "summary.json").read_text())
    return run


@pytest.fixture(scope="module")
def inline(here: Path, world: World) -> Iterator[World]:
    """The same world where trials run in this process: the others need no Ray to show what they are about."""

    def run_trials(study: Any, run: Any, poses: Any, search: Any, unfinished: Any, progress: Any, train: Any) -> None:
        run_trials_inline(study, run, poses, search, unfinished, progress, train or world.train)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tips_dist.study.tuning.run_trials", run_trials)
        patch.setattr("tips_dist.study.run.connected", lambda *arguments: contextlib.nullcontext())
        yield world


def decided(run: Path) -> dict[str, bytes]:
    """Every file that says what was decided, and what it was decided from."""
    names = ["selection.json", "dependence.json", "student/student.safetensors", "curves.npz"]
    names += [str(path.relative_to(run)) for path in sorted(run.glob("trials/*/history.jsonl"))]
    names += [str(path.relative_to(run)) for path in sorted(run.glob("trials/*/candidates/*"))]
    return {name: (run / name).read_bytes() for name in names}


def measured(run: Path) -> dict[str, Any]:
    """``summary.json`` without what names this run (folder, path of its data, when) and the seconds it took."""
    found = json.loads((run / "summary.json").read_text())
    del found["study"], found["time"]
    del found["answer"]["recommended"]["lift"]
    for step in found["answer"]["steps"]:
        del step["command"]
    timeless = re.sub(r'"[a-z_]*seconds[a-z_]*": [^,}]+', '"seconds": 0', json.dumps(found))
    return dict(json.loads(timeless))


def headings(run: Path) -> list[str]:
    """The headings of a run's report, which is written first if need be."""
    if not (run / "report.html").exists():
        assert command("report", run)[0] == 0
    return re.findall(r"<h[23][^>]*>(.*?)</h", (run / "report.html").read_text())


def test_the_summary_is_what_the_records_say(here: Path) -> None:
    """Risks, verdicts, teachers and errors of ``summary.json`` follow from trials, selection and evaluation."""
    folder = RunFolder(here)
    selection, evaluation, found = folder.selection, folder.evaluation, folder.summary
    assert selection is not None
    assert evaluation is not None
    assert found is not None
    assert [one.trial for one in found.trials] == ["solo-000", "torso_legs-000"]
    for one, trial in zip(found.trials, folder.trials, strict=True):
        assert one.risk is not None
        assert one.risk.value == pytest.approx(trial_risk((s.best_risk, s.verdict) for s in trial.seed_outcomes))
    assert len({(one.trial, one.seed, one.step) for one in selection.teachers}) == len(selection.teachers) >= 3
    assert found.student == evaluation.student
    assert evaluation.student is not None
    assert set(evaluation.student) == {"validation", "test"}
    frame = folder.frame().set_index(["trial", "seed", "step"])
    for row in selection.seeds:
        errors = evaluation.trials[row.trial].seeds[row.seed].selected
        assert errors is not None
        assert errors.step == row.step
        recorded = frame.loc[(row.trial, row.seed, row.step)]
        assert recorded["risk"] == row.risk
        assert recorded["n_mpjpe_resolved"] == pytest.approx(errors.n_mpjpe_resolved)


def test_reading_commands_say_what_the_records_say(here: Path) -> None:
    before = decided(here)
    assert answer("status", here)["trials"]["finished"] == 2
    assert answer("summary", here) == json.loads((here / "summary.json").read_text())
    assert answer("select", here) == json.loads((here / "selection.json").read_text())
    assert {(seed["trial"], seed["seed"]) for seed in answer("audit", here)["seeds"]} == {
        (name, seed) for name in ("solo-000", "torso_legs-000") for seed in (0, 1)
    }
    assert command("distill", here)[0] == 0
    assert decided(here) == before  # deciding again decides the same
    assert command("report", here)[0] == 0
    page = (here / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert {f"Lifted poses: {name}" for name in ("solo", "torso_legs")} <= set(headings(here))
    assert page.index('class="answer"') < page.index("<h2>")


def test_poses_at_an_address_end_the_same(here: Path, inline: World) -> None:
    code, out, err = inline.start("address", f"{inline.bucket}/data/made.pose2d.h5")
    assert code == 0, err
    run = inline.run("address")
    assert decided(run) == decided(here)
    assert measured(run) == measured(here)
    assert json.loads(out)["student"] == measured(here)["student"]
    for again in (["distill", run], ["evaluate", run, "--truth", inline.truth], ["report", run]):
        code, _, err = command(*again)
        assert code == 0, err
    assert decided(run) == decided(here)
    assert headings(run) == headings(here)


def test_a_mirror_reads_as_the_run_does(here: Path, inline: World) -> None:
    code, _, err = inline.start("mirror", str(inline.folder / "made.pose2d.h5"), "--storage", f"{inline.bucket}/runs")
    assert code == 0, err
    local = inline.run("mirror")
    assert decided(local) == decided(here)
    url = f"{inline.bucket}/runs/{local.name}"
    assert answer("status", url)["trials"]["finished"] == 2
    assert answer("select", url) == json.loads((here / "selection.json").read_text())
    assert answer("evaluate", url, "--truth", inline.truth)["student"] == measured(here)["student"]
    assert answer("summary", url)["student"] == measured(here)["student"]
    code, out, err = command("report", url)
    assert code == 0, err
    copy = Path(re.findall(r"Wrote (.*?)/report.html", out)[0])
    assert copy != local
    assert headings(copy) == headings(here)
    assert measured(copy) == measured(here)
    assert command("distill", url)[0] == 0
    assert command("fetch", url, "-o", inline.folder / "home")[0] == 0
    assert decided(inline.folder / "home") == decided(here)


def test_an_interrupted_study_ends_the_same(here: Path, inline: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of the second trial; the line that is printed goes on, and the end is the same."""

    def interrupted(configuration: Any, seeds: Any, poses: Any, folder: Path, *, report: Any, **others: Any) -> Any:
        def until(progress: Any) -> None:
            report(progress)
            if folder.name == "torso_legs-000" and progress.step == 20:
                raise KeyboardInterrupt

        return monitored_train(configuration, seeds, poses, folder, report=until, **others)

    monkeypatch.setattr(inline, "train", interrupted)
    code, out, err = inline.start("interrupted", "made.pose2d.h5")
    assert (code, out) == (130, "")
    run = inline.run("interrupted")
    assert {trial.id: trial.state.final for trial in RunFolder(run).trials} == {
        "solo-000": True,
        "torso_legs-000": False,
    }
    assert not (run / "selection.json").exists()
    monkeypatch.undo()
    line = shlex.split(err.splitlines()[-1].partition("Go on with: ")[2])
    assert line[:2] == ["tips-dist", "resume"]
    assert answer(*line[1:])["student"] == measured(here)["student"]
    assert decided(run) == decided(here)
    assert measured(run) == measured(here)
    assert len(RunFolder(run).history("torso_legs-000")) == 6
