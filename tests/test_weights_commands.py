"""The commands on one network's weights, through the command line: lift, evaluate WEIGHTS, export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.examples import Joints, fitted_lifter, true_offsets
from tips_dist import cli
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.models import save_weights

HALF = ("--split", "half")
Data = tuple[Poses, Joints]


@pytest.fixture(scope="module")
def data() -> Data:
    return procedural.generate(600, seed=3)


@pytest.fixture(scope="module")
def folder(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted network and its data set."""
    poses, joints = data
    base, scale, rows = tmp_path_factory.mktemp("weights"), normalisation_scale(poses), poses.rows("train")
    inputs = torch.from_numpy(normalised(poses, rows, scale))
    lifter = fitted_lifter("solo", inputs, true_offsets(poses, joints)[rows], steps=60, width=16)
    record = {"kind": "student", "scale": scale, "data_digest": poses.digest, "part_signs": [1], "step": 1, "seed": 0}
    save_weights(base / "student.safetensors", lifter, 0, record)
    write_poses(base / "a.pose2d.h5", poses)
    write_truth(base / "a.truth3d.h5", joints, poses.digest)
    return base


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr("sys.argv", ["tips-dist", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_lift(
    folder: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "lifted.npz"
    arguments = [
        "lift",
        folder / "student.safetensors",
        folder / "a.pose2d.h5",
        "-o",
        output,
        "--size",
        "each",
        "--json",
    ]
    assert run(monkeypatch, *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["poses"], found["size"], found["output"]) == (len(data[0]), "each", str(output))
    with np.load(output) as lifted:
        assert lifted["joints"].shape == (len(data[0]), 17, 3)


def test_evaluate_weights(
    folder: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, truth, poses = (folder / name for name in ("student.safetensors", "a.truth3d.h5", "a.pose2d.h5"))
    arguments = ["evaluate", weights, "--truth", truth, "--poses", poses]
    assert run(monkeypatch, *arguments, "-o", tmp_path / "errors.json") == 0
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "errors.json").read_text())["metrics"]
    assert metrics["poses"] == len(data[0].rows("test"))
    for word in (
        "N-MPJPE",
        f"{metrics['n_mpjpe_resolved']:.1f}",
        "By action",
        "gait",
        "the data set it was trained on",
    ):
        assert word in printed
    assert run(monkeypatch, *arguments, "--split", "validation", "--json") == 0
    assert json.loads(capsys.readouterr().out)["split"] == "validation"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lift", "{}/student.safetensors", "{}/a.pose2d.h5"), "nothing to write"),
        (("lift", "{}/gone.safetensors", "{}/a.pose2d.h5", "-o", "{}/x.npz"), "no such weights"),
        (("lift", "{}/student.safetensors", "{}/a.truth3d.h5", "-o", "{}/x.npz"), "not a pose2d file but a truth file"),
        (("evaluate", "{}/student.safetensors", "--truth", "{}/a.truth3d.h5"), "--poses"),
        (
            ("evaluate", "{}/student.safetensors", "--truth", "{}/a.truth3d.h5", "--poses", "{}/a.pose2d.h5", *HALF),
            "split 'half': expected one of train, validation, test",
        ),
        (("export", "{}/student.safetensors", "-o", "{}/x.pb"), "unknown ending '.pb'"),
    ],
)
def test_bad_input(
    folder: Path,
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.iterdir())
    assert run(monkeypatch, *(item.format(folder) for item in arguments)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert sorted(folder.iterdir()) == before
