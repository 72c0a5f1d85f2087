"""The live view of a study: a table in a terminal, plain lines elsewhere."""

# ruff: noqa: D102 (the fields of Event speak for themselves)
from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from tips_dist.escaping import plain
from tips_dist.phases import Phase
from tips_dist.report.style import STATE_SIGN, VERDICT_COLOUR, style
from tips_dist.report.tables import number, verdict_words
from tips_dist.stability.verdicts import KINDS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress, TaskID

DONE = ("finished", "stopped", "failed")
REDRAW_SECONDS = 0.25
PHASE_SECONDS = 5.0  # the longest that a phase is silent
PLAIN_SECONDS = 30.0  # the most often a plain line tells of mere progress
_BARS = "▁▂▃▄▅▆▇█"


class Event(Protocol):
    """What the view needs of a study event (``study.run`` makes them)."""

    @property
    def trial(self) -> str: ...
    @property
    def representation(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def risk(self) -> float | None: ...
    @property
    def verdicts(self) -> Mapping[str, int]: ...
    @property
    def steps_per_second(self) -> float | None: ...


@dataclass
class _Row:
    event: Event
    order: int
    risks: list[float] = field(default_factory=list)


class LiveView:
    """Shows events as they come: ``with LiveView(console, trials) as view: view(event)``.

    ``trials`` is how many the study will have; ``clock`` returns seconds. In a terminal one table is redrawn in
    place when something happened, four times a second at most; elsewhere a line is printed when a trial's state or
    verdicts change, and every half minute while it only moves on.
    """

    def __init__(self, console: Console, trials: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._trials = trials
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._order = 0
        self._start = clock()
        self._found: dict[str, float] = {}  # trial -> the share of it that was done when this view came to know it
        self._phase: Phase | None = None
        self._phase_began = clock()
        self._later: threading.Timer | None = None
        self._ended = threading.Event()
        self._last_line = clock()
        self._drawn = -REDRAW_SECONDS
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            live = Live(console=self._console, get_renderable=self.render, auto_refresh=False)
            live.start()
            self._live = live
        threading.Thread(target=self._keep_beating, name="live view", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        before = self._rows.get(event.trial)
        self._order += 1
        row = _Row(event, self._order, before.risks if before else [])
        if event.risk is not None:
            row.risks.append(event.risk)
        self._rows[event.trial] = row
        if event.trial not in self._found or (before is not None and before.event.state == "queued"):
            self._found[event.trial] = _share(event)  # work of before, of this run or of an earlier one
        if self._live is None:
            self._plain(event, before)
        else:
            self._redraw()

    def phase(self, phase: Phase) -> None:
        """Take in what is done besides trials: a bar in a terminal, else a line at its end and every few seconds."""
        if self._phase is None or self._phase.name != phase.name:
            self._phase_began = self._last_line = self._clock()
        self._phase = None if phase.ended else phase
        if self._live is not None:
            self._redraw()
        elif phase.ended:
            self._say_phase(phase)
        else:
            self._beat()

    def _say_phase(self, phase: Phase) -> None:
        self._last_line = self._clock()
        state = "done, " if phase.ended else ""
        words = f"{phase.words()} ({state}{duration(self._clock() - self._phase_began)})"
        self._console.print(plain(words), highlight=False, markup=False, soft_wrap=True)

    def _beat(self) -> None:
        """Nothing new was heard: a phase is not silent for long all the same."""
        phase = self._phase
        if phase is not None and self._live is not None:
            self._redraw()
        elif phase is not None and self._clock() - self._last_line >= PHASE_SECONDS:
            self._say_phase(phase)

    def _keep_beating(self) -> None:
        while not self._ended.wait(1.0):
            self._beat()

    def _redraw(self) -> None:
        """Draw now, or as soon as the last drawing is old enough: the last event is always seen."""
        wait = REDRAW_SECONDS - (self._clock() - self._drawn)
        if wait <= 0:
            self._draw()
        elif self._later is None:
            self._later = threading.Timer(wait, self._draw)
            self._later.daemon = True
            self._later.start()

    def _draw(self) -> None:
        self._drawn, self._later, live = self._clock(), None, self._live
        if live is not None:
            live.refresh()

    def share_done(self) -> float:
        """The share of all planned steps that is done; a finished trial counts as whole however early."""
        done = sum(_share(row.event) for row in self._rows.values())
        return done / max(self._trials, len(self._rows), 1)

    def totals(self) -> str:
        """One line: trials done, verdicts, seed-steps per second, time left."""
        events = [row.event for row in self._rows.values()]
        finished = sum(event.state in DONE for event in events)
        verdicts: Counter[str] = Counter()
        for event in events:
            verdicts.update(event.verdicts)
        rate = sum(event.steps_per_second or 0 for event in events if event.state == "running")
        parts = [f"{finished}/{max(self._trials, len(events))} trials", f"{self.share_done():.0%}"]
        parts += [verdict_words(verdicts)] if verdicts else []
        parts += [f"{rate:.0f} seed-steps/s"] if rate else []
        return ", ".join([*parts, self._time_left()])

    def _time_left(self) -> str:
        """By what was done since this view began; work of before says nothing about the pace."""
        left = 1 - self.share_done()
        if left <= 0:
            return "training is done"
        gained = sum(_share(row.event) - self._found[name] for name, row in self._rows.items())
        gained /= max(self._trials, len(self._rows), 1)
        if gained <= 0:
            return "time left unknown"
        seconds = (self._clock() - self._start) * left / gained
        return f"{duration(seconds)} of training left, then selection and distillation"

    def _plain(self, event: Event, before: _Row | None) -> None:
        told = (before.event.state, dict(before.event.verdicts)) if before else None
        now = self._clock()
        if (event.state, dict(event.verdicts)) == told and now - self._last_line < PLAIN_SECONDS:
            return
        self._last_line = now
        words = verdict_words(dict(event.verdicts))
        details = [f"step {event.step}/{event.steps}" if event.steps else "", words]
        details += [f"risk {number(event.risk, None)}" if event.risk is not None else ""]
        line = ", ".join(part for part in (f"{event.trial} {event.state}", *details) if part)
        line = plain(f"{line} | {self.totals()}")
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """The table: running trials first, then the latest others, as many as the terminal has lines for."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        wide = self._console.width >= 120
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False)
        for head in ("", "trial", "seeds", "step", "risk", "", "steps/s"):
            right = head in ("step", "risk", "steps/s")
            table.add_column(head, justify="right" if right else "left", no_wrap=True)
        rows = sorted(self._rows.values(), key=lambda row: (row.event.state != "running", -row.order))
        room = max(3, self._console.height - 6)
        for row in rows[:room]:
            event = row.event
            table.add_row(
                STATE_SIGN.get(event.state, "·"),
                Text(plain(event.trial), style=style(event.representation).colour),
                _seeds(event.verdicts, wide),
                f"{event.step}/{event.steps}",
                number(event.risk, None),
                sparkline(row.risks, 30 if wide else 8),
                "" if event.steps_per_second is None else f"{event.steps_per_second:.0f}",
            )
        more = f"and {len(rows) - room} more trials; " if len(rows) > room else ""
        lines = [Text(more + self.totals(), style="bold")]
        if self._phase is not None:
            lines.append(Text(f"{plain(self._phase.words())}, {duration(self._clock() - self._phase_began)}"))
            if self._phase.total:
                lines.append(Text(bar(self._phase.done / self._phase.total, self._console.width - 1)))
        return Group(table, *lines)


class Bars:
    """Shows phases alone: a bar each in a terminal, elsewhere a line whenever :data:`PHASE_SECONDS` were silent."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[str, Phase] = {}  # under way, the innermost last
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
        else:
            threading.Thread(target=self._speak, name="phases", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, phase: Phase) -> None:
        """Take in one phase."""
        if phase.ended:
            self._phases.pop(phase.name, None)
        else:
            self._phases[phase.name] = phase
        if self._progress is None:
            return
        if phase.name not in self._tasks:
            self._tasks[phase.name] = self._progress.add_task(plain(phase.name), total=phase.total)
        self._progress.update(self._tasks[phase.name], completed=phase.done, total=phase.total, visible=not phase.ended)

    def _speak(self) -> None:
        while not self._ended.wait(PHASE_SECONDS):
            for phase in list(self._phases.values())[-1:]:
                words = f"{phase.words()} ({duration(time.monotonic() - self._began)})"
                self._console.print(plain(words), highlight=False, markup=False, soft_wrap=True)


def _share(event: Event) -> float:
    """How much of a trial is done; one that has ended counts as whole, however early."""
    return 1.0 if event.state in DONE else min(1.0, event.step / max(event.steps, 1))


def bar(share: float, width: int) -> str:
    """A bar of ``width`` signs."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "━" * full + "╌" * (width - full)


def _seeds(verdicts: Mapping[str, int], wide: bool) -> RenderableType:
    from rich.text import Text

    text = Text()
    for name, kind in KINDS.items():
        if count := verdicts.get(name, 0):
            word = name.replace("_", "-") if wide else kind.short
            text.append(f"{count} {word} " if wide else f"{count}{word} ", style=VERDICT_COLOUR[name])
    return text


def sparkline(values: list[float], width: int) -> str:
    """A series as ``width`` bars at most, lowest value to highest; the latest value is the last bar."""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(1, width + 1)]
        values = [values[edge - 1] for edge in edges]
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min, 2 h 05 min, 3 d 04 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"
