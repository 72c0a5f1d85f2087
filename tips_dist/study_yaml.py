"""YAML as study files are written in: numbers like 1e-4 are numbers, ``off`` and dates are text, a key may stand once.

The file may come from anybody, so what it can make of a reader is bounded: its size, how deep it nests and how much
its aliases unfold to.
"""

from __future__ import annotations

import re
import typing
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from tips_dist.files import UserError

MOST_CHARACTERS = 2**20
MOST_NODES = 20_000  # keys and values, aliases unfolded
MOST_DEPTH = 40
_TAG = "tag:yaml.org,2002:"
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")  # what a study file is made of
_PATTERNS = {
    # YAML 1.1 also reads on, off, yes and no as booleans, 1:30 as ninety and 2026-11-25 as a date; here they are text.
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7]+|[0-9][0-9_]*)", "-+0123456789"),
    # YAML 1.1 reads 1e-4 as text, for want of a point.
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader of few kinds and bounded size that refuses duplicate keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._count = 0
        self._extent: dict[int, tuple[int, int]] = {}  # id of a node -> (nodes, levels) below it, itself included

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        self._count += 1
        if self._count > MOST_NODES:
            raise ConstructorError(None, None, f"more than {MOST_NODES} values", mark)
        if self._depth > MOST_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MOST_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not alias:
            inner = self._inner(node)
            self._extent[id(node)] = (1 + sum(n for n, _ in inner), 1 + max((d for _, d in inner), default=0))
        elif node is not None and id(node) not in self._extent:
            raise ConstructorError(None, None, "an alias stands inside of what it names", mark)
        nodes, levels = self._extent.get(id(node), (1, 1))
        if nodes > MOST_NODES:
            raise ConstructorError(None, None, f"unfolds to more than {MOST_NODES} values", mark)
        if self._depth + levels > MOST_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MOST_DEPTH} levels", mark)
        return node

    def _inner(self, node: yaml.Node) -> list[tuple[int, int]]:
        if isinstance(node, yaml.MappingNode):
            return [self._extent[id(part)] for pair in node.value for part in pair]
        if isinstance(node, yaml.SequenceNode):
            return [self._extent[id(part)] for part in node.value]
        return []

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in _KINDS:
            raise ConstructorError(None, None, f"the tag {node.tag!r:.60} is not for study files", node.start_mark)
        shape = {"map": yaml.MappingNode, "seq": yaml.SequenceNode}.get(kind, yaml.ScalarNode)
        if not isinstance(node, shape):
            raise ConstructorError(None, None, f"{_shown(node)} is not of kind {kind}", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, OverflowError, LookupError):
            raise ConstructorError(None, None, f"{_shown(node)} is not of kind {kind}", node.start_mark) from None

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0" and digits[1] in "0123456789_":
            hint = digits.lstrip("0_") or "0"
            raise ConstructorError(
                None,
                None,
                f"{_shown(node)}: octal for some programs, decimal for others; write {hint}",
                node.start_mark,
            )
        if len(digits) > 30:
            raise ConstructorError(None, None, f"a number of {len(digits)} digits", node.start_mark)
        return int(text.replace("_", ""), 0)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[typing.Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            key = str(self.construct_object(key_node))
            if key in seen:
                raise ConstructorError(None, None, f"the key '{key}' stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _PATTERNS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(_TAG + "int", _Loader.construct_yaml_int)


def _shown(node: yaml.Node) -> str:
    return f"{node.value!r:.60}" if isinstance(node, yaml.ScalarNode) else "this"


def load_yaml(text: str, where: str) -> Any:
    """Plain data from YAML text: mappings, lists, texts, numbers, booleans and null.

    Raises:
        UserError: it is not YAML, or more than a study file may be; the message names ``where`` and the line.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{where}: more than {MOST_CHARACTERS} characters; this is no study file")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain data only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}:{at} not valid YAML ({problem:.300})") from None
