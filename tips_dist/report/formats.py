"""Tables and notes for a terminal (rich), as Markdown, as LaTeX and as CSV, from the same rows.

Cells may hold names and errors from outside; each writer shows them as they are (:mod:`tips_dist.escaping`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tips_dist.escaping import for_csv, for_latex, for_markdown, plain
from tips_dist.report.answer_words import AnswerLine, answer_table, in_one_line
from tips_dist.report.tables import WORDS, Table

if TYPE_CHECKING:
    from rich.console import Console


def print_answer(console: Console, lines: Sequence[AnswerLine]) -> None:
    """Print the answer for a person: topics in bold, commands on lines of their own that can be copied."""
    from rich.text import Text

    topic = ""
    for line in lines:
        head = f"{line.topic}: " if line.topic != topic else "  "
        topic = line.topic
        console.print(Text.assemble((head, "bold"), plain(line.text)))
        if line.command:
            console.print(Text(f"    {plain(line.command)}", style="cyan"), soft_wrap=True)
    console.print()


def print_tables(console: Console, tables: Sequence[Table], lines: Sequence[str]) -> None:
    """Print tables and notes for a person; a table too wide for the terminal goes on below itself."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    for table in (part for whole in tables for part in fitted(_plain(whole), console.width)):
        rich = RichTable(
            title=Text(table.title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1) if console.width >= 100 else (0, 0),
            show_edge=False,
        )
        for index, name in enumerate(table.head):
            words = [word for row in (table.head, *table.rows) for word in row[index].split()]
            rich.add_column(
                Text(name),
                justify="left" if index in table.words else "right",
                no_wrap=index == 0,
                min_width=max(map(len, words), default=1),
            )
        for row in table.rows:
            rich.add_row(*map(Text, row))  # as text, never as rich's markup
        console.print(rich)
        console.print()
    for line in lines:
        console.print(Text(plain(line)))


def fitted(table: Table, width: int) -> list[Table]:
    """Cut a table into parts of at most ``width`` characters, each with the first column; words wrap."""
    needed = []
    for name, *cells in zip(table.head, *table.rows, strict=True):
        words = max((len(word) for cell in (name, *cells) for word in cell.split()), default=1)
        least = min(16, max(map(len, cells), default=1)) if name in WORDS else 0
        needed.append(1 + max(words, least))
    blocks: list[list[int]] = [[]]
    for column in range(1, len(needed)):
        if blocks[-1] and needed[0] + sum(needed[index] for index in blocks[-1]) + needed[column] > width:
            blocks.append([])
        blocks[-1].append(column)
    return [
        Table(
            table.title + (", continued" if number else ""),
            tuple(table.head[index] for index in (0, *block)),
            [tuple(row[index] for index in (0, *block)) for row in table.rows],
        )
        for number, block in enumerate(blocks)
    ]


def markdown(tables: Sequence[Table], lines: Sequence[str], answer: Sequence[AnswerLine] = ()) -> str:
    """The answer, tables and notes as GitHub-flavoured Markdown."""
    said = [f"- **{line.topic}**: {for_markdown(line.text)}{_code(line.command)}" for line in answer]
    parts = ["\n".join(said)] if said else []
    for table in tables:
        sides = ["left" if index in table.words else "right" for index in range(len(table.head))]
        body = _frame(table, for_markdown).to_markdown(index=False, disable_numparse=True, colalign=sides)
        parts.append(f"**{for_markdown(table.title)}**\n\n{body}")
    parts.append("\n".join(f"- {for_markdown(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _code(command: str | None) -> str:
    """A command as code of Markdown, which may hold backticks itself."""
    if command is None:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", command)), default=0))
    space = " " if "`" in command else ""
    return f" {fence}{space}{plain(command)}{space}{fence}"


def latex(tables: Sequence[Table], lines: Sequence[str], answer: Sequence[AnswerLine] = ()) -> str:
    """Tables for a paper (package booktabs); the answer stands before them and the notes behind, as comments."""
    parts = ["\n".join(f"% {plain(line)}" for line in in_one_line(answer))] if answer else []
    parts += [
        _frame(table, _typeset)
        .style.hide(axis="index")
        .to_latex(
            hrules=True,
            position_float="centering",
            caption=for_latex(table.title),
            column_format="".join("l" if index in table.words else "r" for index in range(len(table.head))),
        )
        for table in tables
    ]
    parts.append("\n".join(f"% {plain(line)}" for line in lines))
    return "\n".join(parts) + "\n"


def comma_separated(tables: Sequence[Table], answer: Sequence[AnswerLine] = ()) -> str:
    """The answer and tables as CSV, an empty line between them, without their titles."""
    tables = [answer_table(answer), *tables] if answer else tables
    return "\n".join(_frame(table, for_csv).to_csv(index=False) for table in tables)


def _plain(table: Table) -> Table:
    return Table(plain(table.title), tuple(map(plain, table.head)), [tuple(map(plain, row)) for row in table.rows])


def _frame(table: Table, written: Callable[[str], str]) -> Any:
    import pandas as pd

    return pd.DataFrame([list(map(written, row)) for row in table.rows], columns=list(map(written, table.head)))


def _typeset(text: str) -> str:
    """Escaped, with ranges in words and minus signs before numbers."""
    ranges = re.sub(r"\((-?[\d.]+?)\.\.(-?[\d.]+)\)", r"(\1 to \2)", for_latex(text))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", ranges)
