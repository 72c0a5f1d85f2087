"""How good decisions without truth were: detectors and selection replayed over histories with true errors.

Four tables: how well the risk *orders* checkpoints, what *selection* by it cost, what *detection* told of diverged
seeds, what *stopping* saved and lost; each beside trivial and off-the-shelf baselines. Then what was called, seed by
seed. Every figure has a 95 % bootstrap interval over trials, each drawn with all its seeds, or over seeds where there
are fewer than five trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from tips_dist.bootstrap import Statistic, mean_over_groups, midranks, over_groups
from tips_dist.config import Policy
from tips_dist.evaluation import choices, labels, rules
from tips_dist.evaluation.histories import LabelledHistory
from tips_dist.replay import RISK, Array, replay
from tips_dist.stability.risk import regime_of
from tips_dist.stability.verdicts import COLLAPSED, CROSSING, DIVERGED, DRIFTING, NON_FINITE

TRIALS = 5  # the fewest that an interval over trials is drawn from
RISKS = 4  # a seed with no more finite risks than this cannot be judged by them
SIGNALS = (  # ordered beside the risk
    "agreement/views",
    "rigidity/bone_ratio_variance",
    "distance/sliced_wasserstein",
    "mirror/mixed",
    "generator/loss",
)
ALARMS = (DRIFTING, DIVERGED, COLLAPSED, NON_FINITE)  # verdicts that say that a seed went wrong

Rows = npt.NDArray[np.intp]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ordering:
    """Spearman of an estimate with the true error."""

    within: Statistic  # across the checkpoints of a seed, median over seeds
    across: Statistic  # across seeds, at the checkpoints it would choose


@dataclass(frozen=True)
class Regret:
    """What a choice of checkpoints costs above the oracle's."""

    mm: Statistic
    share: Statistic | None  # of the gap between a random checkpoint and the oracle's; None for random itself


@dataclass(frozen=True)
class Detection:
    """Telling seeds that go wrong from healthy ones; a plateau is no alarm. None where there are no such seeds."""

    told: Statistic  # share of the diverged with an alarm,
    drifting: Statistic | None  # of those that drift,
    crossing: Statistic | None  # and of those that crossed, with that word; None for alarms that have no words
    false_stops: Statistic  # share of the healthy with an alarm,
    crossing_stopped: Statistic | None  # and of those that crossed and did not diverge
    delay: Statistic  # of a diverged seed's alarm from the true onset, as a share of the budget, median
    auroc: Statistic | None = None  # of a continuous score, diverged against all others, where there is one


@dataclass(frozen=True)
class StoppingScore:
    """What a stopping rule saves, and what it costs at the checkpoints that are then selected."""

    saved: Statistic  # share of the steps
    lost_mm: Statistic
    lost: Statistic  # the same as a share of the error
    best_lost: int  # trials whose truly best seed was stopped before the checkpoint that selection would choose
    trials: int


@dataclass(frozen=True)
class ChosenOfAll:
    """What a user gets from all seeds together: the checkpoint of the lowest risk, and the one of the lowest error."""

    run: str
    trial: str
    seed: int
    step: int
    error_mm: float
    best_trial: str
    best_seed: int
    best_step: int
    best_mm: float


@dataclass(frozen=True)
class Called:
    """What the detectors say of one seed, and when, beside what truly became of it; steps and mm."""

    run: str
    trial: str
    seed: int
    verdict: str
    reason: str
    called: int | None  # the step at which the verdict fell
    onset: int | None  # the step at which the verdict says it began
    fate: str  # by its true error, one of labels.FATES
    crossed: bool  # by its true signs
    true_onset: int | None  # of drift or divergence
    cut: bool
    selected_mm: float | None
    best_mm: float | None
    last_mm: float | None


@dataclass(frozen=True)
class Scorecard:
    """All of it. Seeds that stopping cut when they were made are left out of detection and stopping."""

    seeds: int
    trials: int
    diverged: int
    drifting: int
    crossed: int
    cut: int
    drawn: str  # what intervals are drawn over
    covered: (
        Statistic | None
    )  # share of checkpoints whose error lies in the risk's 90 % interval, of the last three quarters
    chosen: ChosenOfAll | None
    ordering: dict[str, Ordering]
    selection: dict[str, Regret]
    detection: dict[str, Detection]
    stopping: dict[str, StoppingScore]
    called: list[Called]


class Card:
    """Histories, and the bootstrap over their trials (or seeds, where there are few trials)."""

    def __init__(self, histories: Sequence[LabelledHistory]) -> None:
        self.histories = list(histories)
        names = [f"{history.run}/{history.trial}" for history in histories]
        self.trials = [np.flatnonzero(np.array(names) == name) for name in sorted(set(names))]
        self.over_trials = len(self.trials) >= TRIALS
        self.groups = self.trials if self.over_trials else [np.array([row]) for row in range(len(names))]
        self.codes = np.zeros(len(names), np.intp)
        for code, rows in enumerate(self.groups):
            self.codes[rows] = code

    def figure(self, measure: Callable[[Rows], float]) -> Statistic:
        """``measure`` of all rows, with its interval."""
        return over_groups(measure, self.groups)

    def mean(self, values: Array) -> Statistic:
        """Mean of one value per seed."""
        return mean_over_groups(values, self.codes)

    def median(self, values: Array) -> Statistic:
        """Median of one value per seed."""
        return self.figure(lambda rows: _over(np.nanmedian, values[rows]))


def scorecard(histories: Sequence[LabelledHistory], policy: Policy | None = None) -> Scorecard:
    """Judge every decision that these histories allow.

    Args:
        histories: seeds of one run or of several.
        policy: the thresholds of the detectors; the built-in ones by default.
    """
    whole = Card([history for history in histories if not history.cut])
    judged = Card([h for h in histories if np.isfinite(h.risks).sum() > RISKS and np.isfinite(h.errors).any()])
    everything = Card(histories)
    return Scorecard(
        seeds=len(histories),
        trials=len(everything.trials),
        diverged=sum(history.diverged for history in histories),
        drifting=sum(history.fate == labels.DRIFTING for history in histories),
        crossed=sum(history.crossed for history in histories),
        cut=sum(history.cut for history in histories),
        drawn="trials" if everything.over_trials else "seeds",
        covered=judged.mean(np.array([covered(history) for history in judged.histories])) if judged.histories else None,
        chosen=chosen_of_all(histories),
        ordering=ordering(judged) if judged.histories else {},
        selection=selection_regrets(judged) if judged.histories else {},
        detection=detection(whole, policy) if whole.histories else {},
        stopping=stopping(whole, policy) if whole.histories else {},
        called=[call(history, policy) for history in histories],
    )


def ordering(card: Card) -> dict[str, Ordering]:
    """Spearman against true error, of the risk and of single signals that every seed has."""
    estimates = {"risk (ours)": [history.risks for history in card.histories]}
    estimates |= {name: [history.signal(name) for history in card.histories] for name in SIGNALS}
    found = {}
    for name, series in estimates.items():
        if not all(np.isfinite(one).any() for one in series):
            continue
        pairs = list(zip(series, card.histories, strict=True))
        within = np.array([_spearman(one, history.errors) for one, history in pairs])
        lowest = np.array([np.nanmin(one) for one in series])
        truth = np.array([history.errors[int(np.nanargmin(one))] for one, history in pairs])

        def across(rows: Rows, lowest: Array = lowest, truth: Array = truth) -> float:
            return _spearman(lowest[rows], truth[rows])

        found[name] = Ordering(card.median(within), card.figure(across))
    return found


def selection_regrets(card: Card) -> dict[str, Regret]:
    """Regret of chosen checkpoints, in mm and as a share of the random-to-oracle gap.

    A checkpoint that cannot be told, or whose network is not finite, counts as a random one.
    """
    lowest = np.array([np.nanmin(history.errors) for history in card.histories])
    gap = np.array([np.nanmean(history.errors) for history in card.histories]) - lowest
    found = {"random checkpoint": Regret(card.mean(gap), None)}
    for name, choose in choices.CHOICES.items():
        places = [choose(history) for history in card.histories]
        if all(place is None for place in places):
            continue
        errors = np.array(
            [np.nan if i is None else h.errors[i] for h, i in zip(card.histories, places, strict=True)], np.float64
        )
        regret = np.where(np.isfinite(errors), errors - lowest, gap)

        def share(rows: Rows, regret: Array = regret) -> float:
            total = float(gap[rows].sum())
            return float(regret[rows].sum()) / total if total > 0 else float("nan")

        found[name] = Regret(card.mean(regret), card.figure(share))
    return found


def detection(card: Card, policy: Policy | None = None) -> dict[str, Detection]:
    """The detectors' alarms against off-the-shelf ones."""
    diverged = np.array([history.diverged for history in card.histories])
    scores = np.array([alarm_score(history) for history in card.histories])
    called = [rules.calls(history, policy) for history in card.histories]
    ended = [min((places[kind] for kind in ALARMS if kind in places), default=None) for places in called]
    crossing = np.array([CROSSING in places for places in called])
    auroc = card.figure(lambda rows: _auroc(scores[rows], diverged[rows]))
    found = {"detectors (ours)": _alarms(card, ended, crossing, auroc)}
    for name, rule in rules.alarms().items():
        found[name] = _alarms(card, [rule(history) for history in card.histories], None, None)
    return found


def stopping(card: Card, policy: Policy | None = None) -> dict[str, StoppingScore]:
    """The product's stopping against rules that compare seeds."""
    histories = card.histories
    compared: Mapping[str, rules.Rule] = {
        "never stop": rules.never,
        "verdicts (ours)": rules.verdicts(policy),
        "patience on risk": rules.patience(),
        "power law of the risk": rules.power_law(),
        "ASHA on risk": rules.asha(histories),
        "median stopping on risk": rules.median_stopping(histories),
    }
    found = {}
    for name, rule in compared.items():
        stops = [rule(history) for history in histories]
        pairs = list(zip(histories, stops, strict=True))
        saved = np.array([0.0 if stop is None else 1 - h.steps[stop] / h.budget for h, stop in pairs])
        lost, share = np.array([_loss(history, stop) for history, stop in pairs]).T
        killed = sum(_kills_best([pairs[row] for row in trial]) for trial in card.trials)
        found[name] = StoppingScore(card.mean(saved), card.mean(lost), card.mean(share), killed, len(card.trials))
    return found


def chosen_of_all(histories: Sequence[LabelledHistory]) -> ChosenOfAll | None:
    """The checkpoint of the lowest risk of all, against that of the lowest error of all; None without a risk."""
    places = [(h, place) for h in histories if (place := h.lowest_risk()) is not None and np.isfinite(h.errors[place])]
    known = [history for history in histories if np.isfinite(history.errors).any()]
    if not places:
        return None
    ours, place = min(places, key=lambda pair: (pair[0].risks[pair[1]], pair[0].key))
    oracle = min(known, key=lambda history: (np.nanmin(history.errors), history.key))
    best = int(np.nanargmin(oracle.errors))
    return ChosenOfAll(
        run=ours.run,
        trial=ours.trial,
        seed=ours.seed,
        step=ours.steps[place],
        error_mm=float(ours.errors[place]),
        best_trial=oracle.trial,
        best_seed=oracle.seed,
        best_step=oracle.steps[best],
        best_mm=float(oracle.errors[best]),
    )


def call(history: LabelledHistory, policy: Policy | None = None) -> Called:
    """What the detectors say of one seed."""
    verdict, index = replay(history, policy)
    place, last = history.lowest_risk(), choices.last(history)
    return Called(
        run=history.run,
        trial=history.trial,
        seed=history.seed,
        verdict=verdict.kind,
        reason=verdict.reason,
        called=None if index is None else history.steps[index],
        onset=verdict.onset,
        fate=history.fate,
        crossed=history.crossed,
        true_onset=history.onset if history.fate in (labels.DIVERGED, labels.DRIFTING) else None,
        cut=history.cut,
        selected_mm=None if place is None else _finite(history.errors[place]),
        best_mm=None if last is None else float(np.nanmin(history.errors)),
        last_mm=None if last is None else float(history.errors[last]),
    )


def alarm_score(history: LabelledHistory) -> float:
    """A continuous alarm: how far the risk ended above its lowest; endless if it is gone."""
    risks = history.risks
    if not np.isfinite(risks).all():
        return rules.HOPELESS
    tail = float(np.median(risks[-max(1, len(risks) // 5) :]))
    return tail / float(risks.min())


def covered(history: LabelledHistory) -> float:
    """Share of the last three quarters' checkpoints whose true error lies in the interval of their risk."""
    rows = [row for row in history.rows() if row[RISK] is not None]
    regime = regime_of(rows[-1]) if rows else None
    if regime is None:
        return float("nan")
    late = slice(len(history.steps) // 4, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(np.log(history.errors[late]) - np.log(history.risks[late]))
    known = np.isfinite(off)
    return float((off[known] <= regime.half_width).mean()) if known.any() else float("nan")


def _alarms(card: Card, alarms: Sequence[int | None], crossing: Labels | None, auroc: Statistic | None) -> Detection:
    diverged, drifting, crossed, healthy = (
        np.array([bool(getattr(history, name)) for history in card.histories])
        for name in ("diverged", "drifting", "crossed", "healthy")
    )
    raised = np.array([alarm is not None for alarm in alarms])
    delays = np.full(len(alarms), np.nan)
    for index, (history, alarm) in enumerate(zip(card.histories, alarms, strict=True)):
        if alarm is not None and history.diverged:
            delays[index] = max(0, history.steps[alarm] - history.onset) / history.budget

    def share(of: Labels, among: Labels) -> Statistic | None:
        return card.mean(np.where(among, of, np.nan)) if among.any() else None

    nothing = Statistic(float("nan"), float("nan"), float("nan"), len(alarms))
    return Detection(
        told=share(raised, diverged) or nothing,
        drifting=share(raised, drifting),
        crossing=None if crossing is None else share(crossing, crossed),
        false_stops=share(raised, healthy) or nothing,
        crossing_stopped=share(raised, crossed & ~diverged & ~drifting),
        delay=card.median(delays),
        auroc=auroc,
    )


def _loss(history: LabelledHistory, stop: int | None) -> tuple[float, float]:
    """Error of the checkpoint selected with stopping over that of the one without, in mm and as a share."""
    kept, best = history.lowest_risk(stop), history.lowest_risk()
    if kept is None or best is None:
        return float("nan"), float("nan")
    lost = float(history.errors[kept] - history.errors[best])
    return lost, lost / float(history.errors[best])


def _kills_best(seeds: Sequence[tuple[LabelledHistory, int | None]]) -> bool:
    """Whether a trial's truly best seed was stopped before the checkpoint that selection would have chosen."""
    alive = [(h, stop) for h, stop in seeds if h.lowest_risk() is not None and np.isfinite(h.errors).any()]
    if not alive:
        return False
    history, stop = min(alive, key=lambda pair: float(np.nanmin(pair[0].errors)))
    place = history.lowest_risk()
    return stop is not None and place is not None and stop < place


def _spearman(a: Array, b: Array) -> float:
    usable = np.isfinite(a) & np.isfinite(b)
    if usable.sum() < 4 or np.ptp(a[usable]) == 0 or np.ptp(b[usable]) == 0:
        return float("nan")
    return float(spearmanr(a[usable], b[usable]).statistic)


def _auroc(scores: Array, labels: Labels) -> float:
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return float("nan")
    ranks = midranks(scores)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _over(reduce: Callable[[Array], float], values: Array) -> float:
    return float(reduce(values)) if np.isfinite(values).any() else float("nan")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
