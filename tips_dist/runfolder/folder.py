"""A run folder as an object: ``RunFolder(path).trials``, ``.selection``, ``.frame()``; everything typed, read once."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from tips_dist.files import UserError, check_file, shown
from tips_dist.runfolder import layout
from tips_dist.runfolder.choices import Dependence, Selection, StudentRecord
from tips_dist.runfolder.curves import METRICS, Curve, Curves
from tips_dist.runfolder.history import History
from tips_dist.runfolder.record import Record, json_object
from tips_dist.runfolder.records import StudyRecord, Trial
from tips_dist.runfolder.results import Evaluation, Summary, embedded_curves
from tips_dist.runfolder.spent import Times

if TYPE_CHECKING:
    import pandas

    from tips_dist.data.store import Poses
    from tips_dist.runfolder.frames import Of

RecordT = TypeVar("RecordT", bound=Record)


class RunFolder:
    """What a study is on disk. Records are read when first asked for, and kept.

    Args:
        path: the folder that ``tips-dist run`` made.

    Raises:
        UserError: there is no such folder, or it is no run folder. The same from every property whose file is damaged
            or from a newer version: one line that names file and field.
    """

    def __init__(self, path: Path | str, *, trials: Sequence[Trial] | None = None) -> None:
        self.path = Path(path)
        self._trials = None if trials is None else list(trials)
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such run folder; `tips-dist run` prints the folder it makes")
        if layout.FETCHING.at(self.path).exists():
            raise UserError(f"{self.path}: only a part of this run was fetched; fetch it again to complete it")
        if not layout.STUDY.at(self.path).exists():
            raise UserError(f"{self.path}: not a run folder (it has no {layout.STUDY.name})")

    @functools.cached_property
    def study(self) -> StudyRecord:
        """``study.json``."""
        return StudyRecord.load(layout.STUDY.at(self.path))

    @property
    def representations(self) -> list[str]:
        """The representations studied, in the study file's order; of the trials chosen, if some were."""
        names = self.study.resolved.representations
        if self._trials is None:
            return list(names)
        left = {trial.representation for trial in self._trials}
        return [name for name in names if name in left]

    @property
    def whole(self) -> bool:
        """Whether these are all of its trials."""
        return self._trials is None

    @functools.cached_property
    def trials(self) -> list[Trial]:
        """All trials that have a record, by representation (in the study file's order), then id."""
        if self._trials is not None:
            return self._trials
        order = {name: index for index, name in enumerate(self.study.resolved.representations)}
        found = read_trials(self.path)
        return sorted(found, key=lambda trial: (order.get(trial.representation, len(order)), trial.id))

    def only(self, trials: Sequence[Trial]) -> RunFolder:
        """The same run with some of its trials."""
        return RunFolder(self.path, trials=trials)

    def trial(self, identity: str) -> Trial:
        """One trial by its id.

        Raises:
            UserError: there is no such trial.
        """
        for trial in self.trials:
            if trial.id == identity:
                return trial
        raise UserError(f"{self.path}: no trial '{identity}'; it has {', '.join(t.id for t in self.trials) or 'none'}")

    def history(self, trial: Trial | str) -> History:
        """The history of one trial (read anew each time: they are large)."""
        return History.load(layout.HISTORY.at(self.path, trial if isinstance(trial, str) else trial.id))

    def depths(self, trial: Trial, poses: int | None = None, *, raw: bool = False) -> np.ndarray | None:
        """Recorded validation depths (E, S, V, 17) of a trial, float16, mapped from disk; None if none were recorded.

        Row e belongs to step (e + 1) x evaluate_every, column s to ``trial.seeds[s]``. They are what was judged: the
        averaged lifters', unless averaging was off; ``raw`` asks for those of the raw ones beside them.

        Raises:
            UserError: the file is damaged, or its shape is not the trial's (with ``poses``, V must be that many).
        """
        path = (layout.RAW_DEPTHS if raw else layout.DEPTHS).at(self.path, trial.id)
        if not path.exists():
            return None
        check_file(path)
        try:
            depths: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # an array, never an archive or a pickle
        except Exception as error:  # a damaged header raises a dozen kinds
            raise UserError(f"{path}: not a readable NumPy file ({shown(error)})") from None
        wanted = (len(trial.seeds), depths.shape[2] if poses is None and depths.ndim == 4 else poses, 17)
        if depths.ndim != 4 or depths.shape[1:] != wanted or depths.dtype.kind != "f":
            raise UserError(
                f"{path}: {depths.dtype} {depths.shape}, expected floats (steps, {wanted[0]}, {wanted[1]}, 17)"
            )
        return depths

    @functools.cached_property
    def selection(self) -> Selection | None:
        """``selection.json``; None before anything was selected."""
        return self._optional(Selection, layout.SELECTION)

    @functools.cached_property
    def student(self) -> StudentRecord | None:
        """``student.json``; None before a student was taught."""
        return self._optional(StudentRecord, layout.STUDENT)

    @functools.cached_property
    def evaluation(self) -> Evaluation | None:
        """``evaluation.json``; None where nothing was compared with truth."""
        return self._optional(Evaluation, layout.EVALUATION)

    @functools.cached_property
    def dependence(self) -> Dependence | None:
        """``dependence.json``; None before it was recorded."""
        return self._optional(Dependence, layout.DEPENDENCE)

    @functools.cached_property
    def times(self) -> Times | None:
        """``times.json``; None of a run that kept no account of its time."""
        return self._optional(Times, layout.TIMES)

    @functools.cached_property
    def summary(self) -> Summary | None:
        """``summary.json`` as it was last written; None if it never was."""
        return self._optional(Summary, layout.SUMMARY)

    @functools.cached_property
    def curves(self) -> Curves:
        """The true errors of every evaluation step; empty where nothing was compared with truth."""
        path = layout.CURVES.at(self.path)
        return Curves.load(path) if path.exists() else _old_curves(layout.EVALUATION.at(self.path))

    def poses(self, path: Path | None = None) -> Poses:
        """The 2D poses that the run was started with; ``path`` says where they lie if they were moved.

        Raises:
            UserError: they are gone, or are others now.
        """
        from tips_dist.runfolder.poses import run_poses

        return run_poses(self.path, self.study, path)

    def frame(self, of: Of = "steps") -> pandas.DataFrame:
        """The run as a pandas DataFrame.

        ==============  ==============================================================================================
        of              rows and columns
        ==============  ==============================================================================================
        ``steps``       one per evaluation step and seed: trial, representation, the searched parameters, step, seed,
                        risk, verdict, every signal, and (where evaluated) each metric of the true error in mm
        ``trials``      one per trial: its parameters, state, error, times, number of seeds, planned steps
        ``seeds``       one per seed that has ended: verdict, reason, onset, where it stopped, lowest risk and its step
        ``selection``   one per seed: the checkpoint that was chosen without truth, its risk, rank, and why
        ``evaluation``  one per seed and checkpoint (selected, best, last, random): true errors in mm
        ==============  ==============================================================================================

        Empty where there is nothing yet.
        """
        from tips_dist.runfolder.frames import frame

        return frame(self, of)

    def _optional(self, kind: type[RecordT], file: layout.File) -> RecordT | None:
        path = file.at(self.path)
        return kind.load(path) if path.exists() else None


def read_trial(run: Path, identity: str) -> Trial:
    """Read one trial's record.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    path = layout.TRIAL.at(run, identity)
    trial = Trial.load(path)
    if trial.id != identity:
        raise UserError(f"{path}: id: found '{trial.id}', expected the folder's name '{identity}'")
    return trial


def read_trials(run: Path) -> list[Trial]:
    """Every trial that has a record, ordered by number, then representation."""
    names = sorted(path.parent.name for path in run.glob(layout.TRIAL.pattern))
    with _uncollected():
        trials = [read_trial(run, name) for name in names]
    return sorted(trials, key=lambda trial: (trial.number, trial.representation))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Let nobody look for garbage while many records are made, none of which is any: half of the time goes there."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _old_curves(path: Path) -> Curves:
    """The curves that an ``evaluation.json`` of schema 1 holds itself."""
    if not path.exists():
        return Curves()
    check_file(path)
    found, table = json_object(path.read_bytes(), str(path)), {}
    try:
        trials = cast("dict[str, dict[str, dict[str, dict[str, list[float | None]]]]]", found["trials"])
        for trial, entry in trials.items():
            for seed, values in entry["seeds"].items():
                lists = embedded_curves(cast("dict[str, object]", values))  # type: ignore[arg-type]
                if lists is not None:
                    errors = {name: np.array(lists[name], dtype=np.float64) for name in METRICS}
                    table[trial, int(seed)] = Curve(np.array(lists["steps"], dtype=np.int64), errors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: trials: damaged ({error}); evaluate the run again") from None
    return Curves(table)
