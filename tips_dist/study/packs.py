"""Which trials train as one program (``resources.pack``), and how many.

Only trials that are one program can (:func:`tips_dist.training.job.program`); a pack is filled with those that wait
and, where there are none, with further proposals. ``auto`` packs as many as make the machine faster, and proposes no
more at once, of a sampler that learns, than a quarter of the trials that it has learnt from, or than it would draw at
random anyway: what a search loses by not waiting stays small. The journal says of each trial how many its sampler knew.
A number packs so many, whatever the sampler might have learnt. Neither packs more than its share of what is left to do,
so that no place for a trial stands empty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tips_dist.config import Configuration, Resources, Study
from tips_dist.registry import entry
from tips_dist.runfolder import Trial
from tips_dist.study.search import TrialSearch
from tips_dist.study.space import budget, budgets
from tips_dist.training.job import program

KNOWN_SHARE = 4  # a learning sampler is asked for one trial for so many that it knows
# What keeps a core, or a card, busy: rows x batch x width squared, up to which more rows in a program pay; and the most
# rows. For a core it was measured (make bench, "Growth over S"); for a card it is an estimate.
CORE, CARD = (2**24, 16), (2**30, 128)


class Packs:
    """Fills packs for the driver."""

    def __init__(
        self, study: Study, search: TrialSearch, resources: Resources, room: Callable[[], int] | None = None
    ) -> None:
        """Fill packs of a study's trials.

        Args:
            study: the study.
            search: who proposes trials.
            resources: what a pack occupies, settled (cards that are not count as none).
            room: says how many packs the cluster has places for; None: any number.
        """
        self._study, self._search, self._resources, self._room = study, search, resources, room
        self._apart: set[str] = set()  # trials that train by themselves

    def words(self) -> str:
        """What is to be said of a pack that was asked for and cannot be; empty if there is nothing."""
        why = why_none(self._study, self._resources)
        if why is None or self._resources.pack in (1, "auto"):
            return ""
        return f"resources.pack: every trial trains by itself, as {why}"

    def separate(self, trial: Trial) -> None:
        """Let a trial train by itself from now on: a pack that it was in has come to grief."""
        self._apart.add(trial.id)

    def fill(self, first: Trial, waiting: deque[Trial], others: float, live: int) -> list[Trial]:
        """The trials that train together with ``first``, itself among them.

        Args:
            first: the next trial.
            waiting: trials that wait to be trained: those that fit are taken out; proposals that do not are put in.
            others: what other packs still have to do, in trials.
            live: trials in other packs.
        """
        most = self._most(first, len(waiting) + self._search.remaining() + 1 + others, live)
        pack = [first]
        if most == 1:
            return pack
        kind = program(first.configuration)

        def fits(trial: Trial) -> bool:
            return len(pack) < most and trial.id not in self._apart and program(trial.configuration) == kind

        for trial in [*waiting]:
            if fits(trial):
                pack.append(trial)
                waiting.remove(trial)
        asked, may_ask = 1, self._at_once(first)
        while len(pack) < most and asked < may_ask:
            more = self._search.propose(first.representation)
            if more is None:
                break
            asked += 1
            (pack if fits(more) else waiting).append(more)
        return pack

    def _most(self, first: Trial, left: float, live: int) -> int:
        """How many trials at most train together with this one, itself among them; ``left`` to do, in trials."""
        if first.id in self._apart:
            return 1
        resources = self._resources
        most = _asked_for(self._study, first.configuration, len(first.seeds), resources)
        if self._room is not None:
            most = min(most, round(left / max(1, self._room())))
        if resources.max_concurrent:
            most = min(most, resources.max_concurrent - live)
        return max(1, most)

    def _at_once(self, first: Trial) -> int:
        """How many trials may be proposed at once, ``first`` among them."""
        return _may_ask(self._study, self._resources, first.number, self._search.known(first.representation))


def foreseen(study: Study, configuration: Configuration, resources: Resources, room: int) -> int:
    """How many trials like this one train as one program at most, as long as nothing fails.

    Args:
        study: the study.
        configuration: of one of its trials.
        resources: what a pack occupies, settled (cards that are not count as none).
        room: how many packs there are places for.
    """
    trials = budget(study, configuration.representation)
    most = min(_asked_for(study, configuration, study.seeds, resources), round(budgets(study) / max(1, room)), trials)
    may_ask = max(_may_ask(study, resources, 0, 0), _may_ask(study, resources, trials - 1, trials - 1))
    return max(1, min(most, may_ask, resources.max_concurrent or most))


def why_none(study: Study, resources: Resources) -> str | None:
    """Why no trial of this study trains with others although more than one at a time are asked for."""
    if resources.workers > 1:
        return f"the {resources.workers} workers of a trial share its batches"
    if study.search.scheduler != "none":
        return f"the {study.search.scheduler} scheduler stops single trials"
    return "stopping.trials: test stops single trials" if study.stopping.trials == "test" else None


def _asked_for(study: Study, configuration: Configuration, seeds: int, resources: Resources) -> int:
    """How many trials a pack is to have, as far as ``resources`` say."""
    if why_none(study, resources) is not None:
        return 1
    return rows_that_pay(configuration, resources) // seeds if resources.pack == "auto" else resources.pack


def _may_ask(study: Study, resources: Resources, number: int, known: int) -> int:
    """How many trials may be proposed at once from trial ``number`` on, by a sampler that has learnt from ``known``."""
    sampler = entry("samplers", study.search.sampler)
    if resources.pack != "auto" or not sampler.options.get("history", True):
        return study.search.trials
    return max(int(sampler.options.get("startup", 0)) - number, known // KNOWN_SHARE)


def rows_that_pay(configuration: Configuration, resources: Resources) -> int:
    """Up to how many seeds in one program train faster than in several of fewer; then what they train on is busy."""
    batch, width = configuration.training.batch_size, configuration.model.width
    cards = 0.0 if resources.gpus == "auto" else resources.gpus
    (busy, most), share = (CARD, cards) if cards else (CORE, max(1, int(resources.cpus)))
    return max(1, round(min(busy / (batch * width**2), most) * share))
