"""Nothing that stands in a file commands a terminal."""

import io
import sys

import pytest
from rich.table import Table

from tips_dist.report.live import _BARS
from tips_dist.report.style import STATE_SIGN
from tips_dist.terminal import CleanStream, clean, cleaned, console, plain_where_needed

HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\rd\x9be\u202ef\ud800"


def test_commands_are_written_out() -> None:
    assert clean("plain\n\tTäxt") == "plain\n\tTäxt"
    assert clean(HOSTILE) == r"a\x1b[2Jb\x1b]0;title\x07c d\x9be\u202ef\ud800"
    assert clean(HOSTILE).encode()


def test_everything_printed_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with cleaned():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        sys.stdout.writelines([HOSTILE])
        assert sys.stdout.isatty() == before.isatty()
    assert sys.stdout is before
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"\x1b[2J" in said.out
    assert r"\x1b[2J" in said.err


def test_a_console_colours_but_never_lets_text_through(capsys: pytest.CaptureFixture[str]) -> None:
    screen = console()
    table = Table("[bold]column", title=HOSTILE)
    table.add_row(f"[/data/x] {HOSTILE}")
    screen.print(table)
    screen.print(f"[red]{HOSTILE}")
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[bold]column" in said
    assert "[/data/x]" in said
    assert r"[red]a\x1b[2Jb" in said


def test_a_console_on_a_cleaned_stream_still_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = io.StringIO()
    monkeypatch.setattr(sys, "stdout", CleanStream(behind))
    screen = console()
    assert screen.file is behind


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("locale", "behind", "expected"),
    [("C", Terminal(), b"100 % - + ?"), ("C", io.BytesIO(), None), ("de_DE.UTF-8", Terminal(), None)],
)
def test_a_terminal_in_the_locale_c_gets_plain_characters(
    locale: str, behind: io.BytesIO, expected: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    monkeypatch.delenv("PYTHONUTF8", raising=False)
    monkeypatch.setenv("LC_ALL", locale)
    stream, text = io.TextIOWrapper(behind, encoding="utf-8"), "100 % ─ ✓ ä"
    plain_where_needed(stream)
    stream.write(text)
    stream.flush()
    assert behind.getvalue() == (expected or text.encode())  # pipes and files stay UTF-8


def test_every_sign_of_our_own_has_a_plain_one() -> None:
    stream = io.TextIOWrapper(behind := io.BytesIO(), encoding="ascii")
    plain_where_needed(stream)
    stream.write("".join(STATE_SIGN.values()) + _BARS + "━╌─…")
    stream.flush()
    assert b"?" not in behind.getvalue()
