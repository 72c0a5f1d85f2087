"""What a long command is doing now, told to whoever listens: the name of the phase and how much of it is done.

Work that takes a while says so with :func:`phase`; who shows it (a live table, a bar, a line of a log, a file for
``status``) listens with :func:`listening`. Without a listener nothing happens, so libraries pay nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Phase:
    """A phase: ``done`` of ``total`` units (None: nobody knows how many), and what came out once it has ended."""

    name: str
    done: int = 0
    total: int | None = None
    ended: bool = False
    note: str = ""

    def words(self) -> str:
        """The phase in a few words: "distilling, 40%"."""
        share = f", {self.done / self.total:.0%}" if self.total and not self.ended else ""
        note = f": {self.note}" if self.note else ""
        return f"{self.name}{share}{note}"


class Advance:
    """What a phase tells of itself: how much is done, and at last what came out."""

    def __init__(self, begun: Phase) -> None:
        self.phase = begun
        _tell(begun)

    def __call__(self, done: int, total: int | None = None) -> None:
        """So many units are done, of so many if that is known by now."""
        self.phase = replace(self.phase, done=done, total=self.phase.total if total is None else total)
        _tell(self.phase)

    def note(self, text: str) -> None:
        """Say what came out, such as that there was nothing to do."""
        self.phase = replace(self.phase, note=text)


Listener = Callable[[Phase], None]
_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener`` hear of every phase of this process in the body."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def phase(name: str, total: int | None = None) -> Iterator[Advance]:
    """The body is a phase; it may tell how far it is by calling what it gets."""
    advance = Advance(Phase(name, total=total))
    try:
        yield advance
    finally:
        _tell(replace(advance.phase, ended=True))


def _tell(told: Phase) -> None:
    for listener in list(_listeners):
        listener(told)
