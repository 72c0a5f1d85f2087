"""The scorecard on histories whose answers are known, and on a run whose errors are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.evaluation.examples import NOISE, SEEDS, STEPS, example_run
from tips_dist.cli import app
from tips_dist.data import procedural
from tips_dist.data.writer import write_truth
from tips_dist.evaluation import choices, rules
from tips_dist.evaluation.evaluate import labelled_histories
from tips_dist.evaluation.histories import LabelledHistory, label
from tips_dist.evaluation.scorecard import scorecard
from tips_dist.replay import SeedHistory
from tips_dist.runfolder import RunFolder, example, layout
from tips_dist.stability.detectors import Recipe
from tips_dist.stability.risk import regimes

NAN = float("nan")
FALLING = tuple(100.0 - 2 * index for index in range(20))
BROKEN = tuple(100.0 - 5 * index for index in range(8)) + (160.0,) * 12


def history(
    risks: Sequence[float],
    errors: Sequence[float] | None = None,
    *,
    trial: str = "solo-000",
    seed: int = 0,
    every: int = 50,
    budget: int = 1000,
    **signals: Sequence[float],
) -> LabelledHistory:
    steps = tuple(every * (index + 1) for index in range(len(risks)))
    calm = {"discriminator/loss": 0.24, "discriminator/accuracy": 0.6, "depth/spread_ratio": 1.0}
    given = {name.replace("__", "/"): values for name, values in signals.items()}
    columns = {**{name: [value] * len(risks) for name, value in calm.items()}, **given}
    return LabelledHistory(
        trial=trial,
        representation="solo",
        seed=seed,
        budget=budget,
        recipe=Recipe(),
        steps=steps,
        names=tuple(columns),
        values=np.array(list(columns.values()), np.float64).T,
        risks=np.array(risks, np.float64),
        errors=np.array(risks if errors is None else errors, np.float64),
    )


# --- histories -------------------------------------------------------------------------------------------------------


def recorded(steps: int, last_risk: float) -> SeedHistory:
    one = history([50.0] * (steps - 1) + [last_risk])
    return SeedHistory(**{name: getattr(one, name) for name in SeedHistory.__dataclass_fields__})


def test_what_a_non_finite_seed_did_not_live_to_see_counts_against_it() -> None:
    dead, cut = label(recorded(4, NAN), [80.0] * 3 + [NAN], 50), label(recorded(4, 50.0), [80.0] * 4, 50)
    assert (len(dead.steps), dead.steps[-1], dead.diverged, dead.cut) == (20, 1000, True, False)
    assert dead.values.shape == (20, 3)
    assert (len(cut.steps), cut.diverged, cut.cut) == (4, False, True)
    whole = label(recorded(4, 50.0), [80.0] * 4, 50, whole=True)
    assert (len(whole.steps), np.isnan(whole.errors).sum(), np.isnan(whole.risks).sum()) == (20, 16, 16)


# --- choices ---------------------------------------------------------------------------------------------------------


def test_choices_of_a_checkpoint() -> None:
    one = history(
        [9.0, 5, 7, NAN],
        [90.0, 80, 70, NAN],
        discriminator__loss=[0.1, 0.2, 0.26, NAN],
        generator__loss=[3.0, 2.0, 2.5, NAN],
    )
    assert choices.lowest_risk(one) == 1
    assert choices.last(one) == 2
    assert choices.best_balance(one) == 2  # balanced at 0.25
    assert choices.lowest("generator/loss")(one) == 1
    assert choices.lowest("never/recorded")(one) is None


# --- rules -----------------------------------------------------------------------------------------------------------


def test_asha_keeps_the_best_third_of_each_rung() -> None:
    seeds = [history([100.0 + seed - index for index in range(20)], seed=seed) for seed in range(9)]
    rule = rules.asha(seeds)
    stops = [rule(one) for one in seeds]
    assert stops[0] is None
    # Rungs at steps 37, 111 and 333: nobody has been evaluated by the first, then three go on, then one.
    assert stops[1:3] == [5, 5]
    assert stops[3:] == [1] * 6


def test_median_stopping_looks_at_others_where_they_were() -> None:
    """A seed evaluated half as often is compared at the same steps."""
    good = [history([50.0] * 20, seed=seed) for seed in range(3)]
    slow = history([50.0] * 10, seed=3, every=100)
    bad = history([90.0] * 20, seed=4)
    rule = rules.median_stopping([*good, slow, bad])
    assert [rule(one) for one in (*good, slow)] == [None] * 4
    assert rule(bad) == 2


# --- the card --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card() -> Any:
    """Six trials of two seeds: one falls, the other breaks; the risk is the error but for a constant."""
    seeds = []
    for trial in range(6):
        for seed, risks in enumerate((FALLING, BROKEN)):
            errors = [value + 5 * trial for value in risks]
            seeds.append(history(risks, errors, trial=f"solo-{trial:03d}", seed=seed, generator__loss=risks[::-1]))
    return scorecard(seeds)


def test_a_perfect_risk_orders_perfectly_and_has_no_regret(card: Any) -> None:
    assert (card.seeds, card.trials, card.diverged, card.cut, card.drawn) == (12, 6, 6, 0, "trials")
    assert card.ordering["risk (ours)"].within.value == pytest.approx(1)
    assert card.ordering["generator/loss"].within.value < 0
    assert card.selection["lowest risk (ours)"].mm.value == 0
    assert card.selection["last checkpoint"].mm.value == pytest.approx(95 / 2)  # only broken seeds regret it
    assert card.selection["random checkpoint"].share is None
    assert "least sliced Wasserstein" not in card.selection  # not recorded


def test_broken_seeds_are_told_and_stopped(card: Any) -> None:
    ours = card.detection["detectors (ours)"]
    assert (ours.told.value, ours.false_stops.value, ours.auroc.value) == (1, 0, 1)
    assert 0 <= ours.delay.value < 0.2
    stopping = card.stopping["verdicts (ours)"]
    assert 0.1 < stopping.saved.value < 0.4
    assert (stopping.lost_mm.value, stopping.best_lost, stopping.trials) == (0, 0, 6)
    assert card.stopping["never stop"].saved.value == 0
    assert card.stopping["ASHA on risk"].lost_mm.value > 10


def test_what_was_called_and_when(card: Any) -> None:
    fell, broke = card.called[:2]
    assert (fell.verdict, fell.called, fell.fate, fell.true_onset) == ("healthy", None, "learning", None)
    assert (broke.verdict, broke.fate, broke.true_onset) == ("diverged", "diverged", 450)
    assert 450 <= broke.called <= 600
    assert (broke.selected_mm, broke.best_mm, broke.last_mm) == (65, 65, 160)


def test_what_a_user_gets_is_set_against_the_best_there_is(card: Any) -> None:
    assert (card.chosen.trial, card.chosen.seed, card.chosen.error_mm) == ("solo-000", 0, 62)
    assert card.chosen.best_mm == 62


def test_intervals_are_over_seeds_where_trials_are_few() -> None:
    found = scorecard([history(FALLING, seed=0), history(BROKEN, seed=1), history(FALLING, seed=2)])
    assert found.drawn == "seeds"
    told = found.selection["last checkpoint"].mm
    assert told.low < told.value < told.high


def test_histories_that_were_cut_are_left_out_of_what_they_cannot_tell() -> None:
    found = scorecard([history(FALLING, seed=0), history(BROKEN[:12], seed=1)])
    assert found.cut == 1
    assert found.detection["detectors (ours)"].told.runs == 1
    assert found.selection["last checkpoint"].mm.runs == 2
    only_cut = scorecard([history(FALLING[:12])])
    assert (only_cut.detection, only_cut.stopping) == ({}, {})


def test_seeds_without_a_risk_or_an_error_break_nothing() -> None:
    dead = history([NAN] * 20, [NAN] * 20, seed=1)
    found = scorecard([history(FALLING), dead])
    assert found.diverged == 1
    assert found.called[1].best_mm is None
    alone = scorecard([dead])
    assert (alone.chosen, alone.ordering, alone.selection) == (None, {}, {})


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, its truth, and a copy of the run."""
    folder = tmp_path_factory.mktemp("made")
    poses, joints = procedural.generate(1500, seed=3)
    example_run(folder / "first", poses, joints)
    write_truth(folder / "a.truth3d.h5", joints, poses.digest)
    shutil.copytree(folder / "first", folder / "second")
    return folder


def test_a_runs_histories_carry_its_true_errors(made: Path) -> None:
    found = labelled_histories(made / "first", made / "a.truth3d.h5", name="first")
    assert [one.key for one in found] == [
        ("first", name, seed) for name in ("solo-000", "torso_legs-000") for seed in SEEDS
    ]
    for one in found:
        assert one.steps == STEPS
        assert np.argsort(one.errors).tolist() == np.argsort(NOISE[one.seed]).tolist()
        assert not one.cut


def test_the_command_prints_tables_and_json(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    given = ["scorecard", str(made / "first"), str(made / "second"), "--truth", str(made / "a.truth3d.h5")]
    told = CliRunner().invoke(app, given, catch_exceptions=False, env={"COLUMNS": "160"})
    assert told.exit_code == 0, told.output
    for words in ("first: 4 seeds of 2 trials", "all 2 runs together: 8 seeds of 4 trials", "What was called"):
        assert words in told.output
    document = json.loads(CliRunner().invoke(app, [*given, "--json"], catch_exceptions=False).stdout)
    assert set(document["runs"]) == {"first", "second"}
    assert document["pooled"]["seeds"] == 8
    assert document["runs"]["first"]["chosen"]["best_step"] == 20
    assert "NaN" not in CliRunner().invoke(app, [*given, "--json"]).stdout
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "study.json").unlink(), "not a run folder"),
        (lambda run: [path.unlink() for path in run.glob("trials/*/depths.npy")], "no recorded depths"),
        (lambda run: example.history({}).save(layout.HISTORY.at(run, "solo-000")), None),
        (lambda run: shutil.rmtree(run / "trials"), "no trial has a history"),
    ],
)
def test_what_is_missing_is_one_clear_line(made: Path, tmp_path: Path, damage: Any, words: str | None) -> None:
    shutil.copytree(made / "first", tmp_path / "run")
    damage(tmp_path / "run")
    told = CliRunner().invoke(app, ["scorecard", str(tmp_path / "run"), "--truth", str(made / "a.truth3d.h5")])
    if words is None:  # the other trial is scored
        assert told.exit_code == 0
        assert "2 seeds of 1 trials" in told.output
    else:
        assert words in str(told.exception)


def test_a_run_named_twice_is_refused(made: Path) -> None:
    given = ["scorecard", str(made / "first"), str(made / "first"), "--truth", str(made / "a.truth3d.h5")]
    assert "named twice" in str(CliRunner().invoke(app, given).exception)
    assert RunFolder(made / "first").evaluation is None


def test_truth_of_other_poses_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    poses, joints = procedural.generate(1500, seed=4)
    write_truth(tmp_path / "b.truth3d.h5", joints, poses.digest)
    told = CliRunner().invoke(app, ["scorecard", str(made / "first"), "--truth", str(tmp_path / "b.truth3d.h5")])
    assert told.exit_code != 0
    assert str(tmp_path / "b.truth3d.h5") in str(told.exception)
    assert "\n" not in str(told.exception)


# --- what histories may look like ------------------------------------------------------------------------------------

VIEWED: dict[str, Any] = {
    "agreement__views": [0.4] * 20,
    "mirror__mixed": [0.02] * 20,
    "rigidity__bone_ratio_variance": [0.05] * 20,
}


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param([history(FALLING)], id="one seed"),
        pytest.param([history(FALLING, **VIEWED), history(BROKEN, seed=1)], id="a second view for one seed alone"),
        pytest.param([history(FALLING), history(FALLING[::2], seed=1, every=100)], id="intervals that differ"),
        pytest.param(
            [history([NAN, *FALLING[1:9], NAN, NAN, *FALLING[11:]], FALLING, agreement__views=[NAN] * 20)], id="gaps"
        ),
        pytest.param([history(FALLING[:3], budget=150)], id="three evaluations"),
        pytest.param([history(FALLING[:1], budget=50)], id="one evaluation"),
        pytest.param([history(FALLING), history([NAN] * 20, [NAN] * 20, seed=1)], id="a dead seed"),
    ],
)
def test_odd_histories_are_scored_as_far_as_they_go(seeds: list[LabelledHistory]) -> None:
    found = scorecard(seeds)
    assert found.seeds == len(found.called) == len(seeds)
    assert set(found.stopping) >= {"never stop", "verdicts (ours)", "patience on risk", "power law of the risk"}
    assert found.stopping["never stop"].lost_mm.value in (0, pytest.approx(np.nan, nan_ok=True))


def test_crossings_and_drift_are_told_apart_from_divergence() -> None:
    mixed = [0.0] * 8 + [0.3] * 6 + [0.0] * 6
    rising = [80.0 - 2 * index for index in range(8)] + [90.0] * 6 + [64.0] * 6
    crossing = dataclasses.replace(history(rising, mirror__mixed=mixed), mirrored=np.array(mixed))
    drifting = history([100.0 - 5 * index for index in range(9)] + [60.0 + 0.5 * index for index in range(11)], seed=1)
    assert (crossing.fate, crossing.crossed, crossing.healthy) == ("converged", True, False)
    assert (drifting.fate, drifting.crossed, drifting.healthy) == ("drifting", False, False)
    found = scorecard([crossing, drifting, history(FALLING, seed=2)])
    assert (found.crossed, found.drifting, found.diverged) == (1, 1, 0)
    ours = found.detection["detectors (ours)"]
    assert ours.crossing is not None
    assert ours.crossing.value == 1  # by its name, and it is not stopped
    assert ours.crossing_stopped is not None
    assert ours.crossing_stopped.value == 0
    assert [row.crossed for row in found.called] == [True, False, False]


def test_how_often_the_interval_holds() -> None:
    regime = regimes()[1]
    names: dict[str, Any] = {name.replace("/", "__"): [0.05] * 20 for name in regime.weights}
    inside, outside = (history([80.0] * 20, [80 * factor] * 20, seed=0, **names) for factor in (1.01, 3.0))
    for one, share in ((inside, 1.0), (outside, 0.0)):
        found = scorecard([one]).covered
        assert found is not None
        assert found.value == share
