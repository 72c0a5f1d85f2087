"""A run folder as tables: pandas DataFrames of its steps, trials, seeds, selection and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas

    from tips_dist.runfolder.folder import RunFolder
    from tips_dist.runfolder.records import Trial

Of = Literal["steps", "trials", "seeds", "selection", "evaluation"]


def frame(run: RunFolder, of: Of) -> pandas.DataFrame:
    """See :meth:`RunFolder.frame`."""
    import pandas

    if of == "steps":
        return _steps(run)
    return pandas.DataFrame(_ROWS[of](run))


def _steps(run: RunFolder) -> pandas.DataFrame:
    import pandas

    parts = []
    for trial in run.trials:
        part = run.history(trial).frame()
        for index, (name, value) in enumerate(_about(trial).items()):
            part.insert(index, name, value)
        parts.append(part)
    whole = pandas.concat([part for part in parts if len(part)], ignore_index=True) if parts else pandas.DataFrame()
    errors = run.curves.frame()
    return whole.merge(errors, how="left", on=["trial", "seed", "step"]) if len(errors) and len(whole) else whole


def _trials(run: RunFolder) -> list[dict[str, object]]:
    found = []
    for trial in run.trials:
        values = trial.model_dump(
            mode="json", include={"state", "error", "attempts", "wall_seconds", "started", "ended"}
        )
        found.append({**_about(trial), **values, "seeds": len(trial.seeds), "steps": trial.steps})
    return found


def _seeds(run: RunFolder) -> list[dict[str, object]]:
    return [
        {**_about(trial), **seed.model_dump(mode="json", exclude={"values", "candidates"})}
        for trial in run.trials
        for seed in trial.seed_outcomes
    ]


def _selection(run: RunFolder) -> list[dict[str, object]]:
    choices = run.selection.seeds if run.selection is not None else []
    return [choice.model_dump(mode="json", exclude={"looks"}) for choice in choices]


def _evaluation(run: RunFolder) -> list[dict[str, object]]:
    trials = run.evaluation.trials if run.evaluation is not None else {}
    return [
        {"trial": name, "representation": trial.representation, "seed": seed, "checkpoint": which, **errors}
        for name, trial in trials.items()
        for seed, found in trial.seeds.items()
        for which, errors in found.model_dump(mode="json", exclude={"non_finite_steps"}).items()
        if errors is not None
    ]


_ROWS = {"trials": _trials, "seeds": _seeds, "selection": _selection, "evaluation": _evaluation}


def _about(trial: Trial) -> dict[str, object]:
    return {"trial": trial.id, "representation": trial.representation, **trial.parameters}
