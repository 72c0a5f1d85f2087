"""What a trial is compared with when ``stopping.trials: test`` looks at it, from the run folder alone."""

from __future__ import annotations

from pathlib import Path

from tips_dist.runfolder import History, HistoryRow, Trial, TrialState, layout, read_trials
from tips_dist.stability import ranking


def seeds_at(
    run: Path, trial: Trial, step: int, known: dict[tuple[str, int], ranking.Seeds]
) -> dict[str, ranking.Seeds]:
    """Every seed's lowest risk up to ``step`` and its verdict then, of this trial and those of its representation.

    From their histories, so that a resumed study knows the same; of those that have come that far, or have ended. Of
    the latter ``known`` remembers it.
    """
    found: dict[str, ranking.Seeds] = {}
    for other in read_trials(run):
        if other.representation != trial.representation or other.state is TrialState.FAILED:
            continue
        seeds = known.get((other.id, step)) or _seeds_at(run, other, step)
        if seeds:
            found[other.id] = seeds
        if other.state.final:
            known[other.id, step] = seeds
    return found


def _seeds_at(run: Path, trial: Trial, step: int) -> ranking.Seeds:
    """One trial's; nothing where it has not come that far."""
    rows: dict[int, list[HistoryRow]] = {}
    for row in History.load(layout.HISTORY.at(run, trial.id)):
        rows.setdefault(row.seed, []).append(row)
    if trial.state is not TrialState.FINISHED and max((of[-1].step for of in rows.values()), default=0) < step:
        return []
    until = [[row for row in of if row.step <= step] for of in rows.values()]
    return [(min((row.risk for row in of if row.risk is not None), default=None), of[-1].verdict) for of in until if of]
