"""Several trials whose steps are one program: between two evaluation steps their rows train as one pack.

Everything but the steps is each trial's own (:func:`~tips_dist.training.loop.course`): evaluation, verdicts,
candidates, checkpoints, resume. The pack borrows the numbers of the trials' states for a stretch of steps and gives
them back, so seeds may end and go on as they do in a trial alone, and a stretch that fails has touched nothing: it is
taken again, in pieces where memory was short, else by each trial by itself. So the failure of one is not that of all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tips_dist.data.store import Poses
from tips_dist.files import UserError
from tips_dist.training.engine import Engine, Stepper
from tips_dist.training.execution import Plan
from tips_dist.training.job import Ended, Job, program
from tips_dist.training.loop import Course, Material, Taken, course
from tips_dist.training.pieces import in_more
from tips_dist.training.players import Players
from tips_dist.training.state import State


def train_together(
    jobs: Sequence[Job],
    poses: Poses,
    ended: Ended,
    *,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> None:
    """Train several trials to their ends, their steps as one program; each as :func:`~tips_dist.training.loop.train`.

    Trials that are behind (they go on from checkpoints) train by themselves until they meet the others.

    Args:
        jobs: trials that may run as one program, see :func:`~tips_dist.training.job.program`.
        poses: the 2D data.
        ended: told of each job when it has ended, what it returned or raised; the others go on.
        should_stop: polled at each step; when true all states are saved, and every job ends as interrupted.
        threads: torch threads.
        device: where to train.

    Raises:
        UserError: the jobs are no one program.
    """
    if len({program(job.configuration) for job in jobs}) > 1:
        raise UserError("a pack of trials: their configurations differ in what makes another program")
    if threads:
        torch.set_num_threads(threads)
    material, plan = Material(poses), Plan(threads=threads, device=device)
    members = [_Member(place, course(job, material, plan), ended) for place, job in enumerate(jobs)]
    pack = Pack()
    try:
        for member in members:
            member.go(None)
        while waiting := [(member, member.engine) for member in members if member.engine is not None]:
            first = min((engine.state for _, engine in waiting), key=lambda state: state.step)
            due = [(m, e) for m, e in waiting if (e.state.step, e.state.matmul) == (first.step, first.matmul)]
            taken = pack.take([engine for _, engine in due], should_stop)
            for (member, _), what in zip(due, taken, strict=True):
                member.go(what)
    finally:
        for member in members:
            member.running.close()


class _Member:
    """A trial of the pack: where it has come to, and who is told how it ended."""

    def __init__(self, place: int, running: Course, ended: Ended) -> None:
        self.place, self.running, self.ended = place, running, ended
        self.engine: Engine | None = None  # waits for steps; None before the first and once it has ended

    def go(self, taken: Taken | Exception | None) -> None:
        """Let it go on to where steps are due again, or end."""
        self.engine = None
        try:
            self.engine = self.running.throw(taken) if isinstance(taken, Exception) else self.running.send(taken)
        except StopIteration as end:
            self.ended(self.place, end.value)
        except Exception as error:
            self.ended(self.place, error)


class Pack:
    """Takes the steps of several trials, together where that works."""

    def __init__(self) -> None:
        self._stepper: Stepper | None = None
        self._pieces = 1
        self._apart = ""  # why trials train by themselves from now on

    def take(self, engines: Sequence[Engine], should_stop: Callable[[], bool] | None = None) -> list[Taken | Exception]:
        """Step the trials, all at the same step, to their next evaluation step; what each is to be told.

        An exception is what a trial's steps raised when it took them by itself.
        """
        if self._apart or len(engines) == 1:
            return [self._one(engine, should_stop) for engine in engines]
        began = time.perf_counter()
        try:
            whole = self._advance(engines, should_stop)
        except Exception as error:
            said = (str(error).splitlines() or [""])[0][:160]
            taken = [self._one(engine, should_stop) for engine in engines]
            if not any(isinstance(one, Exception) for one in taken):  # then it was nobody's own fault
                self._apart = f"trains by itself: its pack's program failed ({type(error).__name__}: {said})"
            return taken
        seconds, sizes = time.perf_counter() - began, [len(engine.state.rows) for engine in engines]
        note = f"memory is short: a step takes the seeds in {self._pieces} pieces" if self._pieces > 1 else ""
        return [Taken(seconds * size / sum(sizes), whole, len(engines), note) for size in sizes]

    def _one(self, engine: Engine, should_stop: Callable[[], bool] | None) -> Taken | Exception:
        """A trial by itself; in the pack's copy, so that it too can take a stretch again in pieces."""
        began = time.perf_counter()
        try:
            whole = self._advance([engine], should_stop)
        except Exception as error:
            return error
        return Taken(time.perf_counter() - began, whole, note=self._apart)

    def _advance(self, engines: Sequence[Engine], should_stop: Callable[[], bool] | None) -> bool:
        """Borrow the numbers of the states, step, and give them back; on an error the states are as they were.

        Raises:
            Exception: what a step raised; of memory alone where there is nothing left to cut.
        """
        states = [engine.state for engine in engines]
        while True:
            stepper = self._borrowed(engines[0], states)
            stepper.pieces = min(self._pieces, len(stepper.players.rows))
            try:
                whole = stepper.advance(should_stop)
                break
            except RuntimeError as error:
                self._pieces = in_more(stepper.pieces, len(stepper.players.rows), error)
            self._stepper = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        _give_back(stepper.players, states)
        return whole

    def _borrowed(self, engine: Engine, states: Sequence[State]) -> Stepper:
        """One program with the numbers of these states."""
        rows, first = [row for state in states for row in state.rows], states[0]
        if self._stepper is None or list(self._stepper.players.rows) != rows:
            players = Players(rows, first.device, kind=first.precision, matmul=first.matmul)
            self._stepper = Stepper(players, engine.sampler)
        players = self._stepper.players
        players.step, players.matmul = first.step, first.matmul
        players.clock.fill_(first.step)
        players.since = [since for state in states for since in state.since]
        theirs = [state.tensors() for state in states]
        players.sums = {name: torch.cat([state.sums[name] for state in states]) for name in first.sums}
        with torch.no_grad():
            for name, tensor in players.tensors().items():
                torch.cat([of[name] for of in theirs], out=tensor)
        return self._stepper


@torch.no_grad()
def _give_back(players: Players, states: Sequence[State]) -> None:
    """Copy to each state what its rows have become: numbers, gradients, sums of losses."""
    count = len(players.rows)
    ends = list(itertools.accumulate((len(state.rows) for state in states), initial=0))

    def cut(tensor: Tensor) -> list[Tensor]:
        rows = tensor.view(count, -1, *tensor.shape[1:])
        return [rows[first:last].flatten(0, 1) for first, last in itertools.pairwise(ends)]

    sums = {name: cut(value) for name, value in players.sums.items()}
    players.sums = {}
    whole = {name: cut(tensor) for name, tensor in players.tensors().items()}
    for place, state in enumerate(states):
        mine = {name: tensor for name, tensor in state.tensors().items() if name in whole}
        torch._foreach_copy_(list(mine.values()), [whole[name][place] for name in mine])
        state.sums = {name: parts[place].clone() for name, parts in sums.items()}
        state.step = players.step
        state.clock.fill_(players.step)
    for name, network in players.networks.items():
        theirs_of = [list(state.networks[name].parameters()) for state in states]
        for index, parameter in enumerate(network.parameters()):
            parts = [None] * len(states) if parameter.grad is None else cut(parameter.grad)
            for parameters, part in zip(theirs_of, parts, strict=True):
                parameters[index].grad = part
