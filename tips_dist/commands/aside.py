"""A function that works in a process of its own, beside us, where there is a second core for it."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tips_dist import plugins
from tips_dist.devices import cores

Found = TypeVar("Found")


class Aside(Generic[Found]):
    """Started early, so that it has imported what it needs when it is told to begin; gone with the ``with`` block.

    It may fail, or there may be no core for it: then there is no result, and whoever wants one works it out himself.

    Args:
        work: a function of a module, whose arguments and result can be pickled.
        needed: modules that it imports when it works.
    """

    def __init__(self, work: Callable[..., Found], needed: Sequence[str] = ()) -> None:
        self._work, self._needed = work, needed
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._told = False

    def start(self) -> None:
        """Start the process, if there is a core for it and it has not been."""
        if self._process is not None or cores() < 2:
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = theirs, self._work, self._needed, plugins.loaded()
        process = context.Process(target=_worker, args=arguments, daemon=True, name="aside")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is ours to answer, never its
        try:
            with contextlib.suppress(OSError):  # no memory, no processes left
                process.start()
                self._process, self._pipe = process, ours
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def begin(self, *arguments: object) -> None:
        """Let it work on these."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                self._pipe.send(arguments)
                self._told = True

    def result(self) -> Found | None:
        """What came out, waited for; None if nothing did."""
        if self._pipe is None or not self._told:
            return None
        self._told = False
        try:
            found: Found | None = self._pipe.recv()
        except (OSError, EOFError):  # it died
            return None
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _worker(
    pipe: Connection[Any, Any],
    work: Callable[..., object],
    needed: Sequence[str],
    foreign: Sequence[plugins.Plugin],
) -> None:
    found: object = None
    with contextlib.suppress(EOFError, OSError):  # it is gone
        with contextlib.suppress(Exception):  # whatever it is, the other process meets it again and says so
            plugins.ensure(foreign)
            for name in needed:
                importlib.import_module(name)
            found = work(*pipe.recv())
        pipe.send(found)
