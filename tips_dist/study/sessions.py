"""The driver's account of its own time: what it does, and for how long, kept in ``times.json`` while it goes on."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tips_dist.files import StorageError, UserError
from tips_dist.phases import Phase, listening
from tips_dist.runfolder import layout
from tips_dist.runfolder.lock import timestamp
from tips_dist.runfolder.spent import BETWEEN, START, TRAINING, Session, Times
from tips_dist.study.cluster import Machine

SAVE_SECONDS = 10.0  # the most that a driver that is killed leaves out of the account


class Timekeeper:
    """One session: starting, training, then whatever phases the driver tells of, the outermost ones.

    Args:
        before: seconds that this process has worked for the study already.
        clock: returns seconds.
    """

    def __init__(self, before: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, timestamp()
        self._doing, self._since = START, clock() - before
        self._seconds: dict[str, float] = {}
        self._phase: str | None = None
        self._run: Path | None = None
        self._machine: Machine | None = None
        self._earlier: list[Session] = []
        self._saved = clock()

    def keep(self, run: Path, machine: Machine) -> None:
        """From now on the account stands in this run folder."""
        with contextlib.suppress(UserError):  # a damaged one: no account is worth a study
            self._earlier = Times.load(layout.TIMES.at(run)).sessions
        self._run, self._machine = run, machine

    def do(self, what: str) -> None:
        """What the driver does from now on."""
        self._book()
        self._doing = what
        self._save()

    def beat(self) -> None:
        """It still does; written now and then."""
        if self._clock() - self._saved > SAVE_SECONDS:
            self._book()
            self._save()

    def hear(self, phase: Phase) -> None:
        """Take in a phase (:func:`tips_dist.phases.listening`): after training the outermost one is what is done."""
        if self._doing in (START, TRAINING):
            return
        if self._phase is None and not phase.ended:
            self._phase = phase.name
            self.do(phase.name)
        elif phase.ended and phase.name == self._phase:
            self._phase = None
            self.do(BETWEEN)

    def end(self) -> None:
        """The session has ended."""
        self._book()
        self._save(ended=True)

    def _book(self) -> None:
        now = self._clock()
        self._seconds[self._doing] = self._seconds.get(self._doing, 0.0) + now - self._since
        self._since = now

    def _save(self, *, ended: bool = False) -> None:
        self._saved = self._clock()
        if self._run is None or self._machine is None or not self._run.is_dir():
            return
        session = Session(
            began=self._began,
            host=socket.gethostname(),
            unit=self._machine.unit,
            machine=self._machine.amount,
            each=self._machine.each,
            phases={what: round(seconds, 3) for what, seconds in self._seconds.items()},
            ended=ended,
        )
        with contextlib.suppress(StorageError):  # whoever works notices a full disk by itself
            Times(sessions=[*self._earlier, session]).save(layout.TIMES.at(self._run))


_open: list[Timekeeper] = []


@contextlib.contextmanager
def timed(before: float = 0.0, clock: Callable[[], float] = time.monotonic) -> Iterator[Timekeeper]:
    """The session under way in this process, else a new one (with these arguments), which lasts as long as the body."""
    if _open:
        yield _open[-1]
        return
    keeper = Timekeeper(before, clock)
    _open.append(keeper)
    try:
        with listening(keeper.hear):
            yield keeper
    finally:
        _open.remove(keeper)
        keeper.end()
