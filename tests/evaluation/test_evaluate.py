"""evaluation.json of a run whose errors are known, and weights on other data."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.examples import NOISE, SEEDS, STEPS, Joints, example_run, small_poses, true_offsets
from tips_dist import geometry
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.evaluation.evaluate import evaluate_run, evaluate_weights, measure_curves
from tips_dist.evaluation.measuring import Bench, check_spread
from tips_dist.files import UserError
from tips_dist.report.summary import summarise
from tips_dist.report.tables import representation_tables
from tips_dist.runfolder import Curve, Evaluation, History, Outcome, RunFolder, StudyRecord, example, layout
from tips_dist.runfolder.curves import METRICS
from tips_dist.runfolder.results import Errors, SeedErrors
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
def evaluated(made: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """That run evaluated, once; its poses are generated anew from the study."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(made, folder / "copy")
    evaluate_run(folder / "copy" / "run", folder / "copy" / "a.truth3d.h5")
    return RunFolder(folder / "copy" / "run")


@pytest.fixture(scope="module")
def result(evaluated: RunFolder) -> Evaluation:
    assert evaluated.evaluation is not None
    return evaluated.evaluation


def errors_of(folder: RunFolder, trial: str, seed: int) -> SeedErrors:
    assert folder.evaluation is not None
    found = folder.evaluation.errors(trial, seed)
    assert found is not None
    return found


def curve_of(folder: RunFolder, trial: str, seed: int) -> Curve:
    found = folder.curves.of(trial, seed)
    assert found is not None
    return found


def test_curves_match_a_loop_over_poses(evaluated: RunFolder, made: Path, data: Data) -> None:
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
            found = curve_of(evaluated, "solo-000", seed).errors["n_mpjpe"][index]
            assert found == pytest.approx(np.mean(errors), rel=1e-9)


def test_checkpoints(evaluated: RunFolder, result: Evaluation) -> None:
    assert set(result.trials) == {"solo-000", "torso_legs-000"}
    for trial in result.trials:
        for seed in SEEDS:
            found, curve = errors_of(evaluated, trial, seed), curve_of(evaluated, trial, seed)
            resolved = curve.errors["n_mpjpe_resolved"]
            assert curve.steps.tolist() == list(STEPS)
            assert np.argsort(resolved).tolist() == np.argsort(NOISE[seed]).tolist()
            assert found.best == at(curve, int(np.argmin(NOISE[seed])))
            assert found.last == at(curve, -1)
            assert found.selected == at(curve, 2)
            assert found.random is not None
            assert found.random.n_mpjpe_resolved == pytest.approx(np.mean(resolved))
            assert found.non_finite_steps == 0


def at(curve: Curve, index: int) -> Errors:
    return Errors(step=int(curve.steps[index]), **{name: float(curve.errors[name][index]) for name in METRICS})


def test_signs_are_resolved_whole_and_by_part(evaluated: RunFolder) -> None:
    for name in ("solo-000", "torso_legs-000"):
        upright, mirrored = (curve_of(evaluated, name, seed).errors for seed in SEEDS)
        np.testing.assert_array_equal(upright["n_mpjpe"], upright["n_mpjpe_resolved"])
        # The same noise (0.2 at step 30) gives about the same error once the mirrored parts are turned.
        assert mirrored["n_mpjpe"][2] > 1.5 * mirrored["n_mpjpe_resolved"][2]
        assert mirrored["n_mpjpe_resolved"][2] == pytest.approx(upright["n_mpjpe_resolved"][2], rel=0.2)
        assert mirrored["pa_mpjpe"][2] > 1.2 * mirrored["pa_mpjpe_resolved"][2]


def test_what_was_selected_and_the_student(result: Evaluation, data: Data) -> None:
    poses, _ = data
    assert [(entry.trial, entry.seed, entry.step) for entry in result.selected_test] == [
        ("solo-000", 0, 30),
        ("torso_legs-000", 0, 30),
    ]
    assert result.student is not None
    assert set(result.student) == {"validation", "test"}
    test = result.student["test"]
    assert test.poses == len(poses.rows("test"))
    assert test.pa_mpjpe_reflected is not None
    assert test.pa_mpjpe is not None
    assert test.pa_mpjpe_reflected <= test.pa_mpjpe * 1.001
    assert test.auc_150 is not None
    assert test.pck_150 is not None
    assert 0 < test.auc_150 < test.pck_150 <= 100
    ends = test.interval["n_mpjpe"]
    assert ends is not None
    assert test.n_mpjpe is not None
    assert ends[0] < test.n_mpjpe < ends[1]
    by = test.by
    assert by is not None
    assert set(by) == {"joint", "part", "action", "camera"}
    assert set(by["part"]) == {"legs", "torso"}
    joints = [error for one in by["joint"].values() if (error := one["n_mpjpe"]) is not None]
    assert len(joints) == 17
    assert np.mean(joints) == pytest.approx(test.n_mpjpe)
    # The student of this run is the solo candidate itself.
    assert test.n_mpjpe == result.selected_test[0].n_mpjpe


def test_only_the_evaluation_and_the_card_that_quotes_it_change(run: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = content()
    result = evaluate_run(run, run.parent / "a.truth3d.h5")
    after = content()
    written, curves = after.pop(run / "evaluation.json"), after.pop(run / "curves.npz")
    card = after.pop(run / "student" / "MODEL_CARD.md").decode()
    assert after == before
    assert result.student is not None
    assert f"{result.student['test'].n_mpjpe:.1f}" in card
    assert json.loads(written) == result.plain()
    assert len(written) < 40_000
    evaluate_run(run, run.parent / "a.truth3d.h5")
    assert (run / "evaluation.json").read_bytes() == written
    assert (run / "curves.npz").read_bytes() == curves


def test_what_was_measured_beside_the_teaching_is_what_would_have_been_measured_after_it(run: Path) -> None:
    truth = run.parent / "a.truth3d.h5"
    evaluate_run(run, truth)
    written = [(run / name).read_bytes() for name in ("evaluation.json", "curves.npz")]
    measured = pickle.loads(pickle.dumps(measure_curves(RunFolder(run), truth)))
    (run / "trials" / "solo-000" / "history.jsonl").unlink()  # nobody looks again
    evaluate_run(run, truth, measured=measured)
    assert [(run / name).read_bytes() for name in ("evaluation.json", "curves.npz")] == written


def test_non_finite_depths_are_an_outcome(run: Path) -> None:
    path = run / "trials" / "solo-000" / "depths.npy"
    depths = np.load(path)
    depths[2:, 0, 5] = np.nan
    np.save(path, depths)
    evaluate_run(run, run.parent / "a.truth3d.h5")
    folder = RunFolder(run)
    broken, sound = (errors_of(folder, "solo-000", seed) for seed in SEEDS)
    assert np.isnan(curve_of(folder, "solo-000", 0).errors["n_mpjpe_resolved"]).tolist() == [False, False, True, True]
    assert broken.non_finite_steps == 2
    assert broken.last is not None
    assert broken.last.n_mpjpe_resolved is None
    assert broken.best is not None
    assert broken.best.step == 20
    assert sound.non_finite_steps == 0


def test_a_trial_without_depths_and_a_seed_that_stopped(run: Path) -> None:
    (run / "trials" / "torso_legs-000" / "depths.npy").unlink()
    path = layout.HISTORY.at(run, "solo-000")
    History(row for row in History.load(path) if row.seed == 0 or row.step <= 20).save(path)
    (run / "selection.json").unlink()
    (run / "student" / "student.safetensors").unlink()
    result = evaluate_run(run, run.parent / "a.truth3d.h5")
    assert result.trials["torso_legs-000"].seeds == {}
    assert "record_depths" in (result.trials["torso_legs-000"].why or "")
    folder = RunFolder(run)
    assert curve_of(folder, "solo-000", 1).steps.tolist() == [10, 20]
    assert errors_of(folder, "solo-000", 1).selected is None
    assert result.student is None


def test_refusals(run: Path, data: Data, tmp_path: Path) -> None:
    truth = run.parent / "a.truth3d.h5"
    other = small_poses()
    write_poses(tmp_path / "other.pose2d.h5", other)
    with pytest.raises(UserError, match="not the poses that"):
        evaluate_run(run, truth, tmp_path / "other.pose2d.h5")
    write_truth(tmp_path / "other.truth3d.h5", np.zeros((60, 17, 3)), other.digest)
    with pytest.raises(UserError, match="/joints has 60 rows"):
        evaluate_run(run, tmp_path / "other.truth3d.h5")
    study = StudyRecord.load(run / "study.json")
    moved = study.data.model_copy(update={"path": "gone.pose2d.h5"})
    study.model_copy(update={"data": moved}).save(run / "study.json")
    with pytest.raises(UserError, match="say where it is now with --poses"):
        evaluate_run(run, truth)
    np.save(run / "trials" / "solo-000" / "depths.npy", np.zeros((4, 2, 31, 17), np.float16))
    write_poses(tmp_path / "moved.pose2d.h5", data[0])
    with pytest.raises(UserError, match=r"depths\.npy: float16 \(4, 2, 31, 17\)"):
        evaluate_run(run, truth, tmp_path / "moved.pose2d.h5")
    with pytest.raises(UserError, match="not a run folder"):
        evaluate_run(tmp_path, truth)
    assert not (run / "evaluation.json").exists()


def test_weights_on_their_own_and_on_other_data(run: Path, data: Data, tmp_path: Path) -> None:
    poses, joints = data
    student = run / "student" / "student.safetensors"
    write_poses(tmp_path / "own.pose2d.h5", poses)
    own = evaluate_weights(student, run.parent / "a.truth3d.h5", tmp_path / "own.pose2d.h5")
    assert own.trained_on_this_data
    assert own.metrics.poses == len(poses.rows("test"))
    # The same poses at twice the size are another data set; its own scale makes up for it.
    doubled = dataclasses.replace(poses, poses=poses.poses * 2, source="doubled")
    write_poses(tmp_path / "other.pose2d.h5", doubled)
    write_truth(tmp_path / "other.truth3d.h5", joints, doubled.digest)
    output = tmp_path / "out" / "other.json"
    other = evaluate_weights(student, tmp_path / "other.truth3d.h5", tmp_path / "other.pose2d.h5", output=output)
    assert not other.trained_on_this_data
    assert other.scale_px == pytest.approx(2 * own.scale_px)
    assert other.metrics.n_mpjpe == pytest.approx(own.metrics.n_mpjpe, rel=1e-3)
    assert json.loads(output.read_text()) == other.plain()
    with pytest.raises(UserError, match="poses_digest"):
        evaluate_weights(student, run.parent / "a.truth3d.h5", tmp_path / "other.pose2d.h5")


def test_raw_weights_are_measured_beside_the_averaged(run: Path) -> None:
    """Where both were judged; summary then shows them side by side."""
    folder = RunFolder(run)
    trial = folder.trials[0]
    depths = np.load(layout.DEPTHS.at(run, trial.id))
    np.save(layout.RAW_DEPTHS.at(run, trial.id), (0.5 * depths).astype(np.float16))
    found = evaluate_run(run, run.parent / "a.truth3d.h5")
    averaged, raw = found.trials[trial.id].seeds, found.trials[trial.id].raw
    assert set(averaged) == set(raw)
    for seed, errors in averaged.items():
        assert raw[seed].last != errors.last
        assert raw[seed].last is not None
    assert all(not one.raw for name, one in found.trials.items() if name != trial.id)
    seeds = [example.outcome(seed, 70.0, 30) for seed in trial.seeds]
    trial.now(outcome=Outcome(seeds=seeds, training_seconds=1.0, parameters={})).write(run)
    tables = {table.title: table for table in representation_tables(summarise(RunFolder(run)))}
    table = tables["Averaged and raw weights: sign-resolved N-MPJPE, mm"]
    assert table.head[1:3] == ("averaged: selected", "raw: selected")


def test_depths_of_other_validation_poses_are_refused(run: Path) -> None:
    """A version that chose its validation poses otherwise would give figures that mean nothing."""
    trial = RunFolder(run).trials[0]
    seeds = [example.outcome(seed, 70.0, 30) for seed in trial.seeds]
    ended = Outcome(seeds=seeds, training_seconds=1.0, parameters={}, judged_on="0123456789abcdef")
    trial.now(outcome=ended).write(run)
    with pytest.raises(UserError, match=f"trial {trial.id}: its recorded depths are of other validation poses"):
        evaluate_run(run, run.parent / "a.truth3d.h5")


def test_a_spread_is_compared_with_errors_of_depth(data: Data) -> None:
    """Noise of a known deviation: two thirds within one, 95 % within two; half the spread holds fewer."""
    poses, joints = data
    bench = Bench.of(poses, joints, poses.rows("validation"), normalisation_scale(poses))
    true = true_offsets(poses, joints)[bench.rows].double()
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise[:, 0] = 0
    whole = check_spread(bench, true + 0.05 * noise, torch.full_like(true, 0.05))
    half = check_spread(bench, true + 0.05 * noise, torch.full_like(true, 0.025))
    assert 0.55 < whole.within_1 < 0.75
    assert whole.within_2 > 0.88
    assert half.within_1 < 0.8 * whole.within_1
    assert whole.mean_spread == pytest.approx(2 * half.mean_spread)
