"""Texts from outside are shown as they are and do nothing, in every format."""

from __future__ import annotations

import csv
import html
import io
import re

import markdown
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tips_dist.escaping import for_csv, for_latex, for_markdown, for_plotly, plain

HOSTILE = [
    "FileNotFoundError: [Errno 2] No such file or directory: '[/data/x]'",
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    "[bold red]x[/bold red] [link=https://example.invalid]y[/link]",
    "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe",
    "<script>alert(1)</script><img src=x onerror=alert(1)> &lt; &amp; &#65;",
    "**bold** _em_ `code` [a](https://example.invalid) ![i](x) ~~gone~~ $x^2$ https://example.invalid @everyone",
    r"C:\new\table \input{/etc/passwd} \\ a_b^c {x} 100 % & # ~ $",
    '=HYPERLINK("https://example.invalid","x")',
    "@SUM(1)", "+1+1", "-2+3", "| a | b |", "# heading", "- item", "1. item", "half \ud800 character",
    "a\nb\r\nc\td", "%{x} <b>y</b> <br>",
]  # fmt: skip
hostile = pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
anything = st.text(st.characters(codec=None), max_size=40)


@given(anything)
def test_a_terminal_gets_nothing_that_it_obeys(text: str) -> None:
    found = plain(text)
    assert found.isprintable()
    found.encode()
    assert plain(found) == found


def test_what_is_printable_stays() -> None:
    assert plain("Größe 体 🙂 a\\b") == "Größe 体 🙂 a\\b"
    assert plain("a\x1b[31mb") == r"a\x1b[31mb"
    assert plain("a\nb", lines=True) == "a\nb"


def words(rendered: str) -> str:
    return " ".join(html.unescape(re.sub(r"</?(p|table|thead|tbody|tr|th|td|li|ul)\b[^>]*>", " ", rendered)).split())


@hostile
def test_markdown_shows_it_as_it_is(text: str) -> None:
    """In a cell and in a list, as CommonMark (GitHub) and Python-Markdown (TensorBoard) read it."""
    github = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    cell, item = f"| a |\n| --- |\n| {for_markdown(text)} |\n", f"- x\n- {for_markdown(text)}\n"
    shown = " ".join(plain(text).split())
    for render in (github.render, lambda source: markdown.markdown(source, extensions=["tables"])):
        assert words(render(cell)) == f"a {shown}"
        assert words(render(item)) == f"x {shown}"


@hostile
def test_latex_has_no_command_that_we_did_not_write(text: str) -> None:
    found = for_latex(text)
    commands = set(re.findall(r"\\([a-zA-Z]+|.)", found))
    assert commands <= {*"#$%&_{}", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater",
                        "textbar", "textquotedbl", "textasciigrave"}  # fmt: skip
    assert found.count("{") - found.count(r"\{") == found.count("}") - found.count(r"\}")
    assert for_latex(r"a\b") == r"a\textbackslash{}b"


@hostile
def test_csv_cells_are_no_formulas(text: str) -> None:
    written = io.StringIO()
    csv.writer(written).writerow([for_csv(text)])
    ((cell,),) = csv.reader([written.getvalue()])
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'") == plain(text)


def test_numbers_stay_numbers_in_csv() -> None:
    assert [for_csv(text) for text in ("-1.5", "+2", "-3e-4", "0.1")] == ["-1.5", "+2", "-3e-4", "0.1"]


@hostile
def test_plotly_sees_no_tags(text: str) -> None:
    assert "<" not in for_plotly(text)
    assert html.unescape(for_plotly(text)) == plain(text)
