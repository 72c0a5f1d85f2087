"""What the sections of ``make gpu`` share: where results are noted, an engine, its rate."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tips_dist.config import Configuration
from tips_dist.training import precision
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.state import State

SECONDS = 300.0  # for all of it


@dataclass
class Row:
    """One thing proven or measured."""

    title: str
    value: float | None
    text: str
    state: str = "ok"  # ok, failed, skipped


@dataclass
class Bench:
    """Where it runs, how long it may take, and what was found so far."""

    device: torch.device
    quick: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    rows: list[Row] = field(default_factory=list)

    def add(self, title: str, value: float | None, form: str = "{:.2f}", *, good: bool = True) -> None:
        """Note a figure, or whether something holds."""
        self._note(Row(title, value, "-" if value is None else form.format(value), "ok" if good else "failed"))

    def proven(self, title: str, holds: bool, said: str = "") -> None:
        """Note whether something holds."""
        self._note(Row(title, None, said or ("yes" if holds else "no"), "ok" if holds else "failed"))

    def run(self, section: Callable[[Bench], None]) -> None:
        """Do one section, whatever becomes of it."""
        title = (section.__doc__ or section.__name__).splitlines()[0].rstrip(".")
        if time.monotonic() > self.deadline:
            self._note(Row(title, None, "out of time", "skipped"))
            return
        try:
            section(self)
        except Skipped as why:
            self._note(Row(title, None, str(why), "skipped"))
        except Exception as error:  # a section that falls ill says so; the others go on
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            self._note(Row(title, None, said, "failed"))

    def _note(self, row: Row) -> None:
        self.rows.append(row)
        print(f"{row.state:<8}{row.title:<68} {row.text}", flush=True)


class Skipped(Exception):  # noqa: N818 (no error)
    """What a section needs is not here."""


def need_card(bench: Bench) -> None:
    if bench.device.type != "cuda":
        raise Skipped("needs a card")


def engine(configuration: Configuration, seeds: int, device: torch.device) -> Engine:
    """An engine on poses of the right size; what they show does not matter for speed."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(2000, 17, 2, generator=generator).mul_(0.1).numpy()
    state = State(configuration, tuple(range(seeds)), device)
    return Engine(state, sampler_for(state, poses))


def stepper(running: Engine) -> Callable[[], None]:
    """One step at each call."""
    batches = itertools.chain.from_iterable(running.batches() for _ in itertools.count())

    def step() -> None:
        with precision.applied(running.state.matmul):
            running.step(next(batches))

    return step


def wait(device: torch.device) -> None:
    """Until the card has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], object], device: torch.device, least: float = 1.0) -> float:
    """Calls per second: the median of three stretches of at least a third of ``least`` seconds each."""
    found = []
    for _ in range(5):  # also so that a compiled network is compiled
        work()
    for _ in range(3):
        wait(device)
        calls, began = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - began < least / 3:
            work()
            calls += 1
            if calls % 20 == 0:  # not further ahead than that
                wait(device)
        wait(device)
        found.append(calls / (time.perf_counter() - began))
    return statistics.median(found)
