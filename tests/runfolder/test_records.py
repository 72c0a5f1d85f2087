"""Records: written as they are read; anything else is one line that names file and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tips_dist.files import UserError
from tips_dist.runfolder import (
    Curve,
    Curves,
    Evaluation,
    History,
    HistoryRow,
    RunFolder,
    Selection,
    StudyRecord,
    Trial,
    TrialState,
    example,
    layout,
)
from tips_dist.runfolder.curves import METRICS
from tips_dist.runfolder.record import Part, Record, Recorded
from tips_dist.sections import Before, Section, complete, digest, recorded, with_unset
from tips_dist.study_file import parse_study

STUDY = "name: s\nrepresentations: [solo]\ntraining: {steps: 100}\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example.build(tmp_path_factory.mktemp("run") / "run", trials=1, steps=400, depths=8)


@pytest.mark.parametrize("name", ["study", "selection", "student", "evaluation", "dependence"])
def test_every_record_reads_back_as_it_was_written(run: Path, name: str, tmp_path: Path) -> None:
    record = getattr(RunFolder(run), name)
    assert type(record).load(record.save(tmp_path / "r.json") and tmp_path / "r.json") == record


def test_a_run_folder_as_one_frame(run: Path) -> None:
    frame = RunFolder(run).frame()
    assert {"trial", "representation", "training.generator_lr", "seed", "step", "risk", "verdict"} <= set(frame)
    assert {"rigidity/symmetry", "n_mpjpe_resolved"} <= set(frame)
    rows = sum(len(RunFolder(run).history(trial)) for trial in RunFolder(run).trials)
    assert len(frame) == rows
    assert not frame.duplicated(["trial", "seed", "step"]).any()


DAMAGE: dict[str, tuple[str, str]] = {
    "empty": ("", "not valid JSON"),
    "truncated": ('{"schema": 1, "id": "so', "not valid JSON"),
    "a list": ("[]", "expected a JSON object, found list"),
    "nested deep": ('{"a":' * 100_000, "not valid JSON"),
    "no number": ("{}", "schema: missing"),
    "a word for a number": ('{"schema": "1"}', "schema: '1'"),
    "newer": ('{"schema": 99}', "made by a newer version of tips-dist"),
    "a missing field": ('{"schema": 1}', "id: this field is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_one_line(name: str, tmp_path: Path) -> None:
    content, words = DAMAGE[name]
    path = tmp_path / "trial.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        Trial.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": "0"}, "seeds: input should be a valid"),
        ({"seeds": [0.5]}, "seeds.0: input should be a valid integer"),
        ({"state": "done"}, "state: input should be"),
        ({"wall_seconds": None}, "wall_seconds: input should be a valid number, found None"),
        ({"configuration": {"training": {"steps": "many"}}}, "configuration.training.steps: input should be"),
        ({"configuration": {"training": {"unheard": 1}}}, "configuration.training.unheard: unknown to this version"),
    ],
)
def test_a_mistyped_field_is_named(change: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text(json.dumps({**example.trial(seeds=[0]).plain(), **change}))
    with pytest.raises(UserError) as caught:
        Trial.load(path)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.json: no such file"):
        StudyRecord.load(tmp_path / "study.json")


# --- schema 2 --------------------------------------------------------------------------------------------------------


def test_an_evaluation_of_schema_1_gives_its_curves(run: Path, tmp_path: Path) -> None:
    now = RunFolder(run)
    assert now.evaluation is not None
    old = json.loads(json.dumps(now.evaluation.plain()))
    old["schema"] = 1
    for (trial, seed), curve in now.curves.table.items():
        old["trials"][trial]["seeds"][str(seed)] |= {
            "steps": curve.steps.tolist(),
            **{name: values.tolist() for name, values in curve.errors.items()},
        }
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "study.json").write_bytes((run / "study.json").read_bytes())
    (folder / "evaluation.json").write_text(json.dumps(old))
    then = RunFolder(folder)
    assert then.evaluation == now.evaluation
    assert then.curves.frame().equals(now.curves.frame())


def test_a_migration_that_fails_is_one_line(tmp_path: Path) -> None:
    class Second(Record):
        SCHEMA = 2
        MIGRATIONS = {1: lambda old: {"value": old["gone"]}}  # noqa: RUF012

        value: int

    assert Second.parse('{"schema": 1, "gone": 3}', "x.json") == Second(value=3)
    with pytest.raises(UserError, match=r"x\.json: not a record of schema 1 \(no 'gone'\)"):
        Second.parse('{"schema": 1}', "x.json")


# --- records live long -----------------------------------------------------------------------------------------------


class Game(Section):
    rate: float = 0.5
    late: Annotated[float, Field(ge=0), Before(0.0)] = 0.9  # came later; runs before it had none
    same: int = 7  # came later; does what runs did before it


class Whole(Section):
    steps: int = 10
    game: Game = Game()


class Kept(Part):
    whole: Recorded[Whole]


def test_a_new_knob_reads_as_what_runs_did_before_it() -> None:
    old = Kept.model_validate({"whole": {"steps": 5, "game": {"rate": 0.25}}}).whole
    assert (old.game.rate, old.game.late, old.game.same) == (0.25, 0.0, 7)
    assert Kept.model_validate({"whole": {"steps": 5}}).whole.game.late == 0.0  # a whole new section
    assert Whole().game.late == 0.9
    again = Kept(whole=old.model_copy()).model_dump(mode="json")
    assert again["whole"]["game"] == {"rate": 0.25, "late": 0.0, "same": 7}


def test_a_record_that_is_written_again_does_not_learn_of_knobs_it_did_not_know() -> None:
    old = Kept.model_validate({"whole": {"steps": 5, "game": {"rate": 0.25}}})
    assert old.model_copy(update={}).model_dump(mode="json") == {"whole": {"steps": 5, "game": {"rate": 0.25}}}


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 9))
def test_whatever_a_record_knows_is_read_as_it_was(rate: float, late: float, same: int) -> None:
    values = {"steps": 5, "game": {"rate": rate, "late": late, "same": same}}
    found = recorded(Whole, values)
    assert found.model_dump() == values
    assert found == complete(found)


def test_unset_knobs_stay_as_recorded_and_set_ones_are_compared() -> None:
    """The study file of a run says `rate`; its record is from before `late` and `same`."""
    own = Whole.model_validate({"game": {"rate": 0.25}})
    was = recorded(Whole, {"steps": 5, "game": {"rate": 0.25}})

    def same(values: dict[str, object]) -> bool:
        return digest(with_unset(Whole.model_validate(values), own, was)) == digest(was)

    assert same({"game": {"rate": 0.25}})
    assert same({"steps": 5, "game": {"rate": 0.25, "late": 0.0}})
    assert not same({"game": {"rate": 0.25, "late": 0.9}})
    assert not same({"game": {"rate": 0.3}})
    assert not same({})  # what the run's own file sets is the default in the other: another study


def test_a_study_is_known_again_whatever_knobs_came_since(tmp_path: Path) -> None:
    study = parse_study(STUDY, "s")
    plain = example.study_record(study).plain()
    resolved = plain["resolved"]
    assert isinstance(resolved, dict)
    training = resolved["training"]
    assert isinstance(training, dict)
    del training["average"], training["judge"]  # as before averaging
    old = StudyRecord.parse(json.dumps(plain), "study.json")
    assert old.resolved.training.average == 0.0
    assert old.asks_for(study, study)
    changed = parse_study(STUDY.replace("100", "150"), "s")
    assert not old.asks_for(changed, study)
    explicit = parse_study(STUDY.replace("steps: 100", "steps: 100, average: 0.998"), "s")
    assert not old.asks_for(explicit, study)


# --- series ----------------------------------------------------------------------------------------------------------


def test_a_history_reads_back_and_drops_a_torn_line(tmp_path: Path) -> None:
    history = example.history({0: [3.0, 2.0], 1: [4.0, None]})
    path = tmp_path / "history.jsonl"
    history.save(path)
    assert list(History.load(path)) == list(history)
    with path.open("a") as stream:
        stream.write('{"step": 150, "se')
    assert list(History.load(path)) == list(history)
    cut = History.load(path).in_order([1, 0], {0: 100, 1: 50}.__getitem__)
    assert [(row.step, row.seed) for row in cut] == [(50, 1), (50, 0), (100, 0)]
    assert [row.risk for row in History.load(path).of(1)] == [4.0, None]
    assert list(History.load(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("7", "line 2: expected a JSON object, found int"),
        ('{"seed": 0, "verdict": "healthy"}', "line 2: step: expected a whole number, found None"),
        ('{"step": 10, "seed": true, "verdict": "healthy"}', "line 2: seed: expected a whole number"),
        ('{"step": 10, "seed": 0}', "line 2: verdict: expected a word"),
        ('{"step": 10, "seed": 0, "verdict": "healthy", "risk": "low"}', "line 2: risk: expected a number or null"),
        ('{"step": 10, "seed": 0, "verdict": "healthy", "a/b": []}', "line 2: a/b: expected a number or null"),
        ('{"a":' * 100_000, "line 2: not valid JSON"),
    ],
)
def test_a_damaged_line_is_named(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(HistoryRow(10, 0, 1.0, "healthy").line() + line + "\n")
    with pytest.raises(UserError) as caught:
        History.load(path)
    assert words in str(caught.value)


def curve(count: int) -> Curve:
    steps = np.arange(1, count + 1, dtype=np.int64) * 10
    return Curve(steps, {name: steps.astype(np.float64) * (1.5 + index) for index, name in enumerate(METRICS)})


def test_curves_read_back(tmp_path: Path) -> None:
    curves = Curves({("b-000", 1): curve(2), ("a-000", 0): curve(3), ("a-000", 1): curve(1)})
    curves.save(tmp_path / "curves.npz")
    found = Curves.load(tmp_path / "curves.npz")
    assert found.table.keys() == curves.table.keys()
    for key, one in curves.table.items():
        np.testing.assert_array_equal(found.table[key].steps, one.steps)
        for name in METRICS:
            np.testing.assert_array_equal(found.table[key].errors[name], one.errors[name])
    Curves().save(tmp_path / "empty.npz")
    assert Curves.load(tmp_path / "empty.npz").table == {}
    assert Curves.load(tmp_path / "none.npz").table == {}


def without(name: str) -> Callable[[dict[str, np.ndarray]], None]:
    def damage(arrays: dict[str, np.ndarray]) -> None:
        del arrays[name]

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("step"), "no array"),
        (lambda arrays: arrays.update(step=arrays["step"][:-1]), "expected"),
        (lambda arrays: arrays.update(seed=arrays["seed"].astype(float)), "expected"),
        (lambda arrays: arrays.update(trial=arrays["trial"] + 7), "counts beyond"),
        (lambda arrays: arrays.update(step=np.array(7)), "expected"),
        (lambda arrays: arrays.update(trials=np.array(3.0)), "no names"),
        (lambda arrays: arrays.update(schema=np.array(9)), "newer version"),
    ],
)
def test_damaged_curves_are_one_line(
    damage: Callable[[dict[str, np.ndarray]], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "curves.npz"
    Curves({("a-000", 0): curve(3)}).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    damage(arrays)
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(UserError, match=words):
        Curves.load(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"cannot be read as \.npz.*; evaluate the run again"):
        Curves.load(path)


# --- layout ----------------------------------------------------------------------------------------------------------


def test_every_record_reaches_every_command() -> None:
    records = {file.pattern for file in layout.FILES if file.kind is layout.FileKind.RECORD}
    for command in layout.ASKS:
        assert records <= set(layout.needs(command))
    assert layout.needs("distill") == ("*",)


def test_copies_keep_the_order_that_a_killed_study_leaves() -> None:
    names = ["trials/a/trial.json", "trials/a/checkpoint/x", "mirror.json", "trials/a/history.jsonl", "optuna.journal"]
    names += ["trials/a/frozen/seed0.safetensors"]
    assert [name.rpartition("/")[2] for name in sorted(names, key=layout.order)] == [
        "optuna.journal",
        "history.jsonl",
        "seed0.safetensors",
        "x",
        "trial.json",
        "mirror.json",
    ]
    for local in ("lock", ".stop", "trials/a/.lock", "trials/a/.trial.json.7.tmp", ".study.json.7.tmp"):
        assert not layout.copied(local)


def test_trial_states() -> None:
    assert {state for state in TrialState if state.final} == {"finished", "failed", "stopped"}


def test_selection_and_evaluation_ask_the_same_seed(run: Path) -> None:
    folder = RunFolder(run)
    assert isinstance(folder.selection, Selection)
    assert isinstance(folder.evaluation, Evaluation)
    for row in folder.selection.seeds:
        errors = folder.evaluation.errors(row.trial, row.seed)
        assert errors is None or errors.selected is None or errors.selected.step == row.step
