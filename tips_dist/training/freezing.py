"""Seeds that a verdict stops are frozen, not killed: their whole state is kept, and they go on from it when asked.

A frozen seed goes on ("is thawed") after the others have ended: the steps begin again where the earliest of those to
be thawed stopped, and each of the others joins the pack at the step at which it stopped itself. As every random number
is a function of seed and step, it cannot tell that it ever stopped; no verdict but ``non_finite`` stops it again.
A frozen state takes the room that its rows would have taken in the trial's checkpoints, so that stopping makes no run
folder larger than it would be without.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from tips_dist.runfolder.records import FrozenRecord, Identity
from tips_dist.stability.verdicts import Verdict, ends_seed, kind_of
from tips_dist.training.records import Recorder
from tips_dist.training.state import State

Frozen = tuple[dict[str, Tensor], FrozenRecord]


def ends(state: State, seed: int, verdict: Verdict, thaw: Collection[int]) -> bool:
    """Whether a verdict stops a seed now; one that was thawed by ``non_finite`` alone."""
    if seed in thaw:
        return kind_of(verdict.kind).ends == "always"
    return ends_seed(verdict.kind, state.configuration.stopping)


def freeze(state: State, record: Recorder, ended: Sequence[int]) -> None:
    """Keep the states of active seeds that are about to leave the pack, where there is something to go on from."""
    kept = [seed for seed in ended if _can_go_on(state, seed)]
    record.freeze({seed: (state.take(seed), _record(state, seed, record.identity)) for seed in kept})
    state.frozen |= dict.fromkeys(kept, state.step)


def thaw(state: State, record: Recorder, wanted: Collection[int]) -> bool:
    """Let those of the ``wanted`` seeds that are frozen go on, if their step has come, or the others have ended.

    A state that cannot be read any more is given up: that seed stays where it stopped.

    Returns:
        Whether the pack has changed.
    """
    while due := {seed: state.frozen[seed] for seed in state.seeds if seed in wanted and seed in state.frozen}:
        training = state.active and state.step < state.configuration.training.steps
        step = state.step if training else min(due.values())
        found = {seed: record.frozen(seed) for seed, stopped in due.items() if stopped == step}
        for seed, one in found.items():
            if one is None:
                del state.frozen[seed]
        whole = {seed: one for seed, one in found.items() if one is not None}
        if whole:
            _join(state, step, whole)
        if whole or len(whole) == len(found):
            return bool(whole)
    return False


def _can_go_on(state: State, seed: int) -> bool:
    """A network whose numbers are gone has nothing to go on from, and one at its last step nowhere to go."""
    kind = state.judges[seed].verdict.kind
    return kind_of(kind).ends != "always" and state.step < state.configuration.training.steps


def _record(state: State, seed: int, identity: Identity) -> FrozenRecord:
    judge = state.judges[seed]
    return FrozenRecord(
        seed=seed,
        step=state.step,
        verdict=judge.verdict.kind,
        reason=judge.verdict.reason,
        onset=judge.verdict.onset,
        judge=judge.dump(),
        average_since=state.average_since[seed],
        opposed=state.opposed.get(seed),
        identity=identity,
    )


def _join(state: State, step: int, found: dict[int, Frozen]) -> None:
    for seed, (_, one) in found.items():
        state.judges[seed].load(one.judge)
        state.average_since[seed] = one.average_since
        if one.opposed is not None:
            state.opposed[seed] = one.opposed
        state.thawed[seed] = state.frozen.pop(seed)
        del state.stopped[seed]
    state.join(step, {seed: tensors for seed, (tensors, _) in found.items()})
