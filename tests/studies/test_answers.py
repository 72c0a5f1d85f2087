"""Answers of the published studies: the arithmetic on histories whose answer is known, and the pages they fill."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from studies.answers import figures, representations, search
from studies.answers.__main__ import save_histories
from studies.answers.material import Material, load
from studies.answers.tables import Table, apart, delta, effect, effect_over_seeds, fill, mean
from tips_dist.bootstrap import Statistic
from tips_dist.evaluation.labels import drift_of
from tips_dist.files import UserError
from tips_dist.runfolder.example import build
from tips_dist.study_file import load_study

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A run in which solo drifts and half its seeds break, while parts stay near their minimum."""
    return load(build(tmp_path_factory.mktemp("answers") / "run", seeds=6))


def number(cell: object) -> float:
    assert isinstance(cell, Statistic)
    assert cell.low <= cell.value <= cell.high
    return cell.value


def test_the_chosen_configuration_has_the_lowest_risk(material: Material) -> None:
    for name, trial in material.chosen.items():
        risks = {
            key: np.median([np.nanmin(history.risks) for history in seeds])
            for key, seeds in material.trials(name).items()
        }
        assert set(risks) == {f"{name}-000", f"{name}-001"}
        assert trial in risks


def test_parts_are_told_to_be_better_and_steadier(material: Material) -> None:
    errors = {row[0]: row for row in representations.error_at_selection(material).rows}
    assert number(errors["torso_legs"][5]) < -5
    assert errors["torso_legs"][7] == pytest.approx(-1)  # Cliff's delta: every seed below every other
    near = {row[0]: number(row[1]) for row in representations.staying_near_the_minimum(material).rows}
    assert near["torso_legs"] > near["solo"]
    ends = {row[0]: (number(row[1]), number(row[2])) for row in representations.ending_near_the_best(material).rows}
    assert ends["torso_legs"] == pytest.approx((100, 100))
    assert ends["solo"][1] == 0


def test_a_run_is_set_against_its_twin(material: Material) -> None:
    """Against itself nothing differs; the twin is the trial with the same representation and rate."""
    trial, seeds = representations.twin(material, material.of("solo"))
    assert (trial, seeds) == (material.chosen["solo"], material.of("solo"))
    for row in representations.precision(material, material).rows:
        assert number(row[3]) == 0


def test_a_run_without_a_search_is_answered_too(material: Material, tmp_path: Path) -> None:
    """``long.yaml`` has one trial per representation and no searched values."""
    trials = [trial.now(parameters={}) for trial in material.folder.trials if trial.id in material.chosen.values()]
    kept = [history for history in material.histories if history.trial in material.chosen.values()]
    alone = dataclasses.replace(material, folder=material.folder.only(trials), histories=kept)
    tables = representations.again(alone)
    assert set(tables) == {"a", "b", "c", "d", "e", "trials"}
    assert [row[1] for row in tables["trials"].rows] == [
        f"{seeds[0].configuration.training.generator_lr:g}" for seeds in alone.trials().values()
    ]
    figures.curves(alone, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_near_after_counts_from_the_minimum_on() -> None:
    assert representations.near_after(np.array([300, 200, 100, 104, 104, 106.0])) == 3 / 4
    assert representations.near_after(np.array([5, 4, 3, 2, 1.0])) == 1


def test_selection_and_stopping_are_set_against_trivial_choices(material: Material) -> None:
    regret = {row[0]: number(row[1]) for row in representations.regret(material).rows}
    assert 0 <= regret["lowest risk (ours)"] < regret["random checkpoint"]
    stops = {row[0]: row for row in representations.stopping(material).rows}
    assert number(stops["never stop"][1]) == 0
    others = {"patience on risk", "power law of the risk", "ASHA on risk", "median stopping on risk"}
    assert set(stops) == {"never stop", "verdicts (ours)", *others}


def test_drift_is_the_end_over_the_minimum(material: Material) -> None:
    history = material.of("solo")[0]
    tail = history.errors[-len(history.errors) // 5 :]
    assert drift_of(history.errors) == pytest.approx(np.median(tail) / history.errors.min() - 1, abs=0.02)


def test_effects_are_drawn(tmp_path: Path) -> None:
    table = Table("Title", ["factor", "from, to", "drift, %"])
    table.add("rotation", "per_sample, batch", Statistic(12.34, 10.0, 15.0, 8))
    table.add("dropout", "0.0, 0.5", None)
    figures.effects({"solo": (table, table), "torso_legs": (table, table)}, ["drift, %"], tmp_path / "effects.png")
    assert (tmp_path / "effects.png").stat().st_size > 5_000


def test_effects_and_their_signs() -> None:
    assert number(mean([1.0, 2.0, 3.0])) == 2
    assert number(apart([11.0, 11.0], [10.0, 10.0])) == 1
    assert number(apart([11.0, 11.0], [10.0, 10.0], percent=True)) == 10
    assert delta([1.0, 2.0], [3.0, 4.0]) == -1


def test_trials_of_a_design_do_not_widen_an_effect() -> None:
    """Two recipes that differ by 50, each with a partner that is 3 worse."""
    random = np.random.default_rng(1)
    good = [[base + random.normal(0, 1) for _ in range(20)] for base in (100, 150)]
    bad = [[base + random.normal(0, 1) for _ in range(20)] for base in (103, 153)]
    wide, narrow = effect(bad, good), effect_over_seeds(bad, good)
    assert wide is not None
    assert narrow is not None
    assert wide.value == pytest.approx(narrow.value)
    assert wide.low < 0 < 2 < narrow.low < 3 < narrow.high < 4
    assert effect_over_seeds([[np.nan]], good) is None


def test_teachers_are_the_seeds_of_lowest_risk(material: Material) -> None:
    kept = search.lowest_risk(material.histories)
    assert len(kept) == search.TEACHERS
    worst = max(float(np.nanmin(history.risks)) for history in kept)
    assert sum(float(np.nanmin(h.risks)) < worst for h in material.histories) == search.TEACHERS - 1


def test_pages_are_filled_between_their_markers(tmp_path: Path) -> None:
    page, table = tmp_path / "README.md", Table("Title", ["who", "value"])
    table.add("solo", Statistic(12.34, 10.0, 15.0, 8))
    table.add("parts", None)
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n")
    for _ in range(2):
        fill(page, {"a": table})
        text = page.read_text()
        assert text.startswith("before\n<!-- a -->\nTitle\n")
        assert "| solo | 12.3 (10.0..15.0) |" in text
        assert text.endswith("<!-- /a -->\nafter\n")
    assert "old" not in text
    with pytest.raises(UserError, match="no place for a table"):
        fill(page, {"b": table})


def test_histories_can_be_asked_again(material: Material, tmp_path: Path) -> None:
    save_histories(material, tmp_path / "histories.npz")
    with np.load(tmp_path / "histories.npz", allow_pickle=False) as file:
        for trial, seeds in material.trials().items():
            longest = max(seeds, key=lambda history: len(history.steps))
            np.testing.assert_allclose(file[f"{trial}/errors"][:, longest.seed], longest.errors, rtol=1e-6)
            assert file[f"{trial}/signals"].shape == (len(longest.steps), len(seeds), len(file["names"]))


def test_a_run_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not evaluated yet"):
        load(build(tmp_path / "run", evaluated=False))


def test_the_design_of_the_recipes_is_balanced_and_clear_of_interactions() -> None:
    study = load_study(STUDIES / "recipes.yaml")
    levels = {key: value.choice for key, value in study.space.items()}  # type: ignore[union-attr]
    signs = np.array([[2 * levels[key].index(point[key]) - 1 for key in levels] for point in study.search.enqueue])
    assert signs.shape == (16, 8)
    assert len({tuple(row) for row in signs.tolist()}) == 16
    np.testing.assert_array_equal(signs.T @ signs, 16 * np.eye(8))  # balanced, and factors are independent
    pairs = np.stack([signs[:, i] * signs[:, j] for i in range(8) for j in range(i)])
    np.testing.assert_array_equal(pairs @ signs, 0)  # resolution IV


def test_search_and_papers_spend_the_same() -> None:
    search_study, papers = (load_study(STUDIES / f"{name}.yaml") for name in ("search", "papers"))
    spent = [s.search.trials * s.seeds * s.training.steps for s in (search_study, papers)]
    assert spent[0] == spent[1]
    point = search_study.search.enqueue[0]
    configuration = papers.configuration("solo").model_dump()
    for key, value in point.items():
        section, name = key.split(".")
        assert configuration[section][name] == value, key
    assert json.loads(json.dumps(point)) == point
