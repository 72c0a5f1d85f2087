"""Tables of answers: plain data that a script can read, and Markdown that a person can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tips_dist.bootstrap import Statistic, cliffs_delta, difference, difference_of_designs, statistic
from tips_dist.files import UserError, write_text

Array = npt.NDArray[np.float64]
Cell = str | int | float | Statistic | None


@dataclass
class Table:
    """Rows under named columns; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)

    def add(self, name: str, *cells: Cell) -> None:
        """Append a row."""
        self.rows.append([name, *cells])

    def data(self) -> dict[str, Any]:
        """The table as plain data."""
        return {
            "title": self.title,
            "columns": self.columns,
            "rows": [[row[0], *map(_plain, row[1:])] for row in self.rows],
        }

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Table:
        """The table that :meth:`data` gave."""
        return cls(data["title"], data["columns"], [list(map(_cell, row)) for row in data["rows"]])

    def named(self) -> dict[str, dict[str, Cell]]:
        """Row name -> column -> cell."""
        return {str(row[0]): dict(zip(self.columns[1:], row[1:], strict=True)) for row in self.rows}

    def markdown(self) -> str:
        """The table as GitHub Markdown."""
        lines = [f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        lines += [f"| {' | '.join(_text(cell) for cell in row)} |" for row in self.rows]
        return (f"{self.title}\n\n" if self.title else "") + "\n".join(lines)


def _cell(value: Any) -> Cell:
    cell: Cell = Statistic(**value) if isinstance(value, dict) else value
    return cell


def _plain(cell: Cell) -> Any:
    if isinstance(cell, float) and not np.isfinite(cell):
        return None
    return asdict(cell) if isinstance(cell, Statistic) else cell


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case Statistic(value, low, high):
            places = _places(max(abs(value), abs(low), abs(high)))
            return f"{value:.{places}f} ({low:.{places}f}..{high:.{places}f})"
        case float():
            return "" if np.isnan(cell) else f"{cell:.{_places(abs(cell))}f}"
    return str(cell)


def _places(size: float) -> int:
    return 1 if size >= 10 else 2


def mean(values: Iterable[float]) -> Statistic | None:
    """Mean of one value per seed, with its 95 % bootstrap interval."""
    return statistic(np.array([list(values)], dtype=np.float64))


def over_trials(groups: Iterable[Iterable[float]], *, median: bool = False) -> Statistic | None:
    """Mean (or median) over the seeds of several trials: the bootstrap draws trials, then seeds within them."""
    return statistic(_ragged(groups), median=median)


def apart(first: Iterable[float], second: Iterable[float], *, percent: bool = False) -> Statistic | None:
    """Mean of ``first`` minus mean of ``second`` (two groups of seeds); as percent of the mean of ``second``."""
    one, two = (np.array([list(values)], dtype=np.float64) for values in (first, second))
    found = difference(one, two)
    if found is None or not percent:
        return found
    return found.scaled(100 / float(np.nanmean(two)))


def effect_over_seeds(first: Iterable[Iterable[float]], second: Iterable[Iterable[float]]) -> Statistic | None:
    """Mean of the first group of trials minus that of the second; trials are of a design, so only seeds are drawn."""
    return difference_of_designs(_ragged(first), _ragged(second))


def delta(first: Iterable[float], second: Iterable[float]) -> float | None:
    """Cliff's delta: -1 where every value of ``first`` is below every value of ``second``."""
    return cliffs_delta(np.array(list(first), dtype=np.float64), np.array(list(second), dtype=np.float64))


def _ragged(groups: Iterable[Iterable[float]]) -> Array:
    rows = [list(group) for group in groups]
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


def fill(page: Path, tables: Mapping[str, Table]) -> None:
    """Put each table between its markers ``<!-- name -->`` and ``<!-- /name -->`` of a page.

    Raises:
        UserError: the page lacks the markers of a table.
    """
    text = page.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if begin not in text or end not in text.split(begin, 1)[1]:
            raise UserError(f"{page}: no place for a table between <!-- {name} --> and {end}")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}{table.markdown()}\n{end}{rest.split(end, 1)[1]}"
    write_text(page, text)
