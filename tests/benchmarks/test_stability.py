"""The stability benchmark: fits find what was put in, intervals cover, and pages quote what is printed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stability import bank, calibrate, scorecard, scores
from benchmarks.stability.bank import Curves
from benchmarks.stability.recipes import Run
from tips_dist.stability.risk import BONES, MIXED, REPROJECTIONS, VIEWS

SOURCES = ("procedural", "people", "others")
WEIGHTS = {VIEWS: 0.4, BONES: 0.3, REPROJECTIONS: 0.1, MIXED: 0.6}
NAMES = (*WEIGHTS, "rigidity/symmetry", "distance/nearest_neighbour", "generator/loss", "depth/spread_ratio")


def made(source: str, number: int, *, kind: str = "averaged", noise: float = 0.03, steps: int = 40) -> Curves:
    """A run of four seeds whose error is a product of its evidence, up to noise."""
    random = np.random.default_rng([SOURCES.index(source), number])
    signals = {name: np.exp(random.normal(-2, 0.4, (steps, 4))) for name in NAMES}
    signals[MIXED] = random.uniform(0, 0.3, (steps, 4))
    log_error = 5.5 + noise * random.normal(size=(steps, 4))
    for name, weight in WEIGHTS.items():
        log_error += weight * (signals[name] if name == MIXED else np.log(signals[name]))
    run = Run(source, "solo", ("default", "slow")[number % 2], ("long", "short")[number % 2], 64, (0, 1, 2, 3))
    return Curves(
        run,
        kind,
        np.arange(1.0, steps + 1, dtype=np.float64),
        signals,
        np.exp(log_error),
        np.zeros((steps, 4)),
        "several",
    )


RUNS = [made(source, number) for source in SOURCES for number in range(4)]


def test_least_squares_finds_the_weights() -> None:
    regime = calibrate.fitted("views", calibrate.OFFERED["views"]["fitted"])(RUNS)
    for name, weight in WEIGHTS.items():
        assert regime.weights[name] == pytest.approx(weight, abs=0.05)
    assert regime.weights.get("rigidity/symmetry", 0) < 0.03  # no evidence, next to no weight
    assert all(weight > 0 for weight in regime.weights.values())


def test_round_weights_keep_their_proportions() -> None:
    regime = calibrate.line("views", WEIGHTS)(RUNS)
    for name, weight in WEIGHTS.items():
        assert regime.weights[name] == pytest.approx(weight, rel=0.05)
    assert regime.intercept == pytest.approx(5.5, abs=0.1)


def test_the_interval_covers_nine_in_ten_on_a_source_left_out() -> None:
    for source, regime in calibrate.left_out(calibrate.line("views", WEIGHTS), RUNS, scorecard.source_of).items():
        shares, _, places = calibrate.covered(regime, [one for one in RUNS if one.run.source == source])
        assert 0.8 < np.mean(shares) < 0.98
        assert set(places) == {0, 1, 2, 3}
    noisy = [made(source, number, noise=0.2) for source in SOURCES for number in range(4)]
    wide, narrow = (calibrate.with_interval(calibrate.line("views", WEIGHTS), runs) for runs in (noisy, RUNS))
    assert wide.plus_minus > 3 * narrow.plus_minus


def test_a_source_that_lies_off_widens_the_interval_between_sources() -> None:
    off = [
        Curves(one.run, one.kind, one.steps, one.signals, one.errors * factor, one.mirrored, one.cameras)
        for one in RUNS
        for factor in (1.3 if one.run.source == "others" else 1.0,)
    ]
    level, shifted = (calibrate.with_interval(calibrate.line("views", WEIGHTS), runs) for runs in (RUNS, off))
    assert shifted.between > 0.1 > level.between


def test_a_rule_is_judged_by_what_it_chooses() -> None:
    curves = RUNS[0]
    perfect = scores.judge(lambda _: curves.errors, curves, 0)
    assert perfect is not None
    np.testing.assert_allclose(perfect.regret, 0)
    np.testing.assert_allclose(perfect.within, 1)
    worst = scores.judge(lambda _: -curves.errors, curves, 0)
    assert worst is not None
    np.testing.assert_allclose(worst.regret, np.ptp(curves.errors, axis=0))
    assert scores.judge(scores.logarithm("agreement/time"), curves, 0) is None  # not measured: no row
    silent = scores.judge(lambda _: np.full(curves.errors.shape, np.nan), curves, 0)
    assert silent is not None
    random = scores.random_choice(curves, 0)
    np.testing.assert_allclose(silent.regret, random.regret)  # nothing to say: a random checkpoint


def test_gaps_and_dead_seeds_break_nothing() -> None:
    curves = made("people", 0)
    curves.errors[20:, 1] = np.nan
    curves.errors[:, 2] = np.nan
    curves.signals[BONES][5, 0] = np.nan
    found = scores.pooled(scores.logarithm(BONES), [curves])
    assert found is not None
    assert np.isnan(found.regret[2])
    assert np.isfinite(found.regret[[0, 1, 3]]).all()
    calibrate.with_interval(calibrate.line("views", WEIGHTS), [curves, *RUNS])
    assert np.isfinite(scores.across(found).value) is np.False_ or scores.across(found).runs >= 3


def test_the_tables_of_a_small_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "load", lambda cameras="several", **_: RUNS)
    found = scorecard.Bench()
    text = scorecard.full(found)
    for words in ("Aims and what was measured", "What became of the seeds", "several cameras: regret", "| risk |",
                  "one camera: the risk in millimetres", "recipe left out", "Detection", "Stopping"):  # fmt: skip
        assert words in text
    assert "| power law of the risk |" in text
    assert len(scorecard.short(found)) < len(text)


def test_text_goes_between_the_markers_alone() -> None:
    page = f"before\n{scorecard.BEGIN}\nold\n{scorecard.END}\nafter\n"
    once = scorecard.inserted(page, "new")
    assert once == f"before\n{scorecard.BEGIN}\nnew\n{scorecard.END}\nafter\n"
    assert scorecard.inserted(once, "new") == once


@pytest.mark.parametrize("name", scorecard.PAGES)
def test_pages_quote_the_tables_of_the_bank_that_is_there(name: str) -> None:
    """Else: ``python -m benchmarks.stability.scorecard --refresh``."""
    if not list(bank.BANK.glob("*/*.npz")):
        pytest.skip("no bank")
    assert f"<!-- of {scorecard.digest()} -->" in scorecard.PAGES[name].read_text()
