"""Curves that exist already become a run folder that every reader takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tips_dist as td
from tests.test_watch import VIEWS, Loop, watched
from tips_dist.cli import app
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.files import UserError
from tips_dist.runfolder import layout

HEAD = "step,seed,generator/loss,accuracy,risk\n"


def curves(path: Path, steps: int = 12, seeds: int = 2) -> Path:
    rows = [f"{50 * (e + 1)},{seed},{0.5 / (e + 1)},,{100 - e}\n" for e in range(steps) for seed in range(seeds)]
    path.write_text(HEAD + "".join(rows))
    return path


def test_depths_give_the_signals_and_risk_that_a_watch_would_have_measured(tmp_path: Path) -> None:
    loop, table = Loop(), tmp_path / "curves.csv"
    watch = watched(loop, tmp_path / "watched")
    table.write_text("step,generator/loss\n" + "".join(f"{step},0.5\n" for step in range(50, 1001, 50)))
    for step in range(50, 1001, 50):
        loop.factor = 1 + step / 1000
        watch.check(step, {"generator/loss": 0.5})
    seen = td.RunFolder(watch.finish())
    depths = seen.depths(seen.trials[0])
    assert depths is not None
    run = td.import_history(table, tmp_path / "run", poses=seen.poses(), depths=depths[:, 0].astype(np.float32))
    ours, theirs = seen.frame(), run.frame()
    shared = [name for name in theirs.columns if "/" in name]
    assert {"rigidity/bone_ratio_variance", "generator/loss", "mirror/mixed"} <= set(shared)
    np.testing.assert_allclose(theirs["risk"], ours["risk"], rtol=2e-3)  # depths are kept as float16
    assert list(theirs["verdict"]) == list(ours["verdict"])


def test_every_reader_takes_it(tmp_path: Path) -> None:
    poses, truth = procedural.generate(2000, 0)
    write_poses(tmp_path / "p.pose2d.h5", poses)
    write_truth(tmp_path / "p.truth3d.h5", truth, poses.digest)
    rows = poses.rows("validation")
    generator = np.random.default_rng(0)
    depths = (truth[rows, :, 2] - truth[rows, :1, 2]) / 600 + generator.normal(0, 0.2, (12, 2, len(rows), 17))
    run = td.import_history(
        curves(tmp_path / "c.csv"), tmp_path / "run", poses=tmp_path / "p.pose2d.h5", depths=depths, steps=1000
    )
    (trial,) = run.trials
    assert trial.seeds == [0, 1]
    assert "loop/risk" in run.frame().columns
    assert list(layout.EVENTS.at(run.path, trial.id).parent.glob("events.*"))
    folder, truths = str(run.path), ["--truth", str(tmp_path / "p.truth3d.h5")]
    for command in (
        ["audit", folder],
        ["evaluate", folder, *truths],
        ["scorecard", folder, *truths],
        ["summary", folder],
        ["status", folder],
        ["report", folder],
    ):
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, f"{command}: {found.output} {found.exception!r}"
    assert len(td.RunFolder(run.path).curves.frame())


def test_a_table_alone_is_judged_by_its_numbers(tmp_path: Path) -> None:
    table = tmp_path / "c.csv"
    rows = [f"{e},{trial},{'nan' if (e, trial) == (3, 'b') else 0.3},{9 - e}\n" for e in (1, 2, 3) for trial in "ab"]
    table.write_text("epoch,run,g_loss,risk\n" + "".join(rows))
    names = {"epoch": "step", "run": "trial", "g_loss": "generator/loss"}
    run = td.import_history(table, tmp_path / "run", columns=names)
    assert [trial.parameters for trial in run.trials] == [{"trial": "a"}, {"trial": "b"}]
    assert [trial.seed_outcomes[0].verdict for trial in run.trials] == ["healthy", "non_finite"]
    assert [trial.seed_outcomes[0].best_risk for trial in run.trials] == [6, 6]
    for command in ("summary", "audit", "report"):
        found = CliRunner().invoke(app, [command, str(run.path)])
        assert found.exit_code == 0, f"{command}: {found.output} {found.exception!r}"


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        ("", {}, "no column 'step'"),
        ("step,a\n", {}, "no rows below the header"),
        ("step,a\n50,x\n", {}, r"c\.csv: line 2: loop/a: expected a number, found 'x'"),
        ("step,a\n1.5,1\n", {}, r"line 2: step: expected a whole number, found '1\.5'"),
        ("step,a\n50,1\n50,2\n", {}, r"line 3: step: found 50, expected one after 50"),
        ("step,a\n50,1,2\n", {}, "line 2: 3 cells, expected 2"),
        ("step,a,a\n50,1,2\n", {}, "the column 'loop/a' stands twice"),
        ("step,a\n50,1\n", {"columns": {"b": "generator/loss"}}, "no column 'b'; it has step, a"),
        ("step,a\n50,1\n", {"steps": 10}, "steps: 10, but .* goes to step 50"),
        ("step,a\n50,1\n", {"depths": np.zeros((1, 64, 17))}, "depths need the poses"),
        ("step,a\n50,1\n", {"poses": np.ones((64, 17, 2)), "depths": np.zeros((2, 64, 17))}, r"depths: \(1, 2, 1, 64"),
        ("step,a\n50,1\n", {"poses": np.ones((64, 17, 2)), "depths": "nothing.npy"}, "nothing.npy"),
        ("step,a\n50,1\n", {"poses": VIEWS[:8], "depths": np.zeros((1, 8, 17))}, "8 validation poses; at least 32"),
        ("step,a\n50,1\n", {"settings": {"stoping": {}}}, "stoping: unknown key"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    text: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        td.import_history(tmp_path / "c.csv", tmp_path / "run", **change)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["c.csv"]


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    table = curves(tmp_path / "c.csv")
    td.import_history(table, tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already"):
        td.import_history(table, tmp_path / "run")
