"""Trackers that people already have: a copy of curves, verdicts and the summary in MLflow or Weights & Biases.

A tracker reads a run folder from the driver and decides nothing: training does not wait for it, workers know nothing of
it, and one that fails is said once and left alone. ``tips-dist run --track mlflow`` copies while the study runs,
``tips-dist track RUN --to mlflow`` whenever you like, a watched or imported run too. Where a tracker keeps its runs is
its own library's business (``MLFLOW_TRACKING_URI``, ``WANDB_MODE``, ``WANDB_DIR`` …): no address and no key stands in a
study file.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tips_dist import terminal
from tips_dist.files import UserError, read_json, shown
from tips_dist.registry import built_in, entry, register
from tips_dist.runfolder import HistoryRow, RunFolder, StudyRecord, Trial, layout

EVERY_SECONDS = 10.0
Notice = Callable[[str], None]


class Tracker(Protocol):
    """What is registered under ``trackers``: a class that is made with a run's record and its folder.

    Every method may raise what it likes: the tracker is then left alone.
    """

    def begin(self, trial: Trial) -> int:
        """Open a trial, or go on with it: the last step of it that is there already, 0 for none."""
        ...

    def scalars(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """Take all numbers of one step: ``seed0/risk/total`` and so on; steps come in order."""
        ...

    def verdict(self, trial: Trial, seed: int, step: int, kind: str, reason: str) -> None:
        """Take a seed's verdict; ``reason`` is empty while it is not known."""
        ...

    def end(self, trial: Trial) -> None:
        """A trial has ended, as its record says."""
        ...

    def summary(self, values: Mapping[str, Any]) -> None:
        """Take ``summary.json``."""
        ...

    def close(self) -> None:
        """Nothing more comes from this process."""
        ...


def _check(name: str, value: object) -> None:
    missing = [way for way in ("begin", "scalars", "verdict", "end", "summary", "close") if not hasattr(value, way)]
    if not isinstance(value, type) or missing:
        raise UserError(f"expected a class with begin, scalars, verdict, end, summary and close, got {value!r:.80}")


class Mlflow:
    """MLflow: an experiment for each study, a run for each run folder, a nested run for each trial."""

    MARK, UNTIL = "tips_dist.run", "tips_dist.until"

    def __init__(self, record: StudyRecord, folder: Path) -> None:
        client = _library("mlflow").MlflowClient()
        self._client, self._mark = client, record.identity
        found = client.get_experiment_by_name(record.name)
        self._experiment = found.experiment_id if found is not None else client.create_experiment(record.name)
        self._run = self._opened(folder.name, folder.name, {})
        self._runs: dict[str, str] = {}

    def begin(self, trial: Trial) -> int:
        """See :class:`Tracker`."""
        run = self._opened(trial.id, trial.id, {"mlflow.parentRunId": self._run.info.run_id})
        self._runs[trial.id] = run.info.run_id
        for name, value in {"representation": trial.representation, **trial.parameters}.items():
            self._client.log_param(run.info.run_id, name, value)
        return int(run.data.tags.get(self.UNTIL, 0))

    def scalars(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        from mlflow.entities import Metric, RunTag

        now, run = int(time.time() * 1000), self._runs[trial.id]
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(run, metrics=metrics, tags=[RunTag(self.UNTIL, str(step))])

    def verdict(self, trial: Trial, seed: int, step: int, kind: str, reason: str) -> None:
        """See :class:`Tracker`."""
        self._client.set_tag(self._runs[trial.id], f"verdict/seed{seed}", f"{kind} at step {step}: {reason}"[:5000])

    def end(self, trial: Trial) -> None:
        """See :class:`Tracker`."""
        state = {"failed": "FAILED", "stopped": "KILLED"}.get(trial.state, "FINISHED")
        self._client.set_terminated(self._runs[trial.id], state)

    def summary(self, values: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        self._client.log_dict(self._run.info.run_id, dict(values), "summary.json")

    def close(self) -> None:
        """See :class:`Tracker`."""
        self._client.set_terminated(self._run.info.run_id)

    def _opened(self, key: str, name: str, tags: Mapping[str, str]) -> Any:
        mark = f"{self._mark}/{key}"
        known = self._client.search_runs([self._experiment], f"tags.`{self.MARK}` = '{mark}'", max_results=1)
        return (
            known[0]
            if known
            else self._client.create_run(self._experiment, run_name=name, tags={**tags, self.MARK: mark})
        )


class Wandb:
    """Weights & Biases: a project for each study, a group for each run folder, a run for each trial."""

    def __init__(self, record: StudyRecord, folder: Path) -> None:
        self._library, self._record, self._folder = _library("wandb"), record, folder
        self._runs: dict[str, Any] = {}

    def begin(self, trial: Trial) -> int:
        """See :class:`Tracker`."""
        run = self._open(trial.id, {"representation": trial.representation, **trial.parameters})
        return int(run.step)

    def scalars(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._runs[trial.id].log(dict(values), step=step)

    def verdict(self, trial: Trial, seed: int, step: int, kind: str, reason: str) -> None:
        """See :class:`Tracker`."""
        self._runs[trial.id].summary[f"verdict/seed{seed}"] = f"{kind} at step {step}: {reason}"

    def end(self, trial: Trial) -> None:
        """See :class:`Tracker`."""
        self._runs.pop(trial.id).finish(exit_code=int(trial.state == "failed"))

    def summary(self, values: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        self._open("summary", {}).summary.update(dict(values))

    def close(self) -> None:
        """See :class:`Tracker`."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    def _open(self, name: str, config: Mapping[str, Any]) -> Any:
        self._runs[name] = self._library.init(
            project=self._record.name,
            group=self._folder.name,
            id=f"{self._record.identity[:16]}-{name}",
            name=name,
            config=dict(config),
            resume="allow",
            reinit="create_new",
            settings=self._library.Settings(silent=True, console="off"),
        )
        return self._runs[name]


with built_in("trackers", _check):
    register("trackers", "mlflow", Mlflow)
    register("trackers", "wandb", Wandb)


def check_trackers(names: Sequence[str]) -> None:
    """Say of a wrong name before anything is made.

    Raises:
        UserError: no tracker has it.
    """
    for name in names:
        entry("trackers", name)


class Tracking:
    """Copies what is new in a run folder to trackers, each time it is asked."""

    def __init__(self, run: Path, names: Sequence[str], notice: Notice | None = None) -> None:
        """Begin with the trackers of these names.

        Raises:
            UserError: no tracker has that name, or its library is not installed.
        """
        self._run, self._notice = run, notice or terminal.notice
        self._trackers: dict[str, Tracker] = {}
        self._until: dict[tuple[str, str], int] = {}  # (tracker, trial) -> the last step that it has
        self._ended: set[tuple[str, str]] = set()
        self._verdicts: dict[tuple[str, str, int], str] = {}
        record = RunFolder(run).study
        for name in names:
            kind = entry("trackers", name).value
            with self._guarded(name):
                self._trackers[name] = kind(record, run)

    def update(self) -> None:
        """Copy what has come since."""
        folder = RunFolder(self._run)
        for trial in folder.trials:
            todo = [name for name in self._trackers if (name, trial.id) not in self._ended]
            if not todo:
                continue
            steps: dict[int, list[HistoryRow]] = defaultdict(list)
            for row in folder.history(trial):
                steps[row.step].append(row)
            for name in todo:
                with self._guarded(name):
                    self._copy(name, trial, steps)

    def summary(self) -> None:
        """Copy the summary, if there is one by now."""
        path = layout.SUMMARY.at(self._run)
        if path.exists():
            for name, tracker in list(self._trackers.items()):
                with self._guarded(name):
                    tracker.summary(read_json(path))

    def close(self) -> None:
        """Nothing more comes from this process."""
        for name, tracker in list(self._trackers.items()):
            with self._guarded(name):
                tracker.close()

    def _copy(self, name: str, trial: Trial, steps: Mapping[int, Sequence[HistoryRow]]) -> None:
        tracker, key = self._trackers[name], (name, trial.id)
        if key not in self._until:
            if not steps and not trial.state.final:
                return
            self._until[key] = tracker.begin(trial)
        for step in sorted(step for step in steps if step > self._until[key]):
            tracker.scalars(trial, step, _scalars(steps[step]))
            self._until[key] = step
        last = {row.seed: row for step in sorted(steps) for row in steps[step]}
        reasons = {seed.seed: seed.reason for seed in trial.seed_outcomes}
        for seed, row in last.items():
            if self._verdicts.get((*key, seed)) != row.verdict or seed in reasons:
                tracker.verdict(trial, seed, row.step, row.verdict, reasons.get(seed, ""))
                self._verdicts[(*key, seed)] = row.verdict
        if trial.state.final:
            tracker.end(trial)
            self._ended.add(key)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """A tracker that fails is said and left alone: nothing that decides waits for it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            self._trackers.pop(name, None)
            why = f"{type(error).__name__}: {shown(error, 200)}"
            self._notice(
                f"tracker {name}: {why}; nothing more is copied to it. Later: tips-dist track {self._run} --to {name}"
            )


@contextlib.contextmanager
def tracked(run: Path, names: Sequence[str], every: float = EVERY_SECONDS) -> Iterator[None]:
    """Copy what comes while the body works, from a thread, and what is left at its end.

    Raises:
        UserError: see :class:`Tracking`.
    """
    if not names:
        yield
        return
    tracking, done = Tracking(run, names), threading.Event()

    def keep_copying() -> None:
        while not done.wait(every):
            with contextlib.suppress(UserError, OSError):  # a record that is being written
                tracking.update()

    thread = threading.Thread(target=keep_copying, name="trackers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(UserError, OSError):
            tracking.update()
        tracking.close()


def track(run: Path, names: Sequence[str], *, summary_alone: bool = False) -> None:
    """Copy a run folder as it is now to trackers; what they have already is not sent again.

    Raises:
        UserError: no run folder, no tracker of that name, or its library is not installed.
    """
    if names:
        tracking = Tracking(run, names)
        if not summary_alone:
            tracking.update()
        tracking.summary()
        tracking.close()


def _scalars(rows: Sequence[HistoryRow]) -> dict[str, float]:
    found = {}
    for row in rows:
        for name, value in {**row.signals, "risk/total": row.risk}.items():
            if value is not None and math.isfinite(value):
                found[f"seed{row.seed}/{name}"] = float(value)
    return found


def _library(name: str) -> Any:
    """Import a tracker's own library.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"tracker {name}: {shown(error, 200)}; pip install 'tips-dist[trackers]'") from None
