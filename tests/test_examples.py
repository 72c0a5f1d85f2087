"""The examples run: the foreign loop and its watch, the notebook (the plug-in: tests/contract; Tune: tests/study)."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_watch_stops_a_foreign_loop_that_diverges_and_keeps_what_was_before(tmp_path: Path) -> None:
    loop = runpy.run_path(str(EXAMPLES / "foreign_loop.py"))
    run = loop["main"](tmp_path / "run", steps=1000, every=50, diverge_at=300)
    (trial,) = run.trials
    (ended,) = trial.seed_outcomes
    assert ended.verdict in ("diverged", "collapsed", "non_finite")
    assert 300 < ended.stopped_step < 1000
    assert ended.best_step <= 300
    assert list((tmp_path / "run").glob(f"trials/*/kept/step-{ended.best_step:09d}"))


@pytest.mark.chaos  # a kernel with a Ray of its own
def test_the_notebook_runs_from_start_to_student_and_shows_its_progress(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "commit it without outputs"
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    said = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    (table,) = [html for html in said if html.startswith("<pre")]
    assert "2/2 trials" in table
    assert "(" in book.cells[-2].outputs[0].data["text/plain"]
    assert list(tmp_path.glob("runs/notebook-*/student/student.safetensors"))
    assert list(tmp_path.glob("runs/notebook-*/summary.json"))
