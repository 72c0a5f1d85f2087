"""What every record on disk has in common: a schema number, a migration from the one before, errors in one line.

A record is a JSON object with the key ``schema``. Reading checks the number, migrates an older one step by step, and
validates types strictly. Unknown keys are ignored, so that a field may be added without a new number; a field whose
meaning changes, or that goes, takes a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, JsonValue, PlainSerializer, ValidationError
from pydantic_core import core_schema

from tips_dist.files import UserError, check_file, shown, write_json
from tips_dist.sections import Section, complete, recorded

Json = dict[str, JsonValue]  # a JSON object that is none of ours yet: read, not yet migrated and checked
Migration = Callable[[Json], Json]


class NewerVersionError(UserError):
    """A record was made by a newer version of tips-dist."""


class Part(BaseModel):
    """A piece of a record: immutable, strictly typed, silent about keys it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Record(Part):
    """A file of a run folder; see :mod:`tips_dist.runfolder.layout` for where each lies."""

    SCHEMA: ClassVar[int] = 1
    NUMBER: ClassVar[str] = "schema"  # the key of the schema number
    NUMBERED: ClassVar[bool] = True  # False: the first version wrote no number
    MIGRATIONS: ClassVar[Mapping[int, Migration]] = {}  # from that schema to the next

    def plain(self) -> dict[str, JsonValue]:
        """The record as JSON values, schema number included."""
        return {self.NUMBER: self.SCHEMA, **self.model_dump(mode="json")}

    def save(self, path: Path) -> Self:
        """Write the record atomically and return it.

        Raises:
            StorageError: the disk is full or not writable; the old file is untouched.
        """
        write_json(path, self.plain())
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read, migrate and check a record.

        Raises:
            UserError: the file is missing, is not JSON, is nested too deep, is of an unknown or newer schema, or a
                field is missing or mistyped; one line that names file and field.
        """
        check_file(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes | str, where: str) -> Self:
        """Check the text of a record; ``where`` names it in errors (see :meth:`load`)."""
        found = json_object(content, where)
        number = found.get(cls.NUMBER, None if cls.NUMBERED else 1)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            said = "missing" if cls.NUMBER not in found else f"{number!r}"
            raise UserError(f"{where}: {cls.NUMBER}: {said}; expected a number from 1 to {cls.SCHEMA}")
        if number > cls.SCHEMA:
            raise NewerVersionError(
                f"{where}: made by a newer version of tips-dist ({cls.NUMBER} {number}; this one reads up to "
                f"{cls.SCHEMA}); use that version, or a newer one"
            )
        if number < cls.SCHEMA:
            for step in range(number, cls.SCHEMA):
                try:
                    found = cls.MIGRATIONS[step](found)
                except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                    raise UserError(f"{where}: not a record of {cls.NUMBER} {number} ({_said(error)})") from None
            content = pydantic_core.to_json(found)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error)}") from None


def json_object(content: bytes | str, where: str) -> Json:
    """Parse a JSON object.

    Raises:
        UserError: it is not JSON (truncated, empty, nested too deep), or not an object.
    """
    try:
        found = pydantic_core.from_json(content, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({_said(error)})") from None
    if not isinstance(found, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(found).__name__}")
    return found


def explain(error: ValidationError) -> str:
    """The first problem of a validation in one line: field, what was wrong, what would be right."""
    first = error.errors(include_url=False)[0]
    field = shown(".".join(str(item) for item in first["loc"]), 100) or "the record"
    if first["type"] == "missing":
        return f"{field}: this field is missing"
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown to this version of tips-dist (made by a newer one, or edited?)"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message if not first["loc"] else f"{field}: {message}"
    found = repr(first.get("input"))
    found = found if len(found) <= 60 else f"{found[:57]}…"
    return " ".join(f"{field}: {message[0].lower()}{message[1:]}, found {found}".split())


def _said(error: Exception) -> str:
    text = shown(error)
    return f"no {text}" if isinstance(error, KeyError) else text


class _AsRecorded:
    """Reads a section as its record knew it, and completes one that is put into a record."""

    def __get_pydantic_core_schema__(self, source: type[Section], handler: GetCoreSchemaHandler) -> Any:
        def section(value: object) -> Section:
            return complete(value) if isinstance(value, Section) else recorded(source, value)

        return core_schema.no_info_before_validator_function(section, handler(source))


SectionT = TypeVar("SectionT", bound=Section)
Recorded = Annotated[
    SectionT,
    _AsRecorded(),
    PlainSerializer(lambda value: value.model_dump(mode="json", exclude_unset=True)),
]
"""A group of knobs as a record keeps it: every value is written down when the record is made; a key that came later is
read as what runs did before it, and is not added (:func:`tips_dist.sections.recorded`)."""
