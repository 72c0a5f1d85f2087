"""Choose the checkpoint to keep of every seed, and the teachers of the student, without ground truth.

Two stages. Training kept a few candidates of each seed, by the risk on its validation poses. Where the poses are at
hand, a second look (module ``second_look``) judges each of them on many more, and its risk decides; else the first
does. A pure function of the run folder's records, weights and poses: the same give the same ``selection.json``,
whatever order the trials finished in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.phases import phase
from tips_dist.runfolder import Choice, RunFolder, SeedOutcome, Selection, Teacher, Trial, layout
from tips_dist.runfolder.choices import CandidateLook, SecondLook
from tips_dist.runfolder.weights import read_weights_record
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability.verdicts import crossing_at, taints

TOLERANCE = 1.25  # seeds whose risk is above this many times the lowest teach only where others do not suffice
RULE = (
    "Per seed, the candidate with the lowest risk (of the second look, where there was one), if it was written before "
    "the onset of a drift, divergence or collapse and outside mirror crossings. "
    "Teachers are the best candidates of all finished trials' seeds, then their "
    f"second best, and so on; seeds whose risk is above {TOLERANCE} times the lowest come last."
)


@dataclass(frozen=True)
class SecondOpinion:
    """What the second look thought of one candidate; ``note`` says why it thought nothing."""

    risk: float | None = None
    mixed: float | None = None
    note: str | None = None


class SecondLooker(Protocol):
    """What looks a second time: :class:`tips_dist.second_look.Looker`, which needs torch, as this module does not."""

    def look(self, file: Path, configuration: Configuration) -> SecondOpinion:
        """Judge one candidate."""
        ...

    def record(self) -> SecondLook:
        """What was looked at."""
        ...


def select(folder: Path, looker: SecondLooker | None = None) -> Selection:
    """Choose candidates and teachers of a run and write ``selection.json``.

    Args:
        folder: the run folder.
        looker: looks at the candidates again, on the poses of the run; without one the first stage decides.

    Raises:
        UserError: ``folder`` is not a run folder, or no seed has a candidate to choose.
    """
    run = RunFolder(folder)
    wanted = run.study.resolved.distillation.teachers
    trials = {trial.id: trial for trial in sorted(run.trials, key=lambda trial: trial.id)}
    pairs = [(trial, seed) for trial in trials.values() for seed in trial.seed_outcomes]
    seeds = []
    with phase("looking at candidates", len(pairs)) as told:
        for trained, outcome in pairs:
            seeds.append(_Seed.of(run.path, trained, outcome, looker))
            told(len(seeds))
    eligible = sorted((seed for seed in seeds if seed.usable), key=lambda seed: (seed.usable[0].decisive, *seed.key))
    if not eligible:
        raise UserError(f"{folder}: no seed of any trial left a candidate, so there is nothing to select")
    apart: dict[tuple[str, int], float | None] = {}
    for trial, group in itertools.groupby(sorted(eligible, key=lambda seed: seed.key), key=lambda seed: seed.trial.id):
        apart |= _disagreement(run, trials[trial], [seed.choice() for seed in group])
    teachers = [_teacher(seed, one, apart[seed.key]) for seed, one in _teaching(eligible)[:wanted]]
    teaching = {(teacher.trial, teacher.seed) for teacher in teachers}
    rows = {}
    for rank, seed in enumerate(eligible):
        chosen = seed.key in teaching
        why = f"rank {rank + 1} of {len(eligible)} by risk" + ("" if chosen else "; not among the teachers")
        changes = {"rank": rank + 1, "chosen": chosen, "why": why, "disagreement": apart[seed.key]}
        rows[seed.key] = seed.choice().model_copy(update=changes)
    return Selection(
        rule=RULE,
        teachers=teachers,
        seeds=[rows.get(seed.key) or seed.choice() for seed in seeds],
        second_look=None if looker is None else looker.record(),
    ).save(layout.SELECTION.at(folder))


@dataclass(frozen=True)
class _Candidate:
    """One candidate with what each stage thought of it."""

    look: CandidateLook
    file: str
    part_signs: list[int] = field(default_factory=list)
    sign_confidence: list[float] = field(default_factory=list)

    @property
    def decisive(self) -> float:
        """The risk of the last stage that looked at it."""
        found = self.look.risk if self.look.second_risk is None else self.look.second_risk
        return float("inf") if found is None else found


@dataclass(frozen=True)
class _Seed:
    """One seed with its candidates: those that can be chosen first, lowest risk first."""

    trial: Trial
    outcome: SeedOutcome
    candidates: list[_Candidate]

    @classmethod
    def of(cls, run: Path, trial: Trial, outcome: SeedOutcome, looker: SecondLooker | None) -> _Seed:
        """Read what was kept of a seed, and look at it again."""
        best = [outcome.best_step] if outcome.best_step is not None and outcome.best_risk is not None else []
        found = [_first_look(run, trial, outcome, step) for step in outcome.candidates or best]
        if looker is not None:
            found = [_second_look(run, one, trial, looker) for one in found]
        return cls(trial, outcome, sorted(found, key=lambda one: (one.look.note or "", one.decisive, one.look.step)))

    @property
    def key(self) -> tuple[str, int]:
        return self.trial.id, self.outcome.seed

    @property
    def usable(self) -> list[_Candidate]:
        """Those that can be chosen."""
        return [one for one in self.candidates if one.look.note is None]

    def choice(self) -> Choice:
        """The seed's row in the record, not yet ranked: its best candidate, or why there is none."""
        kept = self.usable[0] if self.usable else None
        reasons = [one.look.note for one in self.candidates if one.look.note] or [
            "no evaluation step with a finite risk"
        ]
        return Choice(
            trial=self.trial.id,
            representation=self.trial.representation,
            seed=self.outcome.seed,
            verdict=self.outcome.verdict,
            step=kept.look.step if kept else self.outcome.best_step,
            risk=kept.look.risk if kept else self.outcome.best_risk,
            file=kept.file if kept else None,
            chosen=False,
            why="" if kept else next(iter(reasons), "no evaluation step with a finite risk"),
            part_signs=kept.part_signs if kept else None,
            sign_confidence=kept.sign_confidence if kept else None,
            second_risk=kept.look.second_risk if kept else None,
            looks=[one.look for one in self.candidates],
        )


def _first_look(run: Path, trial: Trial, seed: SeedOutcome, step: int) -> _Candidate:
    """What training thought of a candidate, or why it cannot be chosen."""
    file = layout.candidate_file(trial.id, seed.seed, step)
    risk = seed.best_risk if step == seed.best_step else None
    one = _Candidate(CandidateLook(step=step, risk=risk), file)

    def refused(note: str) -> _Candidate:
        return replace(one, look=one.look.model_copy(update={"note": note}))

    if taints(seed.verdict, seed.onset, step):
        which = "its lowest risk" if step == seed.best_step else f"step {step}"
        return refused(f"{which} came after the onset of '{seed.verdict}' at {seed.onset}")
    if step < (seed.settled or 0):
        return refused(f"step {step} came before it settled on one side of the mirror, at {seed.settled}")
    if (crossing := crossing_at(seed.crossings, step)) is not None:
        until = "its end" if crossing.end is None else f"{crossing.end:,}"
        which = "its lowest risk" if step == seed.best_step else f"step {step}"
        return refused(f"{which} lies inside a mirror crossing (steps {crossing.begin:,} to {until})")
    if not (run / file).exists():
        return refused(f"{file} is missing")
    try:
        weights = read_weights_record(run / file)
    except UserError as error:
        return refused(f"{file} is damaged: {error}")
    if weights.part_signs is None or weights.sign_confidence is None:
        return refused(f"{file} does not say the signs of its depths")
    risk = weights.risk if weights.risk is not None else risk
    if risk is None:
        return refused(f"{file} does not say its risk")
    return _Candidate(CandidateLook(step=step, risk=risk), file, weights.part_signs, weights.sign_confidence)


def _second_look(run: Path, one: _Candidate, trial: Trial, looker: SecondLooker) -> _Candidate:
    if one.look.note is not None:
        return one
    seen = looker.look(run / one.file, trial.configuration)
    changes = {"second_risk": seen.risk, "mixed": seen.mixed, "note": seen.note}
    return replace(one, look=one.look.model_copy(update=changes))


def _teaching(eligible: Sequence[_Seed]) -> list[tuple[_Seed, _Candidate]]:
    """All candidates in the order in which they may teach; ``eligible`` are ranked."""
    bound = TOLERANCE * eligible[0].usable[0].decisive
    order = [
        (seed.usable[0].decisive > bound, place, one.decisive, rank)
        for rank, seed in enumerate(eligible)
        for place, one in enumerate(seed.usable)
    ]
    return [(eligible[rank], eligible[rank].usable[place]) for _, place, _, rank in sorted(order)]


def _teacher(seed: _Seed, one: _Candidate, disagreement: float | None) -> Teacher:
    assert one.look.risk is not None
    return Teacher(
        trial=seed.trial.id,
        representation=seed.trial.representation,
        seed=seed.outcome.seed,
        step=one.look.step,
        risk=one.look.risk,
        file=one.file,
        part_signs=one.part_signs,
        sign_confidence=one.sign_confidence,
        second_risk=one.look.second_risk,
        disagreement=disagreement if one is seed.usable[0] else None,
    )


def _key(row: Choice) -> tuple[str, int]:
    return row.trial, row.seed


def _disagreement(run: RunFolder, trial: Trial, rows: Sequence[Choice]) -> dict[tuple[str, int], float | None]:
    """How far each seed's sign-resolved depths lie from the other seeds' of its trial, at their chosen checkpoints.

    The median over the others of the mean absolute difference over validation poses and joints, in units of the
    root-to-head distance; ``None`` for a seed without company or recorded depths. Seeds that found the same answer
    agree up to mirroring (in the spirit of unsupervised disentanglement ranking, Duan et al. 2020). It is reported
    beside the choice, not used in it: its worth is not measured yet.
    """
    recorded = run.depths(trial)
    if len(rows) < 2 or recorded is None:
        return {_key(row): None for row in rows}
    every = trial.configuration.training.evaluate_every
    lifter_of = list(REPRESENTATIONS[trial.representation].lifter_of)
    depths = [
        recorded[(row.step or 0) // every - 1, trial.seeds.index(row.seed)].astype(np.float32)
        * np.array(row.part_signs, np.float32)[lifter_of]
        for row in rows
    ]
    found: dict[tuple[str, int], float | None] = {}
    for index, row in enumerate(rows):
        apart = [np.abs(depths[index] - other).mean() for place, other in enumerate(depths) if place != index]
        found[_key(row)] = round(float(np.median(apart)), 6)
    return found
