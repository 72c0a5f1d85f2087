"""``curves.npz``: the true errors of every evaluation step, which evaluation measures; arrays, as they are many."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tips_dist.data.npz import archive, member_stream
from tips_dist.files import UserError, check_file, shown, write_with

if TYPE_CHECKING:
    import pandas

METRICS = ("n_mpjpe", "n_mpjpe_resolved", "pa_mpjpe", "pa_mpjpe_resolved")  # mm
SCHEMA = 1
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """The errors of one seed over its evaluation steps; NaN where a prediction was not finite."""

    steps: npt.NDArray[np.int64]  # (E,) ascending
    errors: Mapping[str, Floats]  # metric -> (E,) mm


@dataclass(frozen=True)
class Curves:
    """The curves of all seeds of a run: ``curves.of(trial, seed)``; none where nothing was recorded."""

    table: Mapping[tuple[str, int], Curve] = field(default_factory=dict)

    def of(self, trial: str, seed: int) -> Curve | None:
        """One seed's curve."""
        return self.table.get((trial, seed))

    def frame(self) -> pandas.DataFrame:
        """A DataFrame with one row per evaluation step and seed: trial, seed, step and each metric in mm."""
        import pandas

        parts = [
            pandas.DataFrame({"trial": trial, "seed": seed, "step": curve.steps, **curve.errors})
            for (trial, seed), curve in self.table.items()
        ]
        return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=_columns())

    def save(self, path: Path) -> Curves:
        """Write atomically and return self.

        Raises:
            StorageError: the disk is full or not writable.
        """
        trials = sorted({trial for trial, _ in self.table})
        index = {trial: number for number, trial in enumerate(trials)}
        keys = sorted(self.table)
        lengths = [len(self.table[key].steps) for key in keys]
        columns: dict[str, npt.NDArray[Any]] = {
            "schema": np.array(SCHEMA),
            "trials": np.array(trials, dtype="U"),
            "trial": np.repeat(np.array([index[trial] for trial, _ in keys], np.int32), lengths),
            "seed": np.repeat(np.array([seed for _, seed in keys], np.int64), lengths),
            "step": _joined([self.table[key].steps for key in keys], np.int64),
        }
        columns |= {name: _joined([self.table[key].errors[name] for key in keys], np.float64) for name in METRICS}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez_compressed(stream, **columns)  # type: ignore[arg-type]

        write_with(path, write)
        return self

    @classmethod
    def load(cls, path: Path) -> Curves:
        """Read a file; none is no curves.

        Raises:
            UserError: it is damaged, of a newer version, or an array is missing or of another length.
        """
        if not path.exists():
            return cls()
        check_file(path)
        try:
            columns = _read(path)
        except UserError as error:
            raise UserError(f"{error}; evaluate the run again") from None
        if columns["schema"].shape != () or columns["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {shown(columns['schema'])}: made by a newer version of tips-dist")
        length = columns["step"].size
        for name in _columns():
            wanted = "f" if name in METRICS else "i"
            if columns[name].shape != (length,) or columns[name].dtype.kind != wanted:
                found = f"{columns[name].dtype} {columns[name].shape}"
                raise UserError(f"{path}: array {name} is {found}, expected {length} numbers; evaluate the run again")
        if columns["trials"].ndim != 1 or columns["trials"].dtype.kind != "U":
            raise UserError(f"{path}: array trials holds no names; evaluate the run again")
        trials, trial, seed = columns["trials"].tolist(), columns["trial"], columns["seed"]
        if length and not (trial.min() >= 0 and trial.max() < len(trials)):
            raise UserError(f"{path}: array trial counts beyond the {len(trials)} trials; evaluate the run again")
        new = np.flatnonzero((np.diff(trial, prepend=-1) != 0) | (np.diff(seed, prepend=-1) != 0)).tolist()
        return cls(
            {
                (trials[trial[start]], int(seed[start])): Curve(
                    columns["step"][start:end], {name: columns[name][start:end] for name in METRICS}
                )
                for start, end in zip(new, [*new[1:], length][: len(new)], strict=True)
            }
        )


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    with archive(path) as opened:
        names = ("schema", "trials", *_columns())
        return {name: np.lib.format.read_array(member_stream(opened, path, name), allow_pickle=False) for name in names}


@functools.cache
def _columns() -> tuple[str, ...]:
    return ("trial", "seed", "step", *METRICS)


def _joined(parts: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
