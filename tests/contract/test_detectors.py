"""Every detector passes these, whatever it looks for."""

import json
import math
import random
from collections.abc import Callable

import pytest

from tips_dist.config import Policy
from tips_dist.stability.detectors import DETECTORS, BaseDetector, Judge, Recipe, Signals
from tips_dist.stability.verdicts import KINDS, Verdict

Make = Callable[[], "BaseDetector | Judge"]
MAKERS: dict[str, Make] = {
    **{cls.__name__: lambda cls=cls: cls(Policy(patience=2, plateau_patience=3), Recipe(), 2000) for cls in DETECTORS},  # type: ignore[misc]
    "Judge": lambda: Judge(2000, Recipe(), Policy(patience=2, plateau_patience=3)),
}
contract = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def rough_series(seed: int, length: int = 40) -> list[Signals]:
    """A seeded random walk with spikes, missing values and, late, trouble of every kind."""
    rng = random.Random(seed)
    series: list[Signals] = []
    risk = 100.0
    for index in range(length):
        risk *= math.exp(rng.gauss(-0.02 if index < length // 2 else 0.15, 0.05))
        late = index > 3 * length // 4
        values: dict[str, float | None] = {
            "risk/total": None if rng.random() < 0.1 else risk,
            "depth/spread_ratio": 0.01 if late else rng.uniform(0.5, 1.5),
            "discriminator/loss": rng.choice([0.001, 0.9]) if late else rng.uniform(0.15, 0.3),
            "discriminator/accuracy": 0.999 if late else 0.6,
        }
        series.append(values)
    return series


def verdicts(detector: "BaseDetector | Judge", series: list[Signals], start: int = 0) -> list[Verdict | None]:
    return [detector.update(50 * (start + index + 1), signals) for index, signals in enumerate(series)]


@contract
@pytest.mark.parametrize("cut", [0, 1, 7, 20, 33, 39])
def test_dumped_and_loaded_goes_on_identically(make: Make, cut: int) -> None:
    series = rough_series(1)
    whole = verdicts(make(), series)
    before = make()
    head = verdicts(before, series[:cut])
    after = make()
    after.load(json.loads(json.dumps(before.dump())))
    assert head + verdicts(after, series[cut:], start=cut) == whole


@contract
def test_state_does_not_grow(make: Make) -> None:
    detector = make()
    verdicts(detector, rough_series(2, 20))
    short = len(json.dumps(detector.dump()))
    verdicts(detector, rough_series(3, 400), start=20)
    assert len(json.dumps(detector.dump())) < short + 400


@contract
def test_every_verdict_has_a_kind_a_reason_and_an_onset_that_is_not_later(make: Make) -> None:
    for seed in range(5):
        for index, verdict in enumerate(verdicts(make(), rough_series(seed))):
            if verdict is None or verdict.kind == "healthy":
                continue
            assert verdict.kind in KINDS
            assert verdict.reason
            assert verdict.onset is not None
            assert 0 <= verdict.onset <= 50 * (index + 1)
            assert all(math.isfinite(value) for value in verdict.values.values())


@contract
def test_a_constant_healthy_start_raises_nothing(make: Make) -> None:
    calm: Signals = {
        "risk/total": 50.0,
        "depth/spread_ratio": 1.0,
        "discriminator/loss": 0.24,
        "discriminator/accuracy": 0.6,
    }
    assert all(verdict is None or verdict.kind == "healthy" for verdict in verdicts(make(), [calm] * 3))


@contract
def test_unrelated_signals_change_nothing(make: Make) -> None:
    series = rough_series(4)
    more: list[Signals] = [{**signals, "something/else": 1.0} for signals in series]
    assert verdicts(make(), series) == verdicts(make(), more)
