"""A study from Python, and what a notebook shows of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tips_dist import notebook
from tips_dist.study.records import StudyEvent


def test_the_table_is_html_and_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    def show(html: Any, display_id: bool) -> Any:
        shown.append(html.data)
        return SimpleNamespace(update=lambda html: shown.append(html.data))

    monkeypatch.setattr(display, "display", show)
    with notebook.NotebookView(2) as view:
        view(StudyEvent("solo-000", "solo", "running", step=50, steps=100, risk=40.0, verdicts={"healthy": 2}))
        view(StudyEvent("<solo>", "solo", "finished", step=100, steps=100, risk=30.0, verdicts={"diverged": 2}))
    assert len(shown) >= 2
    assert "solo-000" in shown[-1]
    assert "50/100" in shown[-1]
    assert "&lt;solo&gt;" in shown[-1]
    assert "1/2 trials" in shown[-1]
    assert shown[-1].startswith("<pre style")


def test_elsewhere_nothing_is_shown() -> None:
    assert not notebook.in_notebook()
