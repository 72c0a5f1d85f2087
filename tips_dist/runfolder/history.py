"""``history.jsonl``: one line per evaluation step and seed, with the signals measured there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic_core

from tips_dist.files import UserError, append_text, check_file, write_text

if TYPE_CHECKING:
    import pandas

_OWN = ("step", "seed", "risk", "verdict")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One seed at one evaluation step.

    A signal that is undefined for the data is absent; one that is None was not finite.
    """

    step: int
    seed: int
    risk: float | None
    verdict: str
    signals: Mapping[str, float | None] = field(default_factory=dict)  # every name has a slash

    def line(self) -> str:
        """The row as a line of the file."""
        values = {**self.signals, **{name: getattr(self, name) for name in _OWN}}
        return json.dumps(values, sort_keys=True, allow_nan=False) + "\n"


class History:
    """The rows of one trial, in the order they were written."""

    def __init__(self, rows: Iterable[HistoryRow] = ()) -> None:
        self.rows: Sequence[HistoryRow] = list(rows)

    def __iter__(self) -> Iterator[HistoryRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, seed: int) -> History:
        """One seed's rows."""
        return History(row for row in self.rows if row.seed == seed)

    def in_order(self, seeds: Sequence[int], reached: Callable[[int], int]) -> History:
        """The rows of each seed up to the step it has ``reached``, by step and then in the order of ``seeds``."""
        place = {seed: index for index, seed in enumerate(seeds)}
        kept = [row for row in self.rows if row.seed in place and row.step <= reached(row.seed)]
        return History(sorted(kept, key=lambda row: (row.step, place[row.seed])))

    @property
    def seeds(self) -> list[int]:
        """The seeds that have rows, ascending."""
        return sorted({row.seed for row in self.rows})

    @property
    def signals(self) -> list[str]:
        """The names of all signals in it, in order of the alphabet."""
        return sorted({name for row in self.rows for name in row.signals})

    def frame(self) -> pandas.DataFrame:
        """A DataFrame with one row per evaluation step and seed: step, seed, risk, verdict and every signal."""
        import pandas

        return pandas.DataFrame([{name: getattr(row, name) for name in _OWN} | dict(row.signals) for row in self.rows])

    def save(self, path: Path) -> None:
        """Write all rows, atomically."""
        write_text(path, "".join(row.line() for row in self.rows))

    @classmethod
    def load(cls, path: Path) -> History:
        """Read a file; none is an empty history, and a last line that a kill cut short is left out.

        Raises:
            UserError: a line is not JSON, or a field of it is missing or mistyped; the message names file and line.
        """
        if not os.path.lexists(path):
            return cls()
        check_file(path, "history")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        try:  # all lines at once, which is several times quicker
            found = pydantic_core.from_json(b"[" + b",".join(lines) + b"]", allow_inf_nan=False)
        except ValueError:
            found = [_parsed(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]
        return cls([_row(values, f"{path}: line {number}") for number, values in enumerate(found, start=1)])


def append(path: Path, rows: Iterable[HistoryRow]) -> None:
    """Append rows to a file in a single write.

    Raises:
        StorageError: the disk is full or not writable.
    """
    append_text(path, "".join(row.line() for row in rows))


def _parsed(line: bytes, where: str) -> object:
    try:
        return pydantic_core.from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None


def _row(values: object, where: str) -> HistoryRow:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(values).__name__}")
    step, seed, risk, verdict = (values.get(name) for name in _OWN)
    if type(step) is not int or type(seed) is not int:
        name, value = ("step", step) if type(step) is not int else ("seed", seed)
        raise UserError(f"{where}: {name}: expected a whole number, found {value!r:.60}")
    if not isinstance(verdict, str):
        raise UserError(f"{where}: verdict: expected a word, found {verdict!r:.60}")
    signals = {name: value for name, value in values.items() if "/" in name}
    for name, value in (("risk", risk), *signals.items()):
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise UserError(f"{where}: {name}: expected a number or null, found {value!r:.60}")
    return HistoryRow(step, seed, risk, verdict, signals)
