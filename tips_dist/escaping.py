"""Texts from outside (names, actions, errors of libraries), so that each format shows them as they are.

One function per format. A text that went through it does nothing there: no escape sequence reaches a terminal, no
markup, link, formula or script comes to life. HTML is escaped by its templates; rich gets plain text, never markup.
"""

from __future__ import annotations

import html
import re
import unicodedata

_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "#$%&_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "`": r"\textasciigrave{}",
        "[": "{[}",
        "]": "{]}",  # a row that starts with [ would be an argument of \\
    }
)
_FORMULA = ("=", "+", "-", "@")


def plain(text: object, *, lines: bool = False) -> str:
    """The text without anything that a terminal obeys: control characters and direction marks are spelled out.

    Line ends and tabs become spaces, unless ``lines``: then they stay. Half characters, which no encoding takes, are
    spelled out too.
    """
    kept = "\n\t" if lines else ""
    return "".join(sign if sign.isprintable() or sign in kept else _spelled(sign) for sign in str(text))


def _spelled(sign: str) -> str:
    if sign in "\n\r\t\v\f\x85\u2028\u2029" or unicodedata.category(sign) == "Zs":
        return " "
    return sign.encode("unicode_escape").decode()


def for_markdown(text: object) -> str:
    """For a line or a table cell of Markdown, as GitHub and TensorBoard read it."""
    found = html.escape(plain(text), quote=False)
    found = re.sub(r"[\\`*{}\[\]#!]", r"\\\g<0>", found)
    found = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", found)  # within a word it is only itself
    found = re.sub(r"[|~$]|:(?=//)|(?<!\w)@(?=\w)", lambda sign: f"&#{ord(sign[0])};", found)
    return re.sub(r"^([-+]|\d+(?=[.)]))(?=[.)]?\s)", lambda sign: _start(sign[0]), found)


def _start(sign: str) -> str:
    """The start of what would become a list, as characters."""
    return f"&#{ord(sign[0])};{sign[1:]}"


def for_latex(text: object) -> str:
    """For LaTeX, in text or in a table cell."""
    return plain(text).translate(_LATEX)


def for_csv(text: object) -> str:
    """For a cell of a spreadsheet: what would be read as a formula gets the mark of a text before it."""
    found = plain(text)
    if not found.lstrip().startswith(_FORMULA) or _is_number(found):
        return found
    return f"'{found}"


def for_plotly(text: object) -> str:
    """For titles, names and hover texts of plotly, which understands some HTML."""
    return html.escape(plain(text), quote=False)


def for_matplotlib(text: object) -> str:
    """For labels of matplotlib, which sets what stands between dollars as mathematics."""
    return plain(text).replace("$", r"\$")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
