"""Tables: (policy, series) -> (verdict, onset, the step at which it falls)."""

import math
from collections.abc import Sequence

import pytest

from tips_dist.config import Policy
from tips_dist.stability.detectors import (
    BaseDetector,
    Collapse,
    DiscriminatorDominance,
    DiscriminatorFailure,
    Judge,
    NonFinite,
    Recipe,
    Signals,
)
from tips_dist.stability.rises import Drift, Plateau
from tips_dist.stability.verdicts import COLLAPSED, DIVERGED, HEALTHY, NON_FINITE, PLATEAUED, Verdict

POLICY = Policy(
    warm_up=0.1,
    patience=3,
    plateau_patience=4,
    plateau_share=0.3,
    plateau_learnt=1.0,
    plateau_progress=0.01,
    smoothing=1.0,
)
STEPS = 1000  # evaluated every 50: warm-up covers step 50


def first(detector: BaseDetector, series: Sequence[Signals]) -> tuple[int, Verdict] | None:
    for index, signals in enumerate(series):
        step = 50 * (index + 1)
        verdict = detector.update(step, signals)
        if verdict is not None:
            return step, verdict
    return None


def of(name: str, values: Sequence[float | None]) -> list[Signals]:
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.2, math.nan], 150),
        ([math.inf], 50),
        ([0.1, None], 100),
        ([0.1, -5.0, 1e30], None),
    ],
)
def test_non_finite(values: list[float | None], expected: int | None) -> None:
    found = first(NonFinite(POLICY, Recipe(), STEPS), of("generator/loss", values))
    assert (found[0] if found else None) == expected
    if found:
        assert (found[1].kind, found[1].onset) == (NON_FINITE, expected)
        assert "generator/loss" in found[1].reason


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("generator/loss", True),
        ("generator/cycle_2d", True),
        ("discriminator/loss", True),
        ("discriminator/real", True),
        ("gradients/lifter", True),
        ("updates/discriminator", True),
        ("depth/spread_ratio", True),
        ("risk/total", False),
        ("depth/sign", False),
        ("depth/knees", False),
        ("agreement/views", False),
        ("distance/mmd", False),
        ("rigidity/bone_ratio_variance", False),
        ("consistency/cycle_2d", False),
        ("throughput/steps_per_second", False),
    ],
)
@pytest.mark.parametrize("value", [None, math.nan, -math.inf])
def test_only_the_networks_own_numbers_end_a_seed(name: str, ends: bool, value: float | None) -> None:
    found = NonFinite(POLICY, Recipe(), STEPS).update(50, {"generator/loss": 1.0, name: value})
    assert (found is not None) is ends
    judged = Judge(STEPS, Recipe(), POLICY).update(50, healthy() | {name: value})
    assert judged.kind == (NON_FINITE if ends else HEALTHY)


def test_the_reason_names_at_most_three() -> None:
    bad = dict.fromkeys(("gradients/a", "gradients/b", "gradients/c", "gradients/d"))
    three = NonFinite(POLICY, Recipe(), STEPS).update(50, {name: bad[name] for name in list(bad)[:3]})
    four = NonFinite(POLICY, Recipe(), STEPS).update(50, bad)
    assert three is not None
    assert four is not None
    assert three.reason == "not finite: gradients/a, gradients/b, gradients/c"
    assert four.reason == "not finite: gradients/a, gradients/b, gradients/c, …"


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.01] * 9, (200, 100)),  # flat from the start: counted once the warm-up is over
        ([1.0, 1.0, 1.0, 0.05, 0.05, 0.05], (300, 200)),
        ([1.0, 1.0, 0.05, 0.05, 1.0, 0.05, 0.05], None),  # never three in a row
        ([1.0, 1.0, 0.05, None, 0.05, 0.05], (300, 150)),  # a missing value neither counts nor resets
        ([1.0, 1.0, 9.0, 9.0, 9.0], (250, 150)),
        ([0.3, 3.0] * 5, None),
    ],
)
def test_collapse(ratios: list[float | None], expected: tuple[int, int] | None) -> None:
    found = first(Collapse(POLICY, Recipe(), STEPS), of("depth/spread_ratio", ratios))
    assert ((found[0], found[1].onset) if found else None) == expected
    assert found is None or found[1].kind == COLLAPSED


@pytest.mark.parametrize(
    ("recipe", "loss", "accuracy", "dominates"),
    [
        (Recipe(), 0.01, 0.995, True),
        (Recipe(), 0.01, 0.9, False),  # low loss on its own batches only
        (Recipe(), 0.2, 0.995, False),
        (Recipe(label_swap=0.1), 0.095, 0.995, True),  # the swap's floor is 0.09
        (Recipe(label_swap=0.1), 0.15, 0.995, False),
        (Recipe("cross_entropy"), 0.02, 0.995, True),
        (Recipe("cross_entropy"), 0.3, 0.995, False),
    ],
)
def test_dominance_knows_the_recipe(recipe: Recipe, loss: float, accuracy: float, dominates: bool) -> None:
    series: list[Signals] = [{"discriminator/loss": loss, "discriminator/accuracy": accuracy}] * 6
    found = first(DiscriminatorDominance(POLICY, recipe, STEPS), series)
    assert (found is not None) == dominates
    if found:
        assert (found[0], found[1].kind, found[1].onset) == (200, DIVERGED, 100)


@pytest.mark.parametrize(
    ("recipe", "loss", "failed"),
    [
        (Recipe(), 0.25, False),
        (Recipe(), 0.5, True),
        (Recipe("cross_entropy"), 0.69, False),
        (Recipe("cross_entropy"), 1.3, True),
        (Recipe(label_swap=0.1), 0.3, False),
    ],
)
def test_discriminator_failure(recipe: Recipe, loss: float, failed: bool) -> None:
    found = first(DiscriminatorFailure(POLICY, recipe, STEPS), of("discriminator/loss", [loss] * 6))
    assert (found is not None) == failed


def test_the_balanced_game_and_the_swap_floor() -> None:
    assert Recipe().balanced_loss == 0.25
    assert Recipe(label_swap=0.1).perfect_loss == pytest.approx(0.09)
    assert Recipe("cross_entropy").balanced_loss == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("risks", "expected"),
    [
        ([100, 90, 80, 70] + [60] * 16, None),
        ([100, 80, 60] + [61, 59, 60, 62, 58] * 3, None),  # noise within the slack
        ([100, 80, 60, 60, 60] + [120] * 15, (300, 300)),  # a jump to twice the best: log 2 - 0.08 > 0.5
        ([100, 80, 60, 60, 60, 90, 90] + [60] * 13, (350, 300)),
        ([100, 80, 60, 90, 60, 60, 90, 60, 60], None),  # single spikes are forgiven
        ([100, 80, 60, None, 120, None, 120], (250, 250)),
    ],
)
def test_drift(risks: list[float | None], expected: tuple[int, int] | None) -> None:
    policy = Policy(warm_up=0.1, drift_slack=0.08, drift_alarm=0.5, smoothing=1.0)
    found = first(Drift(policy, Recipe(), STEPS), of("risk/total", risks))
    assert ((found[0], found[1].onset) if found else None) == expected
    assert found is None or found[1].kind == DIVERGED


@pytest.mark.parametrize(
    ("risks", "expected"),
    [
        ([100 - 2 * index for index in range(20)], None),
        ([100, 50] + [50] * 18, (400, 100)),  # 300 steps and 4 evaluation steps after the last progress
        ([100, 50] + [49.9] * 18, (400, 100)),  # 0.2 % is not progress
        ([100, 50, 50, 50, 45] + [45] * 15, (550, 250)),
    ],
)
def test_plateau(risks: list[float], expected: tuple[int, int] | None) -> None:
    found = first(Plateau(POLICY, Recipe(), STEPS), of("risk/total", risks))
    assert ((found[0], found[1].onset) if found else None) == expected
    assert found is None or found[1].kind == PLATEAUED


def test_a_run_that_has_not_begun_to_learn_is_no_plateau() -> None:
    policy = POLICY.model_copy(update={"plateau_learnt": 0.8})
    assert first(Plateau(policy, Recipe(), STEPS), of("risk/total", [100.0] * 20)) is None
    assert first(Plateau(policy, Recipe(), STEPS), of("risk/total", [100.0] * 10 + [75.0] * 10)) is not None


def healthy(risk: float | None = 50.0, **changes: float | None) -> dict[str, float | None]:
    values: dict[str, float | None] = {
        "risk/total": risk,
        "depth/spread_ratio": 1.0,
        "discriminator/loss": 0.24,
        "discriminator/accuracy": 0.6,
    }
    return values | {key.replace("__", "/"): value for key, value in changes.items()}


def test_the_judge_keeps_the_most_serious_finding() -> None:
    judge = Judge(STEPS, Recipe(), POLICY)
    kinds = [judge.update(50 * n, healthy()).kind for n in range(1, 9)]
    assert kinds == [HEALTHY] * 6 + [PLATEAUED] * 2
    assert judge.update(450, healthy(generator__loss=math.nan)).kind == NON_FINITE
    assert judge.update(500, healthy()).kind == NON_FINITE
    assert judge.verdict.onset == 450


def test_a_healthy_run_stays_healthy() -> None:
    judge = Judge(STEPS, Recipe(), POLICY)
    assert all(judge.update(50 * n, healthy(100.0 * 0.95**n)).kind == HEALTHY for n in range(1, 21))
