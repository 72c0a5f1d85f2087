"""The one way to a terminal: what came out of a file never commands it.

Names, reasons and errors travel from files of others (study files, data files, run folders, logs of jobs) to the
screen. A terminal obeys escape sequences in them: it may be made to hide a line, retitle its window or type. So every
control character but the line break is shown, not sent; the colours and cursor movements of rich, which are our own,
pass.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from tips_dist.escaping import plain

if TYPE_CHECKING:
    from rich.console import Console

PLAIN = str.maketrans("·✓✗×▶■…─━╌▁▂▃▄▅▆▇█", ".+xx>#.--.._-=+*%#")  # for our own signs; a ? for what is not known
LOCALES = ("LC_ALL", "LC_CTYPE", "LANG")  # the first that is set counts


def plain_where_needed(stream: io.TextIOWrapper) -> None:
    """Give a terminal that is not UTF-8 plain characters for what it does not know.

    In the locale C Python writes UTF-8 all the same (PEP 540), which is right for files and pipes; a terminal whose
    user asked for C gets ASCII.
    """
    locale = next((value for name in LOCALES if (value := os.environ.get(name))), "")
    told = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8")
    ascii_only = locale in ("C", "POSIX") and not told and stream.isatty()
    stream.reconfigure(encoding="ascii" if ascii_only else None, errors="tips_dist.plain")


def _plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end].translate(PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in found), error.end


codecs.register_error("tips_dist.plain", _plain_characters)


def clean(text: str) -> str:
    r"""``text`` with everything that a terminal would obey written out: ``\x1b`` instead of the escape."""
    return text if text.isprintable() else plain(text, lines=True)


def notice(line: str) -> None:
    """Say something beside what was asked for: a line on standard error."""
    print(clean(line), file=sys.stderr, flush=True)


class CleanStream:
    """A text stream that cleans what is written to it; in everything else it is the stream behind it."""

    def __init__(self, stream: TextIO) -> None:
        self.behind = stream

    def write(self, text: str) -> int:
        """Write the cleaned text; the length is that of the text given, as writers expect."""
        self.behind.write(clean(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write every line, cleaned."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """Let everything that is printed in the body pass :func:`clean`, whoever prints it."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", CleanStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(*, stderr: bool = False) -> Console:
    """A rich console for standard output, or for progress on standard error, that takes text as text.

    Square brackets are no markup and control characters are shown; only rich itself colours and moves.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class CleanConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(clean(segment.text), segment.style)

    stream = sys.stderr if stderr else sys.stdout
    behind = stream.behind if isinstance(stream, CleanStream) else None  # None: whatever it is when something is shown
    return CleanConsole(file=behind, stderr=stderr, markup=False, emoji=False)
