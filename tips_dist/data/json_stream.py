"""Large JSON files element by element, in the memory of one element."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tips_dist.files import UserError, check_file

_CHUNK = 1 << 20
_SPACE = " \t\n\r"


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """Elements of the list that a file holds, each with the key "", or the pairs of the object that it holds.

    A list in such a pair comes element by element, each with the key.

    Raises:
        UserError: the file cannot be read or is not JSON; the message names the character.
    """
    check_file(path)
    try:
        with path.open("rb") as stream:
            reader = _Reader(path, stream)
            if reader.peek() == "{":
                yield from reader.pairs()
            else:
                yield from reader.elements("")
            if reader.peek():
                raise reader.error("something after the end")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid JSON (not UTF-8: {error.reason})") from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON (nested too deeply)") from None


class _Reader:
    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream = path, stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = json.JSONDecoder()
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    def error(self, what: str) -> UserError:
        return UserError(f"{self._path}: not valid JSON ({what} at character {self._before + self._at})")

    def peek(self) -> str:
        """The next character that is not a space, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def pairs(self) -> Iterator[tuple[str, Any]]:
        for _ in self._members("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise self.error("a key that is not a text")
            self._expect(":")
            if self.peek() == "[":
                yield from self.elements(key)
            else:
                yield key, self.value()

    def elements(self, key: str) -> Iterator[tuple[str, Any]]:
        for _ in self._members("[", "]"):
            yield key, self.value()

    def value(self) -> Any:
        """Decode one value, reading on for as long as it is cut off by the end of what was read."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                if end < len(self._text) or not self._more():  # a number may go on
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self.error(error.msg.lower()) from None
            except ValueError as error:  # integers of thousands of digits
                raise self.error(str(error)[:60]) from None

    def _members(self, opening: str, closing: str) -> Iterator[None]:
        self._expect(opening)
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self.peek() == closing:
                self._at += 1
                return
            self._expect(",")

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.error(f"expected '{character}'")
        self._at += 1

    def _more(self) -> bool:
        """Read on; what was consumed is let go."""
        if self._ended:
            return False
        data = self._stream.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not data
        self._before += self._at
        self._text = self._text[self._at :] + self._decode(data, final=not data)
        self._at = 0
        return True
