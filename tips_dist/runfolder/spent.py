"""Where the time of a study went: its trials' seconds, its drivers' sessions (``times.json``), and both as shares.

A machine's time is its cores (its cards, where trials ask for cards) times the wall clock of every session. What its
trials' workers did with it stands in the trials' records; the rest is what the driver did, when and for how long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from tips_dist.runfolder.record import Part, Record

if TYPE_CHECKING:
    from tips_dist.runfolder.records import Trial

START, TRAINING, BETWEEN = "start", "training", "between"
STEPS = "training steps"
WAITING = "workers starting, waiting"  # what training left of the machine
NAMES = {"steps": STEPS, "evaluation": "evaluation steps", "records": "records, TensorBoard"}


class Spent(Part):
    """What the workers of one trial did, seconds of wall clock, over all attempts as far as they were saved."""

    steps: float = 0.0  # sampling and stepping
    evaluation: float = 0.0  # measuring signals and judging
    records: float = 0.0  # history, candidates, checkpoints, TensorBoard, reports

    def plus(self, **seconds: float) -> Spent:
        """The same and some more."""
        return self.model_copy(update={name: getattr(self, name) + more for name, more in seconds.items()})


NOTHING = Spent()


class Session(Part):
    """What one driver did from its start to its end, or as far as it came."""

    began: str
    host: str
    unit: Literal["cores", "cards"]
    machine: float  # cores or cards that were there
    each: float  # of them that a trial occupies
    phases: dict[str, float]  # what it did -> seconds of wall clock, in their order
    ended: bool = False  # False: it still works, or was killed

    @property
    def wall_seconds(self) -> float:
        """How long it lasted, as far as is known."""
        return sum(self.phases.values())


class Times(Record):
    """``times.json``: the sessions of a run, the first one first."""

    sessions: list[Session] = []


class TimeSpent(Part):
    """Where the time of a machine went, over all sessions of a run."""

    sessions: int
    unit: Literal["cores", "cards"]
    machine: float  # of the last session
    wall_seconds: float
    available: float  # machine x wall clock
    spent: dict[str, float]  # what -> of it, in order; they add up to what was available

    def share(self, what: str) -> float:
        """Of what was available."""
        return self.spent.get(what, 0.0) / max(self.available, 1e-9)


def time_spent(times: Times | None, trials: Iterable[Trial]) -> TimeSpent | None:
    """Where the time went; None of a run that kept no account of it.

    Trials count that have ended: what others have done so far is among the time of waiting.
    """
    if times is None or not times.sessions:
        return None
    last, driver = times.sessions[-1], dict.fromkeys((TRAINING, START), 0.0)
    for session in times.sessions:
        for what, seconds in session.phases.items():
            driver[what] = driver.get(what, 0.0) + seconds * session.machine
    parts = [spent for trial in trials if (spent := trial.spent) is not None]
    worked = {name: last.each * sum(getattr(part, key) for part in parts) for key, name in NAMES.items()}
    waited = max(0.0, driver.pop(TRAINING) - sum(worked.values()))
    between = driver.pop(BETWEEN, 0.0)
    return TimeSpent(
        sessions=len(times.sessions),
        unit=last.unit,
        machine=last.machine,
        wall_seconds=sum(session.wall_seconds for session in times.sessions),
        available=sum(session.wall_seconds * session.machine for session in times.sessions),
        spent={**worked, WAITING: waited, **driver, BETWEEN: between},
    )
