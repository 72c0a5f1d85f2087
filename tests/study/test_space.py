from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.study.conftest import LR, make_study
from tips_dist.config import Distribution, Integer, LogUniform, OneOf, Uniform
from tips_dist.files import UserError
from tips_dist.runfolder import Outcome, SeedOutcome
from tips_dist.runfolder.example import outcome
from tips_dist.study import space

DIMENSIONS: list[Distribution] = [
    Uniform(uniform=(-2.0, 3.0)),
    LogUniform(log_uniform=(1e-5, 1e-1)),
    Integer(int=(3, 7)),
    OneOf(choice=["a", "b", "c"]),
]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_unit_interval_and_back(dimension: Distribution) -> None:
    for u in np.linspace(0, 1 - 1e-9, 50):
        value = space.from_unit(dimension, float(u))
        assert space.from_unit(dimension, space.to_unit(dimension, value)) == pytest.approx(value)


def test_integers_and_choices_are_hit_equally() -> None:
    draws = [space.from_unit(Integer(int=(0, 3)), (i + 0.5) / 400) for i in range(400)]
    assert [draws.count(value) for value in range(4)] == [100] * 4


def test_log_uniform_is_uniform_in_the_logarithm() -> None:
    middle = space.from_unit(LogUniform(log_uniform=(1e-4, 1e-2)), 0.5)
    assert middle == pytest.approx(1e-3)


def seed(risk: float | None, verdict: str = "healthy") -> SeedOutcome:
    return outcome(0, risk, verdict=verdict)


def ended(*seeds: SeedOutcome) -> Outcome:
    return Outcome(seeds=list(seeds), training_seconds=1.0, parameters={})


def test_objective_counts_plateaued_seeds_as_sound_and_diverged_ones_as_worse_than_any() -> None:
    found = ended(seed(1.0), seed(3.0, "plateaued"), seed(0.1, "diverged"), seed(None, "non_finite"))
    risk, instability = space.objective(found, ["risk", "instability"]) or (None, None)
    assert risk == 3.0
    assert instability == pytest.approx(0.5 + 1.0 / 3.0)  # half ended badly; MAD 1 against a median of 2


def test_objective_has_no_value_when_most_seeds_end_badly() -> None:
    assert space.objective(ended(seed(1.0), seed(0.1, "diverged"), seed(0.1, "collapsed")), ["risk"]) is None
    assert space.objective(None, ["risk"]) is None


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_draws_depend_on_seed_representation_and_number_alone(sampler: str) -> None:
    study = make_study(search={"trials": 8, "sampler": sampler}, space={**LR, "model.width": {"int": [8, 64]}})
    draws = [space.draw(study, "solo", n) for n in range(8)]
    assert [space.draw(study, "solo", n) for n in reversed(range(8))] == draws[::-1]
    assert len({str(draw) for draw in draws}) == 8
    assert space.draw(study, "torso_legs", 3) != draws[3]
    assert space.draw(study.model_copy(update={"seed": 1}), "solo", 3) != draws[3]


def test_qmc_covers_more_evenly_than_chance() -> None:
    study = make_study(search={"trials": 8, "sampler": "qmc"})
    dimension = study.space["training.generator_lr"]
    units = [space.to_unit(dimension, next(iter((space.draw(study, "solo", n) or {}).values()))) for n in range(8)]
    assert sorted(int(8 * u) for u in units) == list(range(8))


def test_grid_visits_every_point_once_and_ends_there() -> None:
    grid = {"model.width": {"choice": [8, 16, 32]}, "losses.cycle_2d": {"choice": [1.0, 2.0]}}
    study = make_study(search={"trials": 100, "sampler": "grid"}, space=grid)
    assert space.budget(study, "solo") == 6
    assert len({str(space.draw(study, "solo", n)) for n in range(6)}) == 6


def test_without_a_space_there_is_one_trial_of_the_studys_own_values() -> None:
    study = make_study(search={"trials": 1}, space={})
    assert space.budget(study, "solo") == 1
    assert space.draw(study, "solo", 0) == {}


def test_conditional_dimension_belongs_to_its_representations() -> None:
    only = {**LR, "losses.cycle_3d": {"uniform": [0.0, 1.0], "only": ["torso_legs"]}}
    study = make_study(space=only)
    assert list(space.draw(study, "solo", 0) or {}) == ["training.generator_lr"]
    assert sorted(space.draw(study, "torso_legs", 0) or {}) == ["losses.cycle_3d", "training.generator_lr"]
    with pytest.raises(UserError, match="five_parts"):
        make_study(space={"losses.cycle_3d": {"uniform": [0.0, 1.0], "only": ["five_parts"]}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"enqueue": [{"training.generator_lr": 1.0}]}}, "outside"),
        ({"search": {"objectives": ["risk", "risk"]}}, "twice"),
        ({"search": {"objectives": ["risk", "instability"], "scheduler": "asha"}}, "one objective"),
        ({"space": {"model.width": {"uniform": [8.5, 9.5]}}}, "model.width"),
        ({"space": {"training.generator_lr": {"choice": []}}}, "training.generator_lr"),
        ({"search": {"sampler": "annealing"}}, "sampler"),
    ],
)
def test_wrong_searches_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_study(**changes)
