"""A study from Python: objects in, a run folder out; in a notebook, a table that grows while it runs."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import yaml

from tips_dist.config import Study
from tips_dist.phases import listening
from tips_dist.report.live import LiveView
from tips_dist.report.summary import write_summary
from tips_dist.runfolder import RunFolder
from tips_dist.study import run as studies
from tips_dist.study import space
from tips_dist.study.records import StudyEvent

_PAGE = '<pre style="font-family:monospace;line-height:1.2;white-space:pre">{code}</pre>'
WIDTH = 100  # letters of a notebook's cell


def run_study(
    study: Study,
    *,
    runs: Path | str = "runs",
    base: Path | str = ".",
    address: str | None = None,
    progress: Callable[[StudyEvent], None] | None = None,
    track: Sequence[str] = (),
) -> RunFolder:
    """Run a study to its end: train, judge, stop, select, distil, summarise; as ``tips-dist run`` does on its file.

    In a notebook the table of ``tips-dist run`` is shown below the cell while it runs.

    Args:
        study: what to study; ``load_study`` reads one from a file.
        runs: where the run folder is made.
        base: what a relative ``data.poses`` is relative to.
        address: of a Ray cluster; None works on this machine.
        progress: hears of every event.
        track: trackers to copy curves, verdicts and the summary to, by their registered names.

    Raises:
        UserError: the study names what is not registered, its data is unusable, or it fits on no node.
        StorageError: the disk is full or not writable.
        StudyInterrupted: Ctrl-C; ``tips-dist resume`` goes on.
    """
    text = yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    trials = space.budgets(study)
    with _view(trials) as view:

        def hear(event: StudyEvent) -> None:
            if view is not None:
                view(event)
            if progress is not None:
                progress(event)

        run = studies.start(
            study,
            study_path=Path(base) / f"{study.name}.yaml",
            text=text,
            runs=Path(runs),
            address=address,
            progress=hear,
            track=track,
        )
        write_summary(run)
    return RunFolder(run)


def in_notebook() -> bool:
    """Whether there is a notebook to show something in."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


@contextlib.contextmanager
def _view(trials: int) -> Iterator[LiveView | None]:
    if not in_notebook():
        yield None
        return
    with NotebookView(trials) as view, listening(view.phase):
        yield view


class NotebookView(LiveView):
    """The live table as HTML, redrawn in place below the cell."""

    def __init__(self, trials: int) -> None:
        from rich.console import Console

        screen = Console(file=io.StringIO(), width=WIDTH, height=40, color_system="truecolor", force_jupyter=False)
        super().__init__(screen, trials)

    def __enter__(self) -> Self:
        super().__enter__()
        self._live = cast("Any", _Cell(self))
        return self

    def html(self) -> str:
        """What is shown now."""
        from rich.console import Console

        page = Console(file=io.StringIO(), width=WIDTH, record=True, color_system="truecolor", force_jupyter=False)
        page.print(self.render())
        return page.export_html(inline_styles=True, code_format=_PAGE)


class _Cell:
    """Stands in for rich's Live: one output of a notebook's cell."""

    def __init__(self, view: NotebookView) -> None:
        from IPython import display

        typed: Any = display
        self._html, self._view = typed.HTML, view
        self._handle = typed.display(self._html(view.html()), display_id=True)

    def refresh(self) -> None:
        """Redraw."""
        self._handle.update(self._html(self._view.html()))

    def stop(self) -> None:
        """Show the last state."""
        self.refresh()
