"""evaluation.json of a run whose errors are known, and weights on other data."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.examples import NOISE, SEEDS, STEPS, Joints, example_run, small_poses
from tips_dist import geometry
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale, normalised, write_poses, write_truth
from tips_dist.evaluation.evaluate import evaluate_run, evaluate_weights
from tips_dist.files import UserError, append_json_lines, read_json, write_json
from tips_dist.training.validation import validation_rows

Data = tuple[Poses, Joints]


@pytest.fixture(scope="module")
def data() -> Data:
    return procedural.generate(1500, seed=3)


@pytest.fixture(scope="module")
def made(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder and its truth, made once."""
    folder = tmp_path_factory.mktemp("made")
    example_run(folder / "run", *data)
    write_truth(folder / "a.truth3d.h5", data[1], data[0].digest)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy" / "run"


@pytest.fixture(scope="module")
def result(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The evaluation of that run, made once; its poses are generated anew from the study."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(made, folder / "copy")
    return evaluate_run(folder / "copy" / "run", folder / "copy" / "a.truth3d.h5")


def test_curves_match_a_loop_over_poses(result: dict[str, Any], made: Path, data: Data) -> None:
    poses, joints = data
    rows = validation_rows(poses, 32)
    depths = np.load(made / "run" / "trials" / "solo-000" / "depths.npy").astype(np.float64)
    inputs = torch.from_numpy(normalised(poses, rows, normalisation_scale(poses))).double()
    for seed in SEEDS:
        for index in range(len(STEPS)):
            errors = []
            for row, offsets, source in zip(rows, depths[index, seed], inputs, strict=True):
                lifted = geometry.lift(source, torch.from_numpy(offsets)).numpy()
                lifted, truth = lifted - lifted[0], (joints[row] - joints[row, 0]).astype(np.float64)
                lifted *= np.linalg.norm(truth) / np.linalg.norm(lifted)
                errors.append(np.linalg.norm(lifted - truth, axis=1).mean())
            found = result["trials"]["solo-000"]["seeds"][str(seed)]["n_mpjpe"][index]
            assert found == pytest.approx(np.mean(errors), rel=1e-9)


def test_checkpoints(result: dict[str, Any]) -> None:
    assert set(result["trials"]) == {"solo-000", "torso_legs-000"}
    for trial in result["trials"].values():
        for seed in SEEDS:
            found = trial["seeds"][str(seed)]
            curve = found["n_mpjpe_resolved"]
            assert found["steps"] == list(STEPS)
            assert np.argsort(curve).tolist() == np.argsort(NOISE[seed]).tolist()
            assert found["best"] == {"step": STEPS[int(np.argmin(NOISE[seed]))], **at(found, np.argmin(NOISE[seed]))}
            assert found["last"] == {"step": 40, **at(found, -1)}
            assert found["selected"] == {"step": 30, **at(found, 2)}
            assert found["random"]["n_mpjpe_resolved"] == pytest.approx(np.mean(curve))
            assert found["non_finite_steps"] == 0


def at(found: dict[str, Any], index: Any) -> dict[str, float]:
    names = ("n_mpjpe", "n_mpjpe_resolved", "pa_mpjpe", "pa_mpjpe_resolved")
    return {name: found[name][int(index)] for name in names}


def test_signs_are_resolved_whole_and_by_part(result: dict[str, Any]) -> None:
    for name in ("solo-000", "torso_legs-000"):
        upright, mirrored = (result["trials"][name]["seeds"][str(seed)] for seed in SEEDS)
        assert upright["n_mpjpe"] == upright["n_mpjpe_resolved"]
        # The same noise (0.2 at step 30) gives about the same error once the mirrored parts are turned.
        assert mirrored["n_mpjpe"][2] > 1.5 * mirrored["n_mpjpe_resolved"][2]
        assert mirrored["n_mpjpe_resolved"][2] == pytest.approx(upright["n_mpjpe_resolved"][2], rel=0.2)
        assert mirrored["pa_mpjpe"][2] > 1.2 * mirrored["pa_mpjpe_resolved"][2]


def test_what_was_selected_and_the_student(result: dict[str, Any], data: Data) -> None:
    poses, _ = data
    assert [(entry["trial"], entry["seed"], entry["step"]) for entry in result["selected_test"]] == [
        ("solo-000", 0, 30),
        ("torso_legs-000", 0, 30),
    ]
    assert set(result["student"]) == {"validation", "test"}
    test = result["student"]["test"]
    assert test["poses"] == len(poses.rows("test"))
    assert test["pa_mpjpe_reflected"] <= test["pa_mpjpe"] * 1.001
    assert 0 < test["auc_150"] < test["pck_150"] <= 100
    low, high = test["interval"]["n_mpjpe"]
    assert low < test["n_mpjpe"] < high
    by = test["by"]
    assert set(by) == {"joint", "part", "action", "camera"}
    assert set(by["part"]) == {"legs", "torso"}
    assert np.mean([by["joint"][name]["n_mpjpe"] for name in by["joint"]]) == pytest.approx(test["n_mpjpe"])
    # The student of this run is the solo candidate itself.
    assert test["n_mpjpe"] == result["selected_test"][0]["n_mpjpe"]


def test_only_evaluation_json_and_the_card_that_quotes_it_change(run: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = content()
    result = evaluate_run(run, run.parent / "a.truth3d.h5")
    after = content()
    written = after.pop(run / "evaluation.json")
    card = after.pop(run / "student" / "MODEL_CARD.md").decode()
    assert after == before
    assert f"{result['student']['test']['n_mpjpe']:.1f}" in card
    assert json.loads(written) == json.loads(json.dumps(result))
    evaluate_run(run, run.parent / "a.truth3d.h5")
    assert (run / "evaluation.json").read_bytes() == written


def test_non_finite_depths_are_an_outcome(run: Path) -> None:
    path = run / "trials" / "solo-000" / "depths.npy"
    depths = np.load(path)
    depths[2:, 0, 5] = np.nan
    np.save(path, depths)
    found = evaluate_run(run, run.parent / "a.truth3d.h5")["trials"]["solo-000"]["seeds"]
    assert found["0"]["n_mpjpe_resolved"][2:] == [None, None]
    assert found["0"]["non_finite_steps"] == 2
    assert found["0"]["last"]["n_mpjpe_resolved"] is None
    assert found["0"]["best"]["step"] == 20
    assert found["1"]["non_finite_steps"] == 0


def test_a_trial_without_depths_and_a_seed_that_stopped(run: Path) -> None:
    (run / "trials" / "torso_legs-000" / "depths.npy").unlink()
    history = run / "trials" / "solo-000" / "history.jsonl"
    history.unlink()
    rows = [{"step": step, "seed": seed} for step in STEPS for seed in SEEDS if seed == 0 or step <= 20]
    append_json_lines(history, rows)
    (run / "selection.json").unlink()
    (run / "student" / "student.safetensors").unlink()
    result = evaluate_run(run, run.parent / "a.truth3d.h5")
    assert result["trials"]["torso_legs-000"]["seeds"] == {}
    assert "record_depths" in result["trials"]["torso_legs-000"]["why"]
    assert result["trials"]["solo-000"]["seeds"]["1"]["steps"] == [10, 20]
    assert result["trials"]["solo-000"]["seeds"]["1"]["selected"] is None
    assert result["student"] is None


def test_refusals(run: Path, data: Data, tmp_path: Path) -> None:
    truth = run.parent / "a.truth3d.h5"
    other = small_poses()
    write_poses(tmp_path / "other.pose2d.h5", other)
    with pytest.raises(UserError, match="not the poses that"):
        evaluate_run(run, truth, tmp_path / "other.pose2d.h5")
    write_truth(tmp_path / "other.truth3d.h5", np.zeros((60, 17, 3)), other.digest)
    with pytest.raises(UserError, match="/joints has 60 rows"):
        evaluate_run(run, tmp_path / "other.truth3d.h5")
    study = read_json(run / "study.json")
    write_json(run / "study.json", {**study, "data": {**study["data"], "path": "gone.pose2d.h5"}})
    with pytest.raises(UserError, match="say where it is now with --poses"):
        evaluate_run(run, truth)
    np.save(run / "trials" / "solo-000" / "depths.npy", np.zeros((4, 2, 31, 17), np.float16))
    write_poses(tmp_path / "moved.pose2d.h5", data[0])
    with pytest.raises(UserError, match=r"depths\.npy: shape"):
        evaluate_run(run, truth, tmp_path / "moved.pose2d.h5")
    with pytest.raises(UserError, match=r"study\.json: no such file"):
        evaluate_run(tmp_path, truth)
    assert not (run / "evaluation.json").exists()


def test_weights_on_their_own_and_on_other_data(run: Path, data: Data, tmp_path: Path) -> None:
    poses, joints = data
    student = run / "student" / "student.safetensors"
    write_poses(tmp_path / "own.pose2d.h5", poses)
    own = evaluate_weights(student, run.parent / "a.truth3d.h5", tmp_path / "own.pose2d.h5")
    assert own["trained_on_this_data"]
    assert own["metrics"]["poses"] == len(poses.rows("test"))
    # The same poses at twice the size are another data set; its own scale makes up for it.
    doubled = dataclasses.replace(poses, poses=poses.poses * 2, source="doubled")
    write_poses(tmp_path / "other.pose2d.h5", doubled)
    write_truth(tmp_path / "other.truth3d.h5", joints, doubled.digest)
    output = tmp_path / "out" / "other.json"
    other = evaluate_weights(student, tmp_path / "other.truth3d.h5", tmp_path / "other.pose2d.h5", output=output)
    assert not other["trained_on_this_data"]
    assert other["scale_px"] == pytest.approx(2 * own["scale_px"])
    assert other["metrics"]["n_mpjpe"] == pytest.approx(own["metrics"]["n_mpjpe"], rel=1e-3)
    assert json.loads(output.read_text())["metrics"] == other["metrics"]
    with pytest.raises(UserError, match="poses_digest"):
        evaluate_weights(student, run.parent / "a.truth3d.h5", tmp_path / "other.pose2d.h5")
