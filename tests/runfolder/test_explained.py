"""What a run folder says of itself to the letter: errors, lines, order; what mutation testing found loose."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tips_dist.config import Data, Procedural
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses
from tips_dist.files import UserError
from tips_dist.runfolder import Curves, History, HistoryRow, RunFolder, Trial, WeightsRecord, example, layout
from tips_dist.runfolder.curves import METRICS, Curve
from tips_dist.runfolder.poses import expect, run_poses, study_poses
from tips_dist.runfolder.record import Part, explain
from tips_dist.runfolder.results import Errors, Evaluation, SeedErrors, TrialErrors, TruthReference, embedded_curves


class Pair(Part):
    one: int
    two: dict[str, list[int]] = {}  # noqa: RUF012 (pydantic copies defaults)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "one: this field is missing"),
        ({"one": "1"}, "one: input should be a valid integer, found '1'"),
        ({"one": 1, "two": {"a": [1, None]}}, "two.a.1: input should be a valid integer, found None"),
        ({"one": "x" * 58}, f"one: input should be a valid integer, found '{'x' * 58}'"),
        ({"one": "x" * 70}, f"one: input should be a valid integer, found '{'x' * 56}…"),
        ({"one": "a\tb\nc"}, r"one: input should be a valid integer, found 'a\tb\nc'"),
    ],
)
def test_an_error_names_field_fault_and_what_was_found(values: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(values)
    assert explain(caught.value) == line


def test_an_error_of_the_whole_record_and_of_a_knob_from_the_future() -> None:
    changes: list[tuple[dict[str, object], str]] = [
        ({"representation": "octopus"}, "representation 'octopus' is unknown to this program"),
        ({"part_signs": [1, 1]}, "part_signs: expected 1 of +1 or -1, got [1, 1]"),
        ({"part_signs": [2]}, "part_signs: expected 1 of +1 or -1, got [2]"),
        ({"sign_confidence": [0.5, 0.5]}, "sign_confidence: expected 1 numbers, got 2"),
    ]
    for change, line in changes:
        values = {"representation": "solo", "width": 8, "blocks": 0, "batch_norm": True, "scale": 1.0, **change}
        with pytest.raises(ValidationError) as caught:
            WeightsRecord.model_validate(values)
        assert explain(caught.value) == line
    with pytest.raises(ValidationError) as caught:
        Data.model_validate({"unheard": 1})
    assert explain(caught.value) == "unheard: unknown to this version of tips-dist (made by a newer one, or edited?)"
    deep: dict[str, object] = {"one": 1, "two": {"k" * 300: [None]}}
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(deep)
    assert explain(caught.value).startswith(f"two.{'k' * 46}…{'k' * 48}.0: ")


# --- history.jsonl ---------------------------------------------------------------------------------------------------


def test_a_line_of_the_history_to_the_letter() -> None:
    row = HistoryRow(10, 3, None, "healthy", {"b/x": 2.0, "a/y": None})
    assert row.line() == '{"a/y": null, "b/x": 2.0, "risk": null, "seed": 3, "step": 10, "verdict": "healthy"}\n'
    with pytest.raises(ValueError, match="Out of range"):
        HistoryRow(10, 3, math.nan, "healthy").line()


def test_one_bad_line_among_good_ones_has_its_number_and_good_lines_are_told_apart(tmp_path: Path) -> None:
    path, good = tmp_path / "history.jsonl", HistoryRow(10, 0, 1.0, "healthy", {"a/b": 3.0})
    path.write_text(good.line() + HistoryRow(20, 0, 2.0, "diverged").line())
    assert History.load(path).rows == [good, HistoryRow(20, 0, 2.0, "diverged")]
    path.write_text(good.line() + "not JSON\n")
    with pytest.raises(UserError, match=r"history\.jsonl: line 2: not valid JSON"):
        History.load(path)
    path.write_text(good.line() + '{"step": 20, "seed": 0, "risk": null, "verdict": "ok", "a/b": true}\n')
    with pytest.raises(UserError, match="line 2: a/b: expected a number or null, found True"):
        History.load(path)


# --- evaluation.json, curves.npz -------------------------------------------------------------------------------------


def test_the_curves_of_schema_1_value_by_value(tmp_path: Path) -> None:
    lists = {"steps": [10, 20], **{name: [float(index), None] for index, name in enumerate(METRICS)}}
    run = example.build(tmp_path / "run", trials=1, steps=100)
    layout.CURVES.at(run).unlink()
    old = {
        "trials": {"solo-000": {"seeds": {"0": lists, "7": {"selected": None}}}, "solo-001": {"seeds": {"1": lists}}}
    }
    layout.EVALUATION.at(run).write_text(json.dumps(old))
    curves = RunFolder(run).curves
    assert set(curves.table) == {("solo-000", 0), ("solo-001", 1)}
    for curve in curves.table.values():
        assert curve.steps.tolist() == [10, 20]
        assert (curve.steps.dtype.name, curve.errors["n_mpjpe"].dtype.name) == ("int64", "float64")
        for index, name in enumerate(METRICS):
            np.testing.assert_array_equal(curve.errors[name], [index, np.nan])
    layout.EVALUATION.at(run).write_text('{"trials": {"solo-000": {"seeds": []}}}')
    with pytest.raises(UserError, match=r"evaluation\.json: trials: damaged"):
        _ = RunFolder(run).curves
    layout.EVALUATION.at(run).unlink()
    assert RunFolder(run).curves.table == {}
    assert embedded_curves({"selected": None}) is None


def test_an_evaluation_is_asked_by_trial_and_seed() -> None:
    errors = Errors(step=5, n_mpjpe=1.0, n_mpjpe_resolved=2.0, pa_mpjpe=3.0, pa_mpjpe_resolved=None)
    seed = SeedErrors(selected=errors, best=None, last=None, random=errors)
    found = Evaluation(
        truth=TruthReference(path="t.h5", digest="d"),
        data_digest="e",
        trials={"solo-000": TrialErrors(representation="solo", seeds={3: seed})},
    )
    assert found.errors("solo-000", 3) == seed
    assert found.errors("solo-000", 4) is None
    assert found.errors("solo-009", 3) is None
    assert [errors.of(name) for name in METRICS] == [1.0, 2.0, 3.0, None]
    assert (seed.of("selected"), seed.of("best"), seed.of("random")) == (errors, None, errors)


def test_curves_are_sorted_and_compressed_and_know_their_seeds(tmp_path: Path) -> None:
    def curve(first: int) -> Curve:
        return Curve(np.array([first]), {name: np.array([float(first)]) for name in METRICS})

    Curves({("b", 2): curve(1), ("a", 9): curve(2), ("a", 1): curve(3)}).save(tmp_path / "curves.npz")
    found = Curves.load(tmp_path / "curves.npz")
    assert list(found.table) == [("a", 1), ("a", 9), ("b", 2)]
    assert [int(one.steps[0]) for one in found.table.values()] == [3, 2, 1]
    assert found.of("a", 2) is None
    assert found.frame().columns.tolist() == ["trial", "seed", "step", *METRICS]
    assert found.frame()["trial"].tolist() == ["a", "a", "b"]
    assert Curves().frame().columns.tolist() == ["trial", "seed", "step", *METRICS]
    with np.load(tmp_path / "curves.npz") as file:
        assert sorted(file) == sorted(["schema", "trials", "trial", "seed", "step", *METRICS])


# --- the folder ------------------------------------------------------------------------------------------------------


def test_trials_stand_in_the_order_of_the_study_and_are_found_by_id(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    example.study_record(example.study(representations=["torso_legs", "solo"])).save(layout.STUDY.at(run))
    for identity in ("solo-001", "solo-000", "torso_legs-000", "torso_legs-001"):
        example.trial(identity, seeds=[0]).write(run)
    folder = RunFolder(run)
    assert [trial.id for trial in folder.trials] == ["torso_legs-000", "torso_legs-001", "solo-000", "solo-001"]
    assert folder.representations == ["torso_legs", "solo"]
    assert folder.only(folder.trials[2:]).representations == ["solo"]
    assert folder.trial("solo-001").number == 1
    with pytest.raises(UserError, match="no trial 'x'; it has torso_legs-000, torso_legs-001, solo-000, solo-001"):
        folder.trial("x")
    example.trial("solo-000", seeds=[0]).save(layout.TRIAL.at(run, "solo-001"))
    with pytest.raises(UserError, match="id: found 'solo-000', expected the folder's name 'solo-001'"):
        _ = RunFolder(run).trials


@pytest.mark.parametrize(
    ("depths", "words"),
    [
        (np.zeros((3, 2, 8, 16), np.float16), r"expected floats \(steps, 2, 8, 17\)"),
        (np.zeros((3, 1, 8, 17), np.float16), r"expected floats \(steps, 2, 8, 17\)"),
        (np.zeros((3, 2, 8, 17), np.int16), "int16"),
        (np.zeros((2, 8, 17), np.float16), r"float16 \(2, 8, 17\)"),
    ],
)
def test_depths_of_another_shape_are_refused(depths: np.ndarray, words: str, tmp_path: Path) -> None:
    one = _with_depths(tmp_path, depths)
    with pytest.raises(UserError, match=words):
        RunFolder(tmp_path).depths(one, 8)


def test_depths_of_the_right_shape_are_mapped(tmp_path: Path) -> None:
    values = np.arange(3 * 2 * 8 * 17, dtype=np.float16).reshape(3, 2, 8, 17)
    one = _with_depths(tmp_path, values)
    for poses in (None, 8):
        found = RunFolder(tmp_path).depths(one, poses)
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, values)
    with pytest.raises(UserError, match=r"\(steps, 2, 9, 17\)"):
        RunFolder(tmp_path).depths(one, 9)
    assert RunFolder(tmp_path).depths(example.trial("solo-001", seeds=[0])) is None


def _with_depths(run: Path, depths: np.ndarray) -> Trial:
    example.study_record().save(layout.STUDY.at(run))
    one = example.trial(seeds=[0, 1]).write(run)
    np.save(layout.DEPTHS.at(run, one.id), depths)
    return one


# --- poses -----------------------------------------------------------------------------------------------------------


def test_every_way_to_the_poses_of_a_run(tmp_path: Path) -> None:
    made = procedural.generate(60, 1)[0]
    others = procedural.generate(60, 2)[0]
    write_poses(tmp_path / "a.pose2d.h5", made)
    write_poses(tmp_path / "b.pose2d.h5", others)
    run = tmp_path / "run"
    run.mkdir()
    generated = Data(procedural=Procedural(poses=60, seed=1))
    assert study_poses(generated, tmp_path).digest == made.digest
    assert study_poses(Data(poses="a.pose2d.h5"), tmp_path).digest == made.digest
    assert study_poses(Data(poses="a.pose2d.h5", digest=made.digest[:16]), tmp_path).digest == made.digest
    with pytest.raises(UserError, match=f"has the digest {made.digest[:12]}…, the study asks for {others.digest[:12]}"):
        study_poses(Data(poses="a.pose2d.h5", digest=others.digest), tmp_path)

    def record(path: str | None) -> Path:
        resolved = example.study(data=generated.model_dump(exclude_unset=True))
        example.study_record(resolved, data_digest=made.digest, path=path).save(layout.STUDY.at(run))
        return run

    for path in (None, "../a.pose2d.h5", str(tmp_path / "a.pose2d.h5")):
        assert RunFolder(record(path)).poses().digest == made.digest
    assert run_poses(run, RunFolder(record("../gone.h5")).study, tmp_path / "a.pose2d.h5").digest == made.digest
    with pytest.raises(UserError, match=r"\.\./gone\.h5: the run's pose file is gone; say where it is now"):
        RunFolder(record("../gone.h5")).poses()
    with pytest.raises(UserError, match=f"b.pose2d.h5: these are not the poses that {run} was trained on"):
        RunFolder(record("../b.pose2d.h5")).poses()
    with pytest.raises(UserError, match=f"digest {others.digest[:12]}…, expected {made.digest[:12]}…"):
        expect(others, RunFolder(record(None)).study, run, "procedural")
