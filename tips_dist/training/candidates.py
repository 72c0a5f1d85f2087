"""Which checkpoints of a seed are kept as candidates: low risks, spread over the good stretch of the run."""

from __future__ import annotations

from collections.abc import Iterable

from tips_dist.config import Training
from tips_dist.runfolder import Candidate

APART = 3  # evaluation steps between two candidates at least, in a run that has many
CROSSING = 0.05  # share of mirrored poses from which a checkpoint lies inside a mirror crossing


def spread_out(found: Iterable[Candidate], training: Training) -> list[Candidate]:
    """The candidates to keep of one seed, lowest risk first.

    Of two that are closer than a few evaluation steps only the better stays: neighbours make the same errors, so the
    second would neither be a better choice nor teach anything new. None lies inside a mirror crossing if others exist.
    """
    evaluations = training.steps // training.evaluate_every
    apart = max(1, min(APART, evaluations // (2 * training.candidates))) * training.evaluate_every
    chosen: list[Candidate] = []
    for one in sorted(found, key=lambda one: (_crossing(one), one.risk, one.step)):
        if len(chosen) < training.candidates and all(abs(one.step - other.step) >= apart for other in chosen):
            chosen.append(one)
    return [one for one in chosen if not _crossing(one)] or chosen


def _crossing(one: Candidate) -> bool:
    return one.mixed is not None and one.mixed > CROSSING
