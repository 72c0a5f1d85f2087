"""Answers of the published studies: the arithmetic on seeds whose answer is known, and every section on a real run."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from studies.answers import __main__ as command
from studies.answers import claims, decisions, lifters, search, stabilisers
from studies.answers.material import Ground, Material, StudiedSeed, load
from studies.answers.tables import Table, apart, delta, effect_over_seeds, fill, mean
from tips_dist.bootstrap import Statistic
from tips_dist.evaluation.labels import drift_of
from tips_dist.evaluation.reference import SupervisedRecipe
from tips_dist.files import UserError
from tips_dist.models import load_weights, seed_tensors, write_tensors
from tips_dist.runfolder.example import build
from tips_dist.study_file import load_study

STUDIES = Path(__file__).parents[2] / "studies"


def number(cell: object) -> float:
    assert isinstance(cell, Statistic)
    assert cell.low - 1e-9 <= cell.value <= cell.high + 1e-9  # one person alone: the rounding of another sum
    return cell.value


def rows(table: Table) -> dict[str, list[object]]:
    return {str(row[0]): list(row[1:]) for row in table.rows}


@pytest.fixture(scope="session")
def tests(material: Material, ground: Ground) -> claims.TestErrors:
    return claims.tested(material, ground)


def test_the_chosen_configuration_has_the_lowest_risk(material: Material) -> None:
    for name, trial in material.chosen.items():
        risks = {
            key: np.median([row.risk for row in material.selection.seeds if row.trial == key])
            for key in material.trials(name)
        }
        assert trial == min(risks, key=lambda key: risks[key])


def test_a_seed_knows_its_raw_weights_and_the_steps_that_it_may_be_chosen_at(material: Material) -> None:
    for seed in material.histories:
        assert seed.raw is not None
        assert seed.raw.errors.shape == seed.errors.shape
        assert not np.array_equal(seed.raw.errors, seed.errors)
        assert seed.raw_at("best") <= seed.raw_at("selected")
        assert seed.at("best") <= seed.at("selected")
        chosen = seed.truth.selected
        assert chosen is not None
        assert np.isfinite(seed.risks[seed.steps.index(chosen.step or 0)])
        assert seed.errors[-1] == pytest.approx(seed.at("last"))


def test_a_seed_that_is_cut_ends_as_if_it_had_not_trained_on(material: Material) -> None:
    seed = material.histories[0].until(50)
    assert seed.steps[-1] == seed.budget == 50
    assert seed.raw is not None
    assert len(seed.raw.errors) == len(seed.errors) == len(seed.risks) == len(seed.values) == 5
    assert not seed.cut


def test_last_weights_on_test_are_those_that_training_left(material: Material, ground: Ground) -> None:
    """On the validation poses, they must have the errors that were recorded at the last evaluation step."""
    exchanged = np.array([0, 2, 1], np.int8)[ground.poses.split]  # validation and test
    poses = dataclasses.replace(ground.poses, split=exchanged)
    swapped = Ground(poses, ground.truth)
    found = swapped.last_errors(material, "solo")
    for kind in ("averaged", "raw"):
        assert len(found[kind]) == 3
    recorded = [seed.at("last") for seed in material.of("solo")]
    assert found["averaged"] == pytest.approx(recorded, rel=0.05)  # all rows there, a sample of them in the record
    assert np.argmin(found["averaged"]) == np.argmin(recorded)


def test_sections_answer_from_a_real_run(runs: Path, ground: Ground, tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """One run stands in for every study, so twins differ by nothing and every table has a row."""
    for name in {one for needed, _ in command.SECTIONS.values() for one in needed}:
        (runs / name).symlink_to(runs / "tiny")
    monkeypatch.setattr(command, "SupervisedRecipe", functools.partial(SupervisedRecipe, steps=30))
    (tmp_path / "README.md").write_text((STUDIES / "results" / "README.md").read_text())
    prefix = Path(str(ground.truth.path).removesuffix(".truth3d.h5"))
    command.answer(runs, prefix, prefix, sorted(command.SECTIONS), tmp_path)
    stored = json.loads((tmp_path / "answers.json").read_text())["sections"]
    assert set(stored) == set(command.SECTIONS)
    tables = {name: Table.read(table) for one in stored.values() for name, table in one["tables"].items()}
    assert all(table.rows for table in tables.values())
    page = (tmp_path / "README.md").read_text()
    assert all(table.markdown() in page for table in tables.values())
    assert {path.name for path in tmp_path.glob("*.png")} == {"curves.png", "effects.png", "selected.png"}
    with_prior = tables["prior"].named()
    assert all(number(row["difference, mm"]) == 0 for name, row in with_prior.items() if "against" not in name)
    noise = tables["m"].named()
    assert all(number(row["costs"]) == pytest.approx(0) for row in noise.values())
    assert number(noise["validation, solo"]["clean"]) != number(noise["test, solo"]["clean"])
    assert stored["search"]["runs"]["papers"]["asked"]["seeds"] == 3
    with np.load(tmp_path / "histories" / "parts.npz", allow_pickle=False) as file:
        assert file["solo-000/errors"].shape == file["solo-000/raw_errors"].shape == (10, 3)
        assert file["solo-000/signals"].shape == (10, 3, len(file["names"]))
    assert "|" in capsys.readouterr().out


def test_a_section_without_its_runs_keeps_its_tables(ground: Ground, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    prefix = Path(str(ground.truth.path).removesuffix(".truth3d.h5"))
    command.answer(tmp_path / "none", prefix, prefix, ["noise"], tmp_path)
    assert "no finished run of noise, representations" in capsys.readouterr().out
    assert not (tmp_path / "answers.json").exists()


def test_noise_costs_where_the_poses_have_it(material: Material, ground: Ground) -> None:
    """The same lifters stand for both runs: only the poses that they are used on differ."""
    jitter = np.random.default_rng(0).normal(0.0, 0.1, ground.poses.poses.shape).astype(np.float32)
    noisy = Ground(dataclasses.replace(ground.poses, poses=ground.poses.poses + jitter), ground.truth)
    found = lifters.noise(material, material, ground, noisy).named()
    for row in (found[f"{split}, {name}"] for split in ("test", "validation") for name in material.chosen):
        assert number(row["costs"]) == pytest.approx(number(row["costs "]))
        assert number(row["clean"]) != pytest.approx(number(row["trained on clean, used on noise"]))
        assert number(row["trained and used on noise"]) == number(row["trained on clean, used on noise"])


def _like(seed: StudiedSeed, errors: list[float], mirrored: list[float] | None = None) -> StudiedSeed:
    steps = tuple(100 * (place + 1) for place in range(len(errors)))
    values = np.zeros((len(errors), len(seed.names)))
    return dataclasses.replace(seed, steps=steps, budget=steps[-1], values=values, risks=np.array(errors),
                               errors=np.array(errors), raw=None,
                               mirrored=None if mirrored is None else np.array(mirrored))  # fmt: skip


def test_drift_is_the_slope_after_the_minimum(material: Material) -> None:
    seed = material.histories[0]
    assert claims.drift(_like(seed, [200, 100, 101, 102, 103, 104, 105])) == pytest.approx(0.01)
    assert np.isnan(claims.drift(_like(seed, [200, 150, 120, 110, 100, 99])))


def test_what_becomes_of_seeds_is_counted(material: Material) -> None:
    seed = material.histories[0]
    steady, crosses = [100.0] * 20, [0.0] * 8 + [0.3] * 4 + [0.0] * 8
    ruined = [100.0] * 10 + [200.0] * 10
    near, _, _, fates, crossed, hazard = claims.stays([_like(seed, steady, crosses), _like(seed, ruined, [0.0] * 20)])
    assert number(near) == 75  # of the second seed the half before it broke
    assert fates == "1 converged, 1 diverged"
    assert crossed == "1 of 2"
    assert number(hazard) == pytest.approx(1e4 / 4000)


def test_a_hazard_of_nothing_has_an_upper_end() -> None:
    assert claims.hazard(0, 30_000).value == 0
    assert claims.hazard(0, 30_000).high == pytest.approx(3.69 / 3, rel=0.01)  # the rule of three, exact


def test_near_after_counts_from_the_minimum_on() -> None:
    assert claims.near_after(np.array([300, 200, 100, 104, 104, 106.0])) == 3 / 4
    assert claims.near_after(np.array([5, 4, 3, 2, 1.0])) == 1


def test_selection_is_set_against_trivial_choices(material: Material) -> None:
    found = rows(decisions.regret(material))
    assert all(number(row[0]) >= 0 for row in found.values())
    assert {decisions.OURS, decisions.ONE_CAMERA, "random checkpoint", "last checkpoint"} <= set(found)


def test_only_the_risk_forgets_the_second_view(material: Material) -> None:
    seed = material.histories[0]
    assert not np.allclose(decisions.one_camera(seed).risks, seed.risks, equal_nan=True)
    np.testing.assert_array_equal(decisions.one_camera(seed).errors, seed.errors)


def test_effects_of_a_design_and_of_averaging(material: Material, ground: Ground) -> None:
    found = stabilisers.answers(material, ground)["stabilisers_solo"].named()
    groups = list(material.trials("solo").values())
    order = [trial.parameters["losses.bend"] for trial in material.folder.trials if trial.representation == "solo"]
    sign = 1 if order == [0.0, 1.0] else -1
    first, second = (np.mean([seed.at("selected") for seed in seeds]) for seeds in groups)
    assert number(found["bend"]["error selected, mm"]) == pytest.approx(sign * (second - first))
    tests = [[ground.test_errors(material.path / str(seed.file)) for seed in seeds] for seeds in groups]
    for column, rows_of in stabilisers.TESTS.items():
        first, second = (np.mean([errors[rows_of] for errors in group]) for group in tests)
        assert number(found["bend"][column]) == pytest.approx(sign * (second - first))
        assert found["averaging"][column] is None
    gained = np.mean([seed.at("best") - seed.raw_at("best") for seeds in groups for seed in seeds])
    assert number(found["averaging"]["lowest error, mm"]) == pytest.approx(gained)


def test_a_budget_is_spent_in_the_order_of_trials(material: Material) -> None:
    both = search.within(material, "solo", 600)
    assert list(both) == ["solo-000", "solo-001"]
    assert list(search.within(material, "solo", 599)) == ["solo-000"]


def test_a_user_keeps_the_seeds_of_lowest_risk(material: Material) -> None:
    kept = search.lowest_risk(material.histories)
    assert len(kept) == search.TEACHERS
    worst = max(float(np.nanmin(history.risks)) for history in kept)
    assert sum(float(np.nanmin(h.risks)) < worst for h in material.histories) == search.TEACHERS - 1


def test_references_and_dependence_read_the_selected_lifters(
    material: Material, ground: Ground, tests: claims.TestErrors
) -> None:
    found = rows(lifters.student(material, ground, tests))
    own = ground.test_errors(material.path / "student/student.safetensors")
    assert [number(cell) for cell in found["student"][:3]] == pytest.approx([own["all"], own["seen"], own["lacking"]])
    assert number(found["solo, selected, mean of its seeds"][0]) == pytest.approx(
        np.mean([t["all"] for t in tests["solo"]])
    )
    shares = lifters.dependence(material, ground).named()
    for split in lifters.SPLITS:  # parts cannot see each other
        assert number(shares["torso_legs"][f"{split} people"]) < number(shares["solo"][f"{split} people"])
    assert shares["torso_legs"]["Cliff's delta on test"] == -1


def test_a_lifter_against_itself_is_no_better_whoever_is_drawn(material: Material, ground: Ground) -> None:
    """The best of all that were selected is a single network; what is said of it is over people, not over seeds."""
    seed = next(seed for seed in material.of("solo") if seed.file)
    errors = ground.pose_errors(material.path / str(seed.file))
    people = (np.arange(len(ground.poses.subject)) % 3).astype(ground.poses.subject.dtype)
    three = Ground(dataclasses.replace(ground.poses, subject=people), ground.truth)
    tested = people[ground.poses.rows("test")]
    shown = errors + 50.0 * tested
    whole = three.over_people(shown)
    assert {name: one.value for name, one in whole.items()} == pytest.approx(ground.means(shown))
    means = [shown[tested == person].mean() for person in range(3)]
    assert whole["all"].low == pytest.approx(min(means))  # of 27 ways to draw three, one in 27 holds the first alone
    assert whole["all"].high == pytest.approx(max(means))
    nothing = three.over_people(errors - errors)["all"]
    assert (nothing.low, nothing.high) == (0, 0)


def test_what_comes_after_selection_is_told_on_test(
    material: Material, ground: Ground, tests: claims.TestErrors
) -> None:
    ends = claims.last(material, ground)
    found = claims.on_test(material, tests, ends).named()
    for name, row in found.items():
        seeds, final = material.of(name), ends[name]["averaged"]
        pairs = [(seed, end) for seed, end in zip(seeds, final, strict=True) if seed.file]
        selected = [ground.test_errors(material.path / str(seed.file))["all"] for seed, _ in pairs]
        gained = [end - own for (_, end), own in zip(pairs, selected, strict=True)]
        assert number(row["last minus selected"]) == pytest.approx(np.mean(gained))
        limit = 1.05 * min([*selected, *final])
        near = row["last within 5 % of the best of its representation, %"]
        assert number(near) == pytest.approx(100 * np.mean([end <= limit for _, end in pairs]))
        assert number(row["of any, %"]) <= number(near)
    averaged = claims.averaging(material, ends).named()["test, last"]
    assert number(averaged["solo"]) == pytest.approx(np.mean(ends["solo"]["averaged"]) - np.mean(ends["solo"]["raw"]))


def test_signs_are_judged_on_test_too(material: Material, ground: Ground) -> None:
    found = lifters.mirrored_on_test(material, ground).named()
    for name, row in found.items():
        seeds = [seed for seed in material.of(name) if seed.file]
        resolved = [ground.test_errors(material.path / str(seed.file))["all"] for seed in seeds]
        assert number(row["sign-resolved"]) == pytest.approx(np.mean(resolved))
        turned = any(-1 in seed.part_signs for seed in seeds)
        assert turned == (number(row["gain of resolution"]) != 0)


def test_weights_that_are_told_mirrored_are_turned_back(material: Material, ground: Ground, tmp_path: Path) -> None:
    seed = next(seed for seed in material.of("solo") if seed.file)
    lifter, record = load_weights(material.path / str(seed.file))
    turned = [-sign for sign in record.part_signs or ()]
    told = record.model_copy(update={"part_signs": turned})
    write_tensors(tmp_path / "told.safetensors", seed_tensors(lifter, 0), told)
    right, wrong = (ground.pose_errors(tmp_path / "told.safetensors", resolved=one) for one in (True, False))
    assert not np.allclose(right, wrong)
    as_left = ground.pose_errors(material.path / str(seed.file), resolved=False)
    np.testing.assert_allclose(wrong, as_left)


def test_a_search_against_itself_adds_nothing_on_test(material: Material, ground: Ground) -> None:
    """The budget of a search of one trial leaves the others their first trial alone."""
    first = material.folder.trials[0].id.rsplit("-", 1)[1]
    kept = [seed for seed in material.histories if seed.trial.endswith(first)]
    short = dataclasses.replace(material, histories=kept)
    studies = dict.fromkeys((search.FREEZING, search.DEFAULT, search.PAPERS), material) | {search.SEARCH: short}
    found = search.on_test(studies, ground).named()
    for name in material.folder.representations:
        column = f"three {name} seeds of lowest risk"
        errors = [ground.test_errors(material.path / str(seed.file))["all"] for seed in kept
                  if seed.representation == name and seed.file]  # fmt: skip
        assert number(found[search.SEARCH][column]) == pytest.approx(np.mean(errors))
        assert number(found[search.DEFAULT][column]) == pytest.approx(np.mean(errors))
        assert number(found[f"Optuna minus {search.DEFAULT}"][column]) == 0
    assert number(found[f"Optuna minus {search.PAPERS}"]["student (one)"]) == 0


def test_drift_of_a_run_is_the_end_over_the_minimum(material: Material) -> None:
    history = material.of("solo")[0]
    tail = history.errors[-len(history.errors) // 5 :]
    assert drift_of(history.errors) == pytest.approx(np.median(tail) / history.errors.min() - 1, abs=0.02)


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
    narrow = effect_over_seeds(bad, good)
    assert narrow is not None
    assert 2 < narrow.low < 3 < narrow.high < 4
    assert effect_over_seeds([[np.nan]], good) is None


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


def test_a_run_that_was_not_evaluated_is_refused(tmp_path: Path, ground: Ground) -> None:
    with pytest.raises(UserError, match="not evaluated yet"):
        load(build(tmp_path / "run", evaluated=False), ground)


def test_the_design_of_the_stabilisers_is_balanced_and_clear_of_interactions() -> None:
    study = load_study(STUDIES / "stabilisers.yaml")
    levels = {key: value.choice for key, value in study.space.items()}  # type: ignore[union-attr]
    signs = np.array([[2 * levels[key].index(point[key]) - 1 for key in levels] for point in study.search.enqueue])
    assert signs.shape == (32, 11)
    assert len({tuple(row) for row in signs.tolist()}) == 32
    np.testing.assert_array_equal(signs.T @ signs, 32 * np.eye(11))  # balanced, and factors are independent
    pairs = np.stack([signs[:, i] * signs[:, j] for i in range(11) for j in range(i)])
    np.testing.assert_array_equal(pairs @ signs, 0)  # resolution IV


def test_searches_and_points_spend_the_same() -> None:
    names = ("search", "papers", "default")
    studies = {name: load_study(STUDIES / f"{name}.yaml") for name in (*names, "freezing")}
    spent = {name: studies[name].search.trials * studies[name].seeds * studies[name].training.steps for name in names}
    assert len(set(spent.values())) == 1
    for place, name in enumerate(("default", "papers")):
        configuration = studies[name].configuration("solo").model_dump()
        for key, value in studies["search"].search.enqueue[place].items():
            section, field = key.split(".")
            assert configuration[section][field] == value, (name, key)
    assert studies["freezing"].space == studies["search"].space
    assert studies["freezing"].search.enqueue == studies["search"].search.enqueue


def test_twins_differ_in_what_they_ask_about_alone() -> None:
    parts, prior = (
        load_study(STUDIES / f"{name}.yaml").configuration("solo").model_dump() for name in ("parts", "prior")
    )
    assert prior["losses"].pop("bend") == 1 + parts["losses"].pop("bend")
    assert prior["training"].pop("steps") <= parts["training"].pop("steps")
    assert parts == prior
    size = load_study(STUDIES / "representations.yaml")
    for name in ("noise", "bone_prior"):
        twin = load_study(STUDIES / f"{name}.yaml")
        assert twin.training == size.training
        assert twin.seeds == size.seeds
        assert twin.model == size.model
