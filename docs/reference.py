"""The reference, written from the code: command line, study file, records, verdicts, Python.

``python -m docs.reference FOLDER`` writes the pages; the site takes them from :func:`pages` (``docs/hooks.py``).
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

import tips_dist
from tips_dist import config, study_schema
from tips_dist.cli import app
from tips_dist.runfolder import choices, records
from tips_dist.runfolder.record import Record
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import agreement, risk, signals, verdicts

PACKAGE = Path(config.__file__).parent
# What Python users are invited to use: all names of the door, by where they live, and what those work with.
API = (
    *(path.replace(":", ".") if ":" in path else f"{path}.{name}" for name, path in sorted(tips_dist._HOMES.items())),
    "tips_dist.watch.Seen",
    "tips_dist.adapters.lightning.WatchCallback",
    "tips_dist.adapters.tune.VerdictStopper",
    "tips_dist.adapters.tune.RunFolderCallback",
    "tips_dist.trackers.Tracker",
    "tips_dist.study.run.start",
    "tips_dist.study.run.resume",
    "tips_dist.geometry.resolve_signs",
    "tips_dist.stability.signals.measure",
    "tips_dist.stability.risk.risk",
    "tips_dist.stability.risk.estimate",
    "tips_dist.stability.detectors.Judge",
    "tips_dist.stability.statistic.trial_risk",
)


def pages() -> dict[str, str]:
    """File of the site -> Markdown."""
    return {
        "reference/cli.md": cli(),
        "reference/configuration.md": configuration(),
        "reference/records.md": record_schemas(),
        "reference/verdicts.md": verdict_table(),
        "reference/signals.md": signal_tables(),
        "reference/modules.md": modules(),
        "reference/python.md": python(),
    }


def cli() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Command line",
        "",
        "Exit codes: 0 done, 1 failed, 2 bad input (one line says what and where), 130 interrupted (state saved).",
        "",
        "`tips-dist --install-completion` makes the Tab key complete commands and options in your shell",
        "(bash, zsh, fish, PowerShell); `tips-dist --show-completion` prints what that would add.",
        "",
    ]
    for words, command in _commands(typer.main.get_command(app), []):
        lines += [f"## `{' '.join(words)}`", "", inspect.cleandoc(command.help or ""), ""]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
        usage = [a.metavar or a.name.upper() for a in arguments]
        lines += ["```", " ".join([*words, *usage, *(["[OPTIONS]"] if options else [])]), "```", ""]
        rows = [(a.metavar or a.name.upper(), getattr(a, "help", "") or "", _default(a)) for a in arguments]
        rows += [(", ".join([*o.opts, *o.secondary_opts]), getattr(o, "help", "") or "", _default(o)) for o in options]
        lines += _table(("", "meaning", "default"), [(_code(name), _cell(text), value) for name, text, value in rows])
    return "\n".join(lines) + "\n"


def _commands(group: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    for name, command in group.commands.items():
        path = [*(words or ["tips-dist"]), name]
        if hasattr(command, "commands"):
            yield from _commands(command, path)
        elif not command.hidden:
            yield path, command


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = getattr(parameter.default, "value", parameter.default)  # of an enum
    if value is None or value is False or value == ():
        return ""
    return _code(str(value))


def configuration() -> str:
    """Every key of a study file with its type, default and meaning."""
    lines = [
        "# Study file",
        "",
        "Every key with its type, default and meaning. Unknown keys are refused with the nearest known one. An editor",
        "that knows YAML checks and completes a study file whose first line is",
        "`# yaml-language-server: $schema=study.schema.json`; `tips-dist init` writes both.",
        "",
    ]
    shown: dict[str, list[tuple[str, ...]]] = {}
    for key, owner, name in study_schema.knobs():
        section = key.rpartition(".")[0]
        meaning = study_schema.meanings()[owner.__name__].get(name, "")
        row = (_code(name), _cell(study_schema.type_of(owner, name)), _key_default(owner, name), _cell(meaning))
        shown.setdefault(section, []).append(row)
    classes = {key.rpartition(".")[0]: owner for key, owner, _ in study_schema.knobs()}
    for section in sorted(shown, key=lambda name: (name != "", list(shown).index(name))):
        lines += [f"## `{section}`" if section else "## Top of the file", ""]
        lines += [_cell((inspect.getdoc(classes[section]) or "").replace("\n\n", " ").replace("``", "`")), ""]
        lines += _table(("key", "type", "default", "meaning"), shown[section])
    lines += ["## Dimensions of `space`", "", "A key of `model`, `training` or `losses` and one of", ""]
    rows: list[tuple[str, ...]] = []
    for kind in get_args(config.Distribution):
        form = next(name for name in kind.model_fields if name != "only")
        value = study_schema.meanings()[kind.__name__][form]
        rows.append((_code(f"{form}: {value}"), _cell(inspect.getdoc(kind) or "")))
    lines += _table(("form", "draws"), rows)
    lines += ["and perhaps `only: [representations]`, which limits it to some of them.", ""]
    lines += ["## Representations", ""]
    rows = [
        (
            _code(r.name),
            ", ".join(f"{part.name} ({len(part.joints)})" for part in r.parts),
            "independent" if r.independent and len(r.parts) > 1 else "shared" if r.shared_blocks else "",
        )
        for r in REPRESENTATIONS.values()
    ]
    lines += _table(("name", "parts (joints)", "blocks"), rows)
    return "\n".join(lines) + "\n"


def _key_default(owner: type[Any], name: str) -> str:
    field = owner.model_fields[name]
    return "required" if field.is_required() else _code(json.dumps(field.get_default(), default=str))


def record_schemas() -> str:
    """The JSON Schema of every record of a run folder."""
    lines = [
        "# Records",
        "",
        "What a run folder holds, as `tips_dist/runfolder/records.py` and `choices.py` declare it. Records carry a",
        "schema number; older ones are migrated when they are read.",
        "",
        "```",
        inspect.cleandoc(records.__doc__ or "").partition("\n\n")[2].strip(),
        "```",
        "",
    ]
    homes = (records, choices)
    kinds = {name: kind for home in homes for name, kind in inspect.getmembers(home, inspect.isclass)}
    for name, kind in sorted(kinds.items()):
        if issubclass(kind, BaseModel) and issubclass(kind, Record) and kind.__module__ in {h.__name__ for h in homes}:
            schema = kind.model_json_schema()
            about = inspect.getdoc(kind) or ""
            lines += [f"## {name}", "", about.replace("``", "`"), "", _properties(schema)]
            lines += ['??? note "JSON Schema"', "", "    ```json"]
            lines += [f"    {line}" for line in json.dumps(schema, indent=1).splitlines()]
            lines += ["    ```", ""]
    return "\n".join(lines) + "\n"


def _properties(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows: list[tuple[str, ...]] = [
        (_code(key), _kind(value), "yes" if key in required else "")
        for key, value in schema.get("properties", {}).items()
    ]
    return "\n".join(_table(("key", "type", "required"), rows))


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(part) for part in value["anyOf"]))
    kind = str(value.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(value.get('items', {}))}"
    return kind


def verdict_table() -> str:
    """Every verdict, from the one table that the program asks."""
    rows: list[tuple[str, ...]] = [
        (
            _code(kind.name),
            kind.meaning,
            {"never": "no", "always": "always"}.get(kind.ends, f"if `stopping.{kind.ends}` is on"),
            "yes" if kind.sound else "no: counts as worse than any other",
            "not trusted" if kind.tainted else "",
        )
        for kind in verdicts.KINDS.values()
    ]
    heads = ("verdict", "meaning", "ends the seed", "its risk counts", "checkpoints after the onset")
    lines = ["# Verdicts", "", "The mildest first; a seed keeps the most severe. See [deciding](../deciding.md).", ""]
    return "\n".join([*lines, *_table(heads, rows)]) + "\n"


def signal_tables() -> str:
    """What is measured and how risk is made of it, in the words of the modules that do it."""
    lines = [
        "# Signals and risk",
        "",
        "In the code's own words; [deciding](../deciding.md) says what to do with them.",
        "",
    ]
    for head, module in (("Signals", signals), ("Agreement and mixing", agreement), ("Risk", risk)):
        lines += [f"## {head}", "", "```text", inspect.cleandoc(module.__doc__ or "").replace("``", "`"), "```", ""]
    return "\n".join(lines) + "\n"


def modules() -> str:
    """Every module, by the first sentence of its docstring."""
    lines = [
        "# Modules",
        "",
        "What each module is for, in its own words. [Architecture](../architecture.md) has the floors.",
        "",
    ]
    folders: dict[str, list[tuple[str, ...]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = about.partition("\n\n")[0].replace("``", "`")
        name = path.parent.relative_to(PACKAGE.parent).as_posix()
        folders.setdefault(name, []).append((_code(path.name), _cell(first)))
    for folder in sorted(folders):
        lines += [f"## `{folder}`", "", *_table(("module", "what it is for"), folders[folder])]
    return "\n".join(lines) + "\n"


def python() -> str:
    """Classes and functions, from their docstrings."""
    door = ", ".join(f"`{name}`" for name in tips_dist.__all__)
    lines = ["# Python", "", f"`import tips_dist as td` offers {door}.", ""]
    lines += ["What is documented here is meant to be used; the rest may change without notice.", ""]
    for name in API:
        lines += [f"::: {name}", ""]
    return "\n".join(lines) + "\n"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [heads, tuple("---" for _ in heads), *rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def main(folder: Path) -> None:
    """Write the pages below ``folder``."""
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
