"""What the papers claim, asked of runs: questions (a), (b), (c), (k) and (l) of ``parts.yaml`` and its twins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from studies.answers.material import Array, Ground, Material, StudiedSeed
from studies.answers.tables import Table, apart, delta, mean
from tips_dist.bootstrap import Statistic
from tips_dist.evaluation import labels
from tips_dist.evaluation.histories import LabelledHistory

NEAR = 1.05  # within 5 % of a minimum
BASE, PARTS = "solo", "torso_legs"
CHECKPOINTS = {"selected": "selected", "last": "last", "oracle's": "best"}
SHARES = (1 / 24, 1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1)  # of a run, where its errors are shown
EARLY = "2,000"  # the step that the front page shows beside the end
LEAST_AFTER = 5  # evaluation steps after a minimum, to tell a drift from
TestErrors = dict[str, list[dict[str, float]]]  # representation -> Ground.test_errors of each selected lifter
LastErrors = dict[str, dict[str, list[float]]]  # representation -> Ground.last_errors of its seeds


def tested(study: Material, ground: Ground) -> TestErrors:
    """Errors on the test poses of every chosen configuration's selected lifters."""
    return {
        name: [ground.test_errors(study.path / seed.file) for seed in study.of(name) if seed.file]
        for name in study.chosen
    }


def last(study: Material, ground: Ground) -> LastErrors:
    """Errors on the test poses of every chosen configuration's lifters as training left them."""
    return {name: ground.last_errors(study, name) for name in study.chosen}


def gap(study: Material, tests: TestErrors, ends: LastErrors) -> Table:
    """(a) Error of independent parts against solo: averaged and raw, at three checkpoints, on test what is kept."""
    table = Table(
        "N-MPJPE (mm, depth signs resolved), mean over seeds, of torso_legs against solo",
        ["people, weights, checkpoint", BASE, PARTS, "difference, mm", "in %", "Cliff's delta"],
    )

    def add(name: str, base: Sequence[float], parts: Sequence[float]) -> None:
        versus = apart(parts, base), apart(parts, base, percent=True), delta(parts, base)
        table.add(name, mean(base), mean(parts), *versus)

    add("test, averaged, selected", *([one["all"] for one in tests[name]] for name in (BASE, PARTS)))
    for weights in ("averaged", "raw"):
        add(f"test, {weights}, last", *(ends[name][weights] for name in (BASE, PARTS)))
    for label, checkpoint in CHECKPOINTS.items():
        for weights, raw in (("averaged", False), ("raw", True)):
            add(f"validation, {weights}, {label}", *(_at(study.of(name), checkpoint, raw) for name in (BASE, PARTS)))
    return table


def _at(seeds: Sequence[StudiedSeed], checkpoint: str, raw: bool) -> list[float]:
    return [seed.raw_at(checkpoint) if raw else seed.at(checkpoint) for seed in seeds]


def front(gaps: Table, steps: Table) -> Table:
    """What the front page shows of :func:`gap` and :func:`over_steps`."""
    taken = {
        "test people, chosen without truth": gaps.named()["test, averaged, selected"],
        "test people, last checkpoint": gaps.named()["test, averaged, last"],
        f"validation people, step {EARLY}": steps.named()[EARLY],
    }
    table = Table("", ["N-MPJPE, mm", *taken])
    for name in (BASE, PARTS, "difference, mm"):
        table.add(name, *(row[name] for row in taken.values()))
    return table


def averaging(study: Material, ends: LastErrors) -> Table:
    """(k) What averaging takes off each representation, and whether it takes more off one of them."""
    table = Table(
        "N-MPJPE (mm): averaged minus raw weights, mean over seeds",
        ["people, checkpoint", BASE, PARTS, "torso_legs' minus solo's"],
    )
    for label, checkpoint in CHECKPOINTS.items():
        gained = [
            np.subtract(_at(study.of(name), checkpoint, False), _at(study.of(name), checkpoint, True)).tolist()
            for name in (BASE, PARTS)
        ]
        table.add(f"validation, {label}", mean(gained[0]), mean(gained[1]), apart(gained[1], gained[0]))
    gained = [np.subtract(ends[name]["averaged"], ends[name]["raw"]).tolist() for name in (BASE, PARTS)]
    table.add("test, last", mean(gained[0]), mean(gained[1]), apart(gained[1], gained[0]))
    return table


def over_steps(study: Material) -> Table:
    """Error of both at some steps: is a difference one of speed, or one that stays? (Added after the run.)"""
    table = Table(
        "N-MPJPE (mm, validation people, averaged weights) by step, mean over seeds",
        ["step", BASE, PARTS, "difference, mm", "in %", f"most poses held mirrored by a seed, %: {BASE}", PARTS + " "],
    )
    steps = study.of(BASE)[0].steps
    for share in SHARES:
        place = max(0, round(share * len(steps)) - 1)
        errors = [[float(seed.errors[place]) for seed in study.of(name)] for name in (BASE, PARTS)]
        mixed = [
            100 * max(float(seed.mirrored[place]) for seed in study.of(name) if seed.mirrored is not None)
            for name in (BASE, PARTS)
        ]
        versus = apart(errors[1], errors[0]), apart(errors[1], errors[0], percent=True)
        table.add(f"{steps[place]:,}", mean(errors[0]), mean(errors[1]), *versus, *mixed)
    return table


def overview(study: Material, tests: TestErrors) -> Table:
    """(a) of all representations at equal parameters, seeds and steps: each against solo."""
    table = Table(
        "N-MPJPE (mm, depth signs resolved), mean over seeds, averaged weights",
        ["representation", "test, selected", "against solo, mm", "in %", "validation, selected", "last", "oracle's",
         "PA-MPJPE, selected"],
    )  # fmt: skip
    base = [one["all"] for one in tests[BASE]]
    for name in study.chosen:
        own, seeds = [one["all"] for one in tests[name]], study.of(name)
        versus = (None, None) if name == BASE else (apart(own, base), apart(own, base, percent=True))
        errors = (mean(seed.at(checkpoint) for seed in seeds) for checkpoint in CHECKPOINTS.values())
        table.add(name, mean(own), *versus, *errors, mean(seed.at("selected", "pa_mpjpe_resolved") for seed in seeds))
    return table


def stability(study: Material) -> Table:
    """(b) How long seeds stay near their minimum, how they drift, and what becomes of them."""
    table = Table(
        "What becomes of seeds by their true error on validation people",
        ["representation, weights", "from the minimum on within 5 % of it, %", "step of the minimum, median",
         "drift after it, mm per 1,000 steps", "fates", "crossed", "diverged per 10,000 steps"],
    )  # fmt: skip
    for name in study.chosen:
        for weights, seeds in _weights(study.of(name)).items():
            table.add(f"{name}, {weights}", *stays(seeds))
    return table


def stays(seeds: Sequence[LabelledHistory]) -> tuple[Statistic | None, int, Statistic | None, str, str, Statistic]:
    """The columns of :func:`stability` for some seeds."""
    minima = [seed.steps[int(np.nanargmin(seed.errors))] for seed in seeds]
    fates = Counter(seed.fate for seed in seeds)
    told = ", ".join(f"{fates[name]} {name}" for name in labels.FATES if fates[name])
    return (
        mean(100 * near_after(seed.errors) for seed in seeds),
        int(np.median(minima)),
        mean(1000 * drift(seed) for seed in seeds),
        told,
        f"{sum(seed.crossed for seed in seeds)} of {len(seeds)}",
        hazard(sum(seed.diverged for seed in seeds), sum(seed.steps[-1] for seed in seeds)),
    )


def _weights(seeds: Sequence[StudiedSeed]) -> dict[str, Sequence[LabelledHistory]]:
    raw = [seed.raw for seed in seeds if seed.raw is not None]
    return {"averaged": seeds, **({"raw": raw} if raw else {})}


def near_after(errors: Array) -> float:
    """The share of evaluation steps from the minimum on (itself included) whose error is within 5 % of it."""
    after = errors[int(np.nanargmin(errors)) :]
    return float((after <= NEAR * np.nanmin(errors)).mean())


def drift(seed: LabelledHistory) -> float:
    """Slope (least squares) of the error from the minimum on, mm per step; NaN where too little comes after it."""
    after = slice(int(np.nanargmin(seed.errors)), None)
    steps, errors = np.array(seed.steps[after], np.float64), seed.errors[after]
    known = np.isfinite(errors)
    if known.sum() <= LEAST_AFTER:
        return float("nan")
    return float(np.polyfit(steps[known], errors[known], 1)[0])


def hazard(events: int, steps: int) -> Statistic:
    """Events per 10,000 steps, with the exact 95 % interval of a Poisson rate (Garwood 1936)."""
    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(0.975, 2 * events + 2) / 2
    value, low, high = (float(1e4 * one / steps) for one in (events, low, high))
    return Statistic(value, low, high, events)


def ending_near_the_best(study: Material) -> Table:
    """(c) How often a seed's last checkpoint is within 5 % of the best result."""
    table = Table(
        "Seeds whose last checkpoint (averaged) lies within 5 % of the best error of any, validation",
        ["representation", "of its representation, %", "of both, %", "spread of last errors (SD), mm"],
    )
    best = {name: min(float(np.nanmin(h.errors)) for h in study.of(name)) for name in study.chosen}
    for name in study.chosen:
        last = np.array([history.at("last") for history in study.of(name)])
        shares = [mean(100.0 * (last <= NEAR * limit)) for limit in (best[name], min(best.values()))]
        table.add(name, *shares, float(last.std(ddof=1)))
    return table


def on_test(study: Material, tests: TestErrors, ends: LastErrors) -> Table:
    """(b) to (e) on test people, as far as weights are kept: what comes after the selected checkpoint. (Added.)"""
    table = Table(
        "N-MPJPE (mm, averaged weights, test people) of what was selected and of where training ended",
        ["representation", "selected", "last", "last minus selected", "steps between, median",
         "last within 5 % of what was selected, % of seeds", "last within 5 % of the best of its representation, %",
         "of any, %"],
    )  # fmt: skip
    best = {
        name: min([one["all"] for one in tests[name]] + ends[name]["averaged"]) for name in study.chosen if tests[name]
    }
    for name in best:
        seeds = study.of(name)
        pairs = zip(seeds, ends[name]["averaged"], strict=True)
        kept = np.array([(error, seed.steps[-1] - _selected_step(seed)) for seed, error in pairs if seed.file])
        chosen, (final, later) = np.array([one["all"] for one in tests[name]]), kept.T
        near = (mean(100.0 * (final <= NEAR * limit)) for limit in (chosen, best[name], min(best.values())))
        table.add(name, mean(chosen), mean(final), mean(final - chosen), int(np.median(later)), *near)
    return table


def _selected_step(seed: StudiedSeed) -> int:
    assert seed.truth.selected is not None  # asked of seeds that have a candidate
    return seed.truth.selected.step or 0


def prior(with_it: Material, without: Material, ground: Ground, tests: TestErrors) -> dict[str, Table]:
    """(l) What the anatomical prior does to error and stability over the same steps; ``tests``: of ``without``."""
    steps = max(with_it.histories[0].steps)
    cut = {name: [seed.until(steps) for seed in without.of(name)] for name in without.chosen}
    fates = Table(
        f"The first {steps:,} steps without and with the anatomical prior, validation people",
        ["representation, prior, weights", "from the minimum on within 5 % of it, %", "step of the minimum, median",
         "drift after it, mm per 1,000 steps", "fates", "crossed", "diverged per 10,000 steps"],
    )  # fmt: skip
    errors = Table(
        "N-MPJPE (mm, depth signs resolved, averaged weights), mean over seeds",
        ["people, checkpoint, representation", "without", "with", "difference, mm", "in %"],
    )
    own = tested(with_it, ground)
    for name in with_it.chosen:
        for label, seeds in (("without", cut[name]), ("with", with_it.of(name))):
            for weights, some in _weights(seeds).items():
                fates.add(f"{name}, {label}, {weights}", *stays(some))
        read = {
            "test, selected": [[one["all"] for one in found[name]] for found in (tests, own)],
            "validation, last": [[float(one.errors[-1]) for one in seeds] for seeds in (cut[name], with_it.of(name))],
            "validation, oracle's": [
                [float(np.nanmin(one.errors)) for one in seeds] for seeds in (cut[name], with_it.of(name))
            ],
        }
        for label, (first, second) in read.items():
            versus = apart(second, first), apart(second, first, percent=True)
            errors.add(f"{label}, {name}", mean(first), mean(second), *versus)
    _gap_with(errors, own)
    return {"prior": errors, "prior_stability": fates}


def _gap_with(table: Table, tests: TestErrors) -> None:
    parts, base = ([one["all"] for one in tests[name]] for name in (PARTS, BASE))
    table.add(
        "test, selected, torso_legs against solo with the prior", mean(base), mean(parts),
        apart(parts, base), apart(parts, base, percent=True),
    )  # fmt: skip
