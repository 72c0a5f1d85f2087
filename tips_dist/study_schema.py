"""What every knob means, and the JSON Schema of study files, both from :mod:`tips_dist.config` as it is written.

The comment that ends a knob's line there is its meaning. Editors that know YAML check and complete a study file by the
schema where its first line names it: ``# yaml-language-server: $schema=study.schema.json``. ``python -m
tips_dist.study_schema`` prints it; ``studies/study.schema.json`` is a copy.
"""

from __future__ import annotations

import ast
import functools
import inspect
import io
import json
import tokenize
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from tips_dist import config
from tips_dist.registry import entries
from tips_dist.sections import Section
from tips_dist.skeleton import REPRESENTATIONS

FILE = "study.schema.json"
SEARCHED = ("model", "training", "losses")  # sections whose keys a search space may name


@functools.cache
def meanings() -> dict[str, dict[str, str]]:
    """Class of :mod:`tips_dist.config` -> knob -> what the comment at the end of its line says."""
    source = inspect.getsource(config)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    return {
        node.name: {
            line.target.id: comments[line.end_lineno or 0]
            for line in node.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.end_lineno in comments
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def knobs(section: type[Section] = config.Study, prefix: str = "") -> Iterator[tuple[str, type[Any], str]]:
    """Every knob of a section and of those inside it: dotted key, the class that declares it, its name there."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from knobs(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", section, name


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a study file, with the meaning of every knob as its description."""
    found = config.Study.model_json_schema()
    definitions = found["$defs"]
    for name, known in meanings().items():
        properties = definitions.get(name, found if name == "Study" else {}).get("properties", {})
        for key, meaning in known.items():
            if key in properties:
                properties[key]["description"] = meaning
    properties = found["properties"]
    # Plug-ins may add to both lists: they complete, and refuse nothing.
    properties["representations"]["items"] = {"anyOf": [{"enum": list(REPRESENTATIONS)}, {"type": "string"}]}
    samplers = found["$defs"]["Search"]["properties"]["sampler"]
    samplers["anyOf"] = [{"enum": [one.name for one in entries("samplers")]}, {"type": samplers.pop("type")}]
    space = properties["space"]
    space["properties"] = {
        key: {"description": meanings()[owner.__name__][name], **space["additionalProperties"]}
        for key, owner, name in knobs()
        if key.split(".")[0] in SEARCHED
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def schema_text() -> str:
    """The schema as it stands in a file."""
    return json.dumps(schema(), indent=2) + "\n"


def type_of(owner: type[Any], name: str) -> str:
    """The type of a knob in a few words, with its bounds: ``float, at least 0, below 1``."""
    whole = _plain_schema()
    own = whole["$defs"].get(owner.__name__, whole)
    return _words(own["properties"][name], whole["$defs"])


@functools.cache
def _plain_schema() -> dict[str, Any]:
    return config.Study.model_json_schema()


_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
_TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "null"}


def _words(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return _words(definitions[value["$ref"].split("/")[-1]], definitions)
    if "enum" in value or "const" in value:
        return ", ".join(f"`{item}`" for item in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(_words(part, definitions) for part in value["anyOf"])
    kind = typing.cast(str, value.get("type", "any"))
    if kind == "array":
        return f"list of {_words(value.get('items', {}), definitions)}"
    if kind == "object":
        return "mapping"
    limits = [form.format(_number(value[key])) for key, form in _BOUNDS.items() if key in value]
    return ", ".join([_TYPES.get(kind, kind), *limits])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


if __name__ == "__main__":
    print(schema_text(), end="")
