"""Printing for people and for scripts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from tips_dist.escaping import plain
from tips_dist.phases import listening, phase
from tips_dist.terminal import console as console

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Commands(TyperGroup):
    """A group whose help says in full what each command does; typer's own cuts it to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, wrapped where it is long."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(limit=10_000)) for name, c in commands if not c.hidden])


def say(text: object, *, stderr: bool = False) -> None:
    """Print a line for a person at once; nothing in it, wherever it is from, is obeyed by the terminal."""
    print(plain(text), file=sys.stderr if stderr else sys.stdout, flush=True)


@contextlib.contextmanager
def showing(name: str, run: Path | None = None) -> Iterator[None]:
    """Show the phases of the body while it works: bars in a terminal, elsewhere a line every few seconds.

    With ``run`` its ``status`` tells of them too.
    """
    from tips_dist.report.live import Bars

    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(stack.enter_context(Bars(console(stderr=True)))))
        if run is not None:
            from tips_dist.study.status import PhaseNote

            stack.enter_context(listening(PhaseNote(run)))
        stack.enter_context(phase(name))
        yield


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def print_found(answer: DataclassInstance | Mapping[str, object], *, as_json: bool) -> None:
    """Print what a command found out, for a script or for a person; what does not apply (None) is left out."""
    if not isinstance(answer, Mapping):
        answer = {name: value for name, value in dataclasses.asdict(answer).items() if value is not None}
    print_json(answer) if as_json else print_record(answer)


def print_record(value: Mapping[str, object], indent: str = "") -> None:
    """Print nested plain data as indented "key: value" lines; a flat record takes one line."""
    for key, item in value.items():
        if isinstance(item, dict) and any(isinstance(cell, dict) for cell in item.values()):
            say(f"{indent}{key}:")
            print_record(item, indent + "  ")
        elif isinstance(item, dict) and item:
            say(f"{indent}{key}: " + ", ".join(f"{name} {_plain(cell)}" for name, cell in item.items()))
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            say(f"{indent}{key}:")
            for row in item:
                say(f"{indent}  - " + ", ".join(f"{name} {_plain(cell)}" for name, cell in row.items()))
        else:
            say(f"{indent}{key}: {_plain(item)}")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if value is None or value == {}:
        return "none"
    return str(value)
