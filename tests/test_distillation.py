"""Distillation: signs resolved, teachers averaged, a deterministic student that is no worse than its teachers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.examples import Joints, fitted_lifter, study_record, true_offsets
from tips_dist import config, distillation
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.evaluation.measuring import Bench, measure_errors, predict
from tips_dist.files import UserError, write_json
from tips_dist.models import Lifter, load_weights, save_weights
from tips_dist.models.student import Student
from tips_dist.runfolder import Selection, Teacher
from tips_dist.skeleton import JOINTS, PARENT

Data = tuple[Poses, Joints]


@pytest.fixture(scope="module")
def data() -> Data:
    return procedural.generate(3000, seed=3)


@pytest.fixture
def run(tmp_path: Path, data: Data) -> Path:
    """A run folder with two teachers, one of which has its legs mirrored in depth."""
    poses, joints = data
    scale = normalisation_scale(poses)
    rows = poses.rows("train")
    inputs = torch.from_numpy(normalised(poses, rows, scale))
    offsets = true_offsets(poses, joints)[rows]
    legs = torch.ones(17)
    legs[:7] = -1
    teachers = []
    for name, signs, kept in (("solo", [1], torch.ones(17)), ("torso_legs", [1, -1], legs)):
        file = f"trials/{name}-000/candidates/seed0-step40.safetensors"
        record = {"scale": scale, "data_digest": poses.digest, "step": 40, "seed": 0, "risk": 0.1}
        save_weights(tmp_path / file, fitted_lifter(name, inputs, offsets * kept), 0, {**record, "part_signs": signs})
        teachers.append(
            Teacher(
                trial=f"{name}-000",
                representation=name,
                seed=0,
                step=40,
                risk=0.1,
                file=file,
                part_signs=signs,
                sign_confidence=[0.8] * len(signs),
            )
        )
    study_record(poses, scale).save(tmp_path / "study.json")
    Selection(rule="test", teachers=teachers, seeds=[]).save(tmp_path / "selection.json")
    return tmp_path


@pytest.mark.parametrize("mirrored", [False, True])
def test_student_is_no_worse_than_its_best_teacher(run: Path, data: Data, mirrored: bool) -> None:
    """Not by more than 1 % on procedural truth, even with a third teacher whose depth sign was told wrongly."""
    poses, joints = data
    if mirrored:
        selection = json.loads((run / "selection.json").read_text())
        wrong = {**selection["teachers"][0], "part_signs": [-1]}
        write_json(run / "selection.json", {**selection, "teachers": [*selection["teachers"], wrong]})
    weights = distillation.distill(run, poses)
    bench = Bench.of(poses, joints, poses.rows("test"), normalisation_scale(poses))

    def error(path: Path) -> float:
        lifter, record = load_weights(path)
        name = lifter.representation.name
        found = measure_errors(bench, predict(lifter, bench.inputs), name, part_signs=record.part_signs)
        assert found.n_mpjpe_resolved is not None
        return found.n_mpjpe_resolved

    teachers = [error(path) for path in run.glob("trials/*/candidates/*.safetensors")]
    assert len(teachers) == 2
    assert error(weights) <= 1.01 * min(teachers)


def test_record_and_report(run: Path, data: Data) -> None:
    poses, _ = data
    weights = distillation.distill(run, poses)
    student, record = load_weights(weights)
    assert isinstance(student, Lifter)
    assert (student.representation.name, student.width, len(student.blocks)) == ("solo", 32, 1)
    assert record.kind == "student"
    assert record.part_signs == [1]
    assert record.data_digest == poses.digest
    report = json.loads((run / "student" / "student.json").read_text())
    assert report["digest"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert report["counts"]["train"] + report["counts"]["held_out"] == len(poses.rows("train"))
    assert set(report["disagreement"]["per_joint"]) == set(JOINTS)
    assert 0 < report["disagreement"]["mean"] < report["disagreement"]["mean"] + 1
    curve = report["loss"]
    assert len(curve["steps"]) == len(curve["train"]) == len(curve["held_out"])
    assert curve["held_out"][-1] < 0.5 * curve["held_out"][0]
    assert min(curve["held_out"]) == curve["held_out"][curve["steps"].index(report["best_step"])]


def test_same_run_same_student(run: Path, data: Data) -> None:
    first = distillation.distill(run, data[0]).read_bytes()
    assert distillation.distill(run, data[0]).read_bytes() == first


def test_refusals(run: Path, data: Data) -> None:
    with pytest.raises(UserError, match="not the poses"):
        distillation.distill(run, procedural.generate(100, seed=9)[0])
    selection = json.loads((run / "selection.json").read_text())
    write_json(run / "selection.json", {**selection, "teachers": []})
    with pytest.raises(UserError, match=r"selection\.json: no teacher was selected"):
        distillation.distill(run, data[0])
    entry = {**selection["teachers"][0], "part_signs": [1, 1]}
    write_json(run / "selection.json", {**selection, "teachers": [entry]})
    with pytest.raises(UserError, match="expected 1 part_signs"):
        distillation.distill(run, data[0])
    entry = {**selection["teachers"][0], "file": "trials/gone.safetensors"}
    write_json(run / "selection.json", {**selection, "teachers": [entry]})
    with pytest.raises(UserError, match=r"gone\.safetensors: no such"):
        distillation.distill(run, data[0])
    assert not (run / "student").exists()


def test_teaching_resolves_signs_and_weighs_by_confidence(run: Path, data: Data) -> None:
    entries = Selection.load(run / "selection.json").teachers
    teachers = distillation.load_teachers(run, entries)
    inputs = torch.from_numpy(normalised(data[0], data[0].rows("train")[:300], normalisation_scale(data[0])))
    alone = [distillation.teach([teacher], inputs)[0] for teacher in teachers]
    both, _, disagreement = distillation.teach(teachers, inputs)
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2, atol=0.02, rtol=0)
    assert disagreement.mean > 0
    weights = np.array(list(disagreement.weights.values()))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights, 0.5, atol=0.05)
    entries[0] = entries[0].model_copy(update={"sign_confidence": [0.0]})  # the least weight, not none
    unsure, _, _ = distillation.teach(distillation.load_teachers(run, entries), inputs)
    share = distillation.LEAST / (distillation.LEAST + 0.8)
    torch.testing.assert_close(unsure, share * alone[0] + (1 - share) * alone[1], atol=0.02, rtol=0)
    # The mirror image of a pose gets the mirror image of its depths.
    mirrored, _, _ = distillation.teach(teachers, distillation.mirror(inputs))
    torch.testing.assert_close(distillation.teach(teachers, inputs)[0][:, [4, 5, 6]], mirrored[:, [1, 2, 3]])
    # Signs: the mirrored legs of the second teacher are turned back.
    raw = teachers[1].lifter(inputs[None])[0]
    assert torch.corrcoef(torch.stack((raw[:, 3], alone[1][:, 3])))[0, 1] < 0
    assert torch.corrcoef(torch.stack((raw[:, 13], alone[1][:, 13])))[0, 1] > 0


def test_a_teacher_that_is_wrong_has_little_to_say() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(500, 17, generator=generator) * 0.2
    good = [true + 0.05 * torch.randn(500, 17, generator=generator) for _ in range(2)]
    mirrored, legs_mirrored = -good[0], good[0].clone()
    legs_mirrored[:, :7] *= -1
    shares = distillation.agreement(torch.stack([*good, mirrored]))
    assert (shares[:2] > 0.8).all()
    torch.testing.assert_close(shares[2], torch.full((17,), distillation.LEAST))
    shares = distillation.agreement(torch.stack([*good, legs_mirrored]))
    assert (shares[2, :7] == distillation.LEAST).all()
    assert (shares[2, 7:] > 0.8).all()
    shares = distillation.agreement(torch.stack([*good, torch.zeros(500, 17)]))
    assert (shares[2] == distillation.LEAST).all()
    assert float(distillation.agreement(torch.stack(good)).min()) > 0.9


def test_disturbances() -> None:
    poses = torch.randn(4000, 17, 2, generator=torch.Generator().manual_seed(0)) * 0.05
    poses = poses - poses[:, :1]

    def disturb(noise: float, joint_dropout: float) -> torch.Tensor:
        return distillation.disturbed(poses, noise, joint_dropout, torch.Generator().manual_seed(1))

    assert disturb(0, 0) is poses
    noisy = disturb(0.05, 0)
    assert (noisy[:, 0] == 0).all()
    # Noise of a joint and of the root add up; a pose unit is a tenth of the root-to-head distance.
    assert float((noisy - poses)[:, 1:].std()) == pytest.approx(0.005 * 2**0.5, rel=0.02)
    dropped = disturb(0, 0.2)
    for child, parent in enumerate(PARENT):
        same = (dropped[:, child] == dropped[:, max(parent, 0)]).all(dim=-1)
        assert bool(((dropped[:, child] == poses[:, child]).all(dim=-1) | same).all())
        assert parent < 0 or float(same.float().mean()) == pytest.approx(0.2, abs=0.03)


def test_noise_in_training_makes_the_student_stand_noise(data: Data) -> None:
    poses, joints = data
    rows = poses.rows("train")
    inputs = torch.from_numpy(normalised(poses, rows, normalisation_scale(poses)))
    targets, model = true_offsets(poses, joints)[rows], config.Model(width=32, student_blocks=1)
    held_out = torch.from_numpy(distillation.held_out_rows(poses.sequence[rows], seed=0))
    noisy = distillation.disturbed(inputs, 0.1, 0.0, torch.Generator().manual_seed(5))
    errors = []
    for noise in (0.0, 0.1):
        settings = config.Distillation(steps=600, batch_size=128, lr=0.003, noise=noise)
        student, _ = distillation.train_student(inputs, targets, held_out, settings, model, seed=0)
        with torch.inference_mode():
            errors.append(float((student(noisy[held_out][None])[0] - targets[held_out]).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_held_out_rows_are_whole_sequences() -> None:
    sequences = np.repeat(np.arange(30, dtype=np.int32), 7)
    held = distillation.held_out_rows(sequences, seed=1)
    assert held.sum() == 3 * 7
    assert all(len(set(held[sequences == sequence])) == 1 for sequence in range(30))
    assert (held != distillation.held_out_rows(sequences, seed=2)).any()
    assert distillation.held_out_rows(np.zeros(100, np.int32), seed=1).sum() == 10


def test_the_student_knows_how_far_its_teachers_were_apart(run: Path, data: Data) -> None:
    poses, _ = data
    heard: list[tuple[int, int]] = []
    weights = distillation.distill(run, poses, device="cpu", progress=lambda *told: heard.append(told))
    assert heard == [(1, 2), (2, 2)]
    student = Student.load(weights)
    assert student.knows_spread
    rows = poses.rows("validation")
    told = student.uncertainty(poses.poses[rows])
    teachers = distillation.load_teachers(run, Selection.load(run / "selection.json").teachers)
    inputs = torch.from_numpy(normalised(poses, rows, normalisation_scale(poses)))
    _, spread, _ = distillation.teach(teachers, inputs)
    assert told.shape == (len(rows), 17)
    assert (told[:, 0] == 0).all()
    assert 0.4 < told[:, 1:].mean() / float(spread[:, 1:].mean()) < 1.6
    joints = np.corrcoef(told[:, 1:].mean(0), spread[:, 1:].mean(0))[0, 1]
    assert joints > 0.8


def test_a_student_of_one_teacher_knows_no_uncertainty(run: Path, data: Data) -> None:
    selection = json.loads((run / "selection.json").read_text())
    write_json(run / "selection.json", {**selection, "teachers": selection["teachers"][:1]})
    student = Student.load(distillation.distill(run, data[0]))
    assert not student.knows_spread
    with pytest.raises(UserError, match="does not know its uncertainty"):
        student.uncertainty(data[0].poses[:2])


def test_many_teachers_are_read_one_after_the_other(run: Path, data: Data) -> None:
    """Repeating a teacher changes neither mean nor spread but by its share; the better risk has the larger one."""
    entries = Selection.load(run / "selection.json").teachers
    inputs = torch.from_numpy(normalised(data[0], data[0].rows("train")[:300], normalisation_scale(data[0])))
    few = distillation.teach(distillation.load_teachers(run, entries), inputs)
    many = distillation.teach(distillation.load_teachers(run, entries * 20), inputs)
    torch.testing.assert_close(many[0], few[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(many[1], few[1], atol=1e-3, rtol=0)
    shares = distillation.evidence([entries[0], entries[1].model_copy(update={"risk": 0.2})])
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.25]))


def test_a_teacher_that_holds_poses_mirrored_is_resolved_pose_by_pose(
    run: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that mirrors a third of the poses teaches nearly what a sound one does."""
    entries = Selection.load(run / "selection.json").teachers[:1]
    teachers = distillation.load_teachers(run, entries)
    inputs = torch.from_numpy(normalised(data[0], data[0].rows("train")[:600], normalisation_scale(data[0])))
    sound, _, _ = distillation.teach(teachers, inputs)
    lifter = teachers[0].lifter

    class Mixed(torch.nn.Module):
        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            turned = torch.arange(poses.shape[1]) % 3 == 0
            depths: torch.Tensor = lifter(poses)
            return torch.where(turned[:, None], -depths, depths)

    monkeypatch.setattr(distillation.LoadedTeacher, "lifter", property(lambda _: Mixed()))
    mixed, _, _ = distillation.teach(teachers, inputs)
    right = ((mixed * sound).sum(1) > 0).float().mean()
    assert right > 0.9
