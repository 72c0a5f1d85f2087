"""Groups of knobs: how one is declared, checked with errors in one line, told by its digest, and read from a record."""

from __future__ import annotations

import functools
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tips_dist.addresses import without_secrets
from tips_dist.files import UserError, shown
from tips_dist.registry import nearest


@dataclass(frozen=True)
class Before:
    """Declares what runs did that do not know a key, where that is not its default: ``Annotated[float, Before(0.0)]``.

    A record that lacks the key is read with this value, so that a new knob, or a new default, changes no old run.
    """

    value: Any


class Section(BaseModel):
    """A group of knobs: immutable, strictly typed, and without room for unknown keys.

    One that was read from a record (:func:`recorded`) has a value for every knob, and ``model_fields_set`` says which
    of them the record knew: the others did not exist when it was made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@functools.cache  # asked for thousands of times where a large run is read
def before(section: type[Section]) -> Mapping[str, object]:
    """The knobs of a section that declare :class:`Before`, with what runs did that do not know them."""
    return {
        name: mark.value
        for name, field in section.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Before)
    }


def set_dotted(values: dict[str, object], key: str, value: object) -> None:
    """Set ``values["a"]["b"]`` for the dotted key ``a.b``, making sections as needed."""
    *sections, last = key.split(".")
    if len(sections) > 8:
        raise UserError(f"{shown(key)}: no section is that deep")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"{key}: '{section}' is not a section")
        values = inner
    values[last] = value


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value`` (a section or plain data): equal values, equal digest."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


SectionT = typing.TypeVar("SectionT", bound=Section)


def complete(section: SectionT) -> SectionT:
    """The same section with every knob set, so that a record of it knows all that exist today."""
    return type(section).model_validate_json(section.model_dump_json())


def recorded(section: type[SectionT], values: Any) -> SectionT:
    """Check the values that a record holds; knobs it does not know get what runs did before them (:class:`Before`).

    Raises:
        ValidationError: a value is wrong, or a key is unknown to this version.
    """
    if not isinstance(values, dict):
        return section.model_validate(values)
    filled = _filled(section, values)
    found = section.model_validate_json(json.dumps(filled))
    _forget(found, values)
    return found


def with_unset(study: SectionT, own: SectionT, recorded: SectionT) -> SectionT:
    """``study`` with the recorded value of every knob that neither ``study`` nor ``own`` sets."""
    unset = set(type(study).model_fields) - study.model_fields_set - own.model_fields_set
    changes: dict[str, object] = {name: getattr(recorded, name) for name in unset}
    for name in _inner(type(study)):
        changes[name] = with_unset(getattr(study, name), getattr(own, name), getattr(recorded, name))
    return study.model_copy(update=changes)


def _filled(section: type[Section], values: Mapping[str, object]) -> dict[str, object]:
    result = {**before(section), **values}
    for name, inner in _inner(section).items():
        value = result.get(name, {})
        if isinstance(value, dict):
            result[name] = _filled(inner, value)
    return result


def _forget(section: Section, values: Mapping[str, Any]) -> None:
    """Leave in ``model_fields_set`` only what stands in ``values``."""
    section.__pydantic_fields_set__.intersection_update(values)
    for name in _inner(type(section)):
        inner = getattr(section, name)
        _forget(inner, values.get(name, {}))


@functools.cache
def _inner(section: type[Section]) -> Mapping[str, type[Section]]:
    """The fields that are sections with a default."""
    return {n: type(f.default) for n, f in section.model_fields.items() if isinstance(f.default, Section)}


def validate(section: type[SectionT], values: Any, where: str) -> SectionT:
    """Check plain ``values`` against ``section``.

    Raises:
        UserError: one line that names the key, what was wrong and the nearest known key.
    """
    try:
        # Round trip through JSON so that strict mode takes YAML's lists where a tuple is declared.
        return section.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise UserError(f"{where}: {shown(without_secrets(_explain(section, error)), 600)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {shown(without_secrets(str(error)), 600)}") from None


_FORMS = ("uniform", "log_uniform", "int", "choice")


def _explain(section: type[Section], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    names = {"Uniform", "LogUniform", "Integer", "Choice"}
    location = [str(item) for item in first["loc"] if str(item) not in names]
    key = ".".join(location)
    if location and location[0] == "space" and len(location) > 1:
        key = f"space.{location[1]}"
        for found in error.errors(include_url=False):  # what is wrong with the form that was meant, not with the others
            form = next((str(item) for item in found["loc"] if str(item) in _FORMS), None)
            if form is not None and found["loc"][:2] == first["loc"][:2] and found["type"] != "missing":
                if form == "log_uniform" and found["type"] == "greater_than":
                    return f"{key}.log_uniform: a logarithm needs ends above 0, got {found.get('input')!r:.60}"
                if found["type"] != "extra_forbidden":
                    return f"{key}.{form}: {_said(found)}"
        forms = "{uniform: [low, high]}, {log_uniform: [low, high]}, {int: [low, high]}, {choice: [...]}"
        return f"{key}: expected one of {forms}"
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(location[-1], _known_keys(section, location[:-1]))}"
    if first["type"] == "missing":
        return f"{key}: this key is required"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return message if not key else f"{key}: {message}"
    return f"{key}: {_said(first)}" if key else _said(first)


def _said(error: Mapping[str, Any]) -> str:
    message = str(error["msg"])
    return f"{message[0].lower()}{message[1:]}, got {shown(repr(error.get('input')), 80)}"


def _known_keys(section: type[Section], location: list[str]) -> list[str]:
    for name in location:
        field = section.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return []
        section = field.annotation
    return list(section.model_fields)
