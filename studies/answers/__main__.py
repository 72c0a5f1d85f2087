"""Answer what the study files fixed before: ``python -m studies.answers runs/results --data data/cmu``.

Fills the tables of ``studies/results/README.md`` and of the front page, and writes ``answers.json`` (all tables as
plain data, with the runs that they come from), the figures and, for each run, its histories. Sections whose runs are
not there keep their tables.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studies.answers import claims, decisions, figures, lifters, search, stabilisers
from studies.answers.material import Ground, Material, load
from studies.answers.tables import Table, fill
from tips_dist.evaluation.reference import SupervisedRecipe, SupervisedReference, supervised
from tips_dist.files import UserError, write_json, write_with
from tips_dist.replay import RISK

RESULTS = Path(__file__).parents[1] / "results"
FRONT = Path(__file__).parents[2] / "README.md"


@dataclass(frozen=True)
class Asked:
    """What a section is answered from."""

    runs: dict[str, Material]
    ground: Ground
    noisy: Path
    figures: Path  # the folder that pictures go to


def parts(asked: Asked) -> dict[str, Table]:
    """Questions (a) to (i) and (k) of ``parts.yaml``, with a supervised lifter of its size."""
    study, ground = asked.runs["parts"], asked.ground
    tests, ends = claims.tested(study, ground), claims.last(study, ground)
    gaps, steps = claims.gap(study, tests, ends), claims.over_steps(study)
    return {
        "a": gaps,
        "over": steps,
        "k": claims.averaging(study, ends),
        "b": claims.stability(study),
        "b_test": claims.on_test(study, tests, ends),
        "c": claims.ending_near_the_best(study),
        "d": decisions.regret(study),
        "e": decisions.stopping(study),
        "e_called": decisions.called(study),
        "f": lifters.student(study, ground, tests),
        "g": lifters.dependence(study, ground),
        "h": lifters.mirrored(study, ground),
        "h_test": lifters.mirrored_on_test(study, ground),
        "i": lifters.unseen(study, ground, tests, _reference(study, ground)),
    }


def prior(asked: Asked) -> dict[str, Table]:
    """Question (l)."""
    study, without = asked.runs["prior"], asked.runs["parts"]
    shown = {"no prior": without, "anatomical prior": study}
    figures.curves(shown, asked.figures / "curves.png")
    return claims.prior(study, without, asked.ground, claims.tested(without, asked.ground))


def representations(asked: Asked) -> dict[str, Table]:
    """All representations, and (j) between the references."""
    study, ground = asked.runs["representations"], asked.ground
    tests, reference = claims.tested(study, ground), _reference(study, ground)
    figures.selected(tests, float(np.mean(lifters.of_split(reference.test).n_mpjpe)), asked.figures / "selected.png")
    return {
        "all": claims.overview(study, tests),
        "all_b": claims.stability(study),
        "all_test": claims.on_test(study, tests, claims.last(study, ground)),
        "all_g": lifters.dependence(study, ground),
        "all_h": lifters.mirrored(study, ground),
        "j": lifters.references(study, asked.runs["bone_prior"], ground, reference),
    }


def noise(asked: Asked) -> dict[str, Table]:
    """Question (m)."""
    runs = asked.runs
    return {"m": lifters.noise(runs["representations"], runs["noise"], asked.ground, Ground.read(asked.noisy))}


def factors(asked: Asked) -> dict[str, Table]:
    """Which choice drives instability."""
    study = asked.runs["stabilisers"]
    tables = stabilisers.answers(study, asked.ground)
    shown = {name: tables[f"stabilisers_{name}"] for name in study.folder.representations}
    figures.effects(shown, [*stabilisers.OUTCOMES, *stabilisers.TESTS], asked.figures / "effects.png")
    return tables


def searched(asked: Asked) -> dict[str, Table]:
    """What a search adds."""
    names = {search.SEARCH: "search", search.FREEZING: "freezing", search.DEFAULT: "default", search.PAPERS: "papers"}
    return search.answers({label: asked.runs[name] for label, name in names.items()}, asked.ground)


SECTIONS: dict[str, tuple[tuple[str, ...], Callable[[Asked], dict[str, Table]]]] = {
    "parts": (("parts",), parts),
    "prior": (("prior", "parts"), prior),
    "representations": (("representations", "bone_prior"), representations),
    "noise": (("noise", "representations"), noise),
    "stabilisers": (("stabilisers",), factors),
    "search": (("search", "freezing", "default", "papers"), searched),
}


def main() -> int:
    """Parse, load, answer, write."""
    parser = argparse.ArgumentParser(prog="python -m studies.answers", description=__doc__)
    parser.add_argument("runs", type=Path, help="a folder with one folder for each study, NAME/RUN")
    parser.add_argument("--data", type=Path, default=Path("data/cmu"), help="PREFIX of the poses and their truth")
    parser.add_argument("--noisy", type=Path, default=Path("data/cmu-noisy"), help="PREFIX of those with noise")
    parser.add_argument("--only", nargs="*", choices=sorted(SECTIONS), help="these sections alone")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    try:
        answer(given.runs, given.data, given.noisy, given.only or sorted(SECTIONS), given.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def answer(runs: Path, data: Path, noisy: Path, sections: list[str], output: Path) -> None:
    """Answer the sections whose runs are there.

    Raises:
        UserError: a run is not evaluated, or a file is missing or damaged.
    """
    (output / "histories").mkdir(parents=True, exist_ok=True)
    ground, loaded = Ground.read(data), dict[str, Material]()
    for name in sections:
        needed, of = SECTIONS[name]
        found = {one: newest(runs / one) for one in needed}
        missing = [one for one, run in found.items() if run is None]
        if missing:
            print(f"{name}: no finished run of {', '.join(missing)} in {runs}; its tables stay as they are")
            continue
        for one, run in found.items():
            if one not in loaded and run is not None:
                loaded[one] = load(run, Ground.read(noisy) if one == "noise" else ground)
                write_with(output / "histories" / f"{one}.npz", functools.partial(save_histories, loaded[one]))
        tables = of(Asked({one: loaded[one] for one in needed}, ground, noisy, output))
        record(output, name, {one: loaded[one] for one in needed}, tables)
        for table in tables.values():
            print(table.markdown(), end="\n\n", flush=True)


def newest(folder: Path) -> Path | None:
    """The newest evaluated run of a folder of runs."""
    runs = sorted(folder.glob("*/evaluation.json"), key=lambda file: file.stat().st_mtime)
    return runs[-1].parent if runs else None


def record(output: Path, section: str, runs: dict[str, Material], tables: dict[str, Table]) -> None:
    """Put a section's tables into ``answers.json`` and onto the pages, with where they come from."""
    file = output / "answers.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"schema": 2, "sections": {}}
    origin = {name: _origin(study) for name, study in runs.items()}
    data = {name: table.data() for name, table in tables.items()}
    known["sections"][section] = {"runs": origin, "tables": data}
    write_json(file, known)
    fill(output / "README.md", tables)
    if section == "parts" and output == RESULTS:
        fill(FRONT, {"front": claims.front(tables["a"], tables["over"])})


def _origin(study: Material) -> dict[str, Any]:
    """What a run was asked and where it ran, without the paths of that machine."""
    run = study.folder.study
    told = run.model_dump(mode="json", include={"name", "created", "git", "versions", "host"})
    return {**told, "data": run.data.digest, "asked": json.loads(run.resolved.model_dump_json(exclude={"data"}))}


def _reference(study: Material, ground: Ground) -> SupervisedReference:
    one = study.histories[0].configuration
    recipe = SupervisedRecipe(width=one.model.width)
    return supervised(ground.poses, ground.truth, recipe, [seed.seed for seed in study.of(claims.BASE)])


def save_histories(study: Material, path: Path) -> None:
    """Every seed's signals and true errors as one archive, for those who want to ask more.

    ``names`` of the signals; per trial ``<id>/steps`` (E,), ``<id>/seeds`` (S,), ``<id>/signals`` (E, S, signals),
    ``<id>/errors`` and ``<id>/raw_errors`` (E, S), sign-resolved N-MPJPE in mm, and ``<id>/mirrored``
    (E, S), the true share of poses held mirrored; float16, NaN where a seed was stopped before.
    """
    names = sorted((*study.histories[0].names, RISK))
    arrays: dict[str, Any] = {"names": np.array(names)}
    for trial, seeds in study.trials().items():
        longest = max(seeds, key=lambda seed: len(seed.steps))
        arrays[f"{trial}/steps"] = np.array(longest.steps, np.int32)
        arrays[f"{trial}/seeds"] = np.array([seed.seed for seed in seeds], np.int32)
        rows: dict[str, list[Any]] = {
            "signals": [np.stack([s.risks if n == RISK else s.signal(n) for n in names], axis=-1) for s in seeds],
            "errors": [seed.errors for seed in seeds],
            "mirrored": [seed.mirrored for seed in seeds],
            "raw_errors": [seed.raw.errors for seed in seeds if seed.raw is not None],
        }
        for kind, values in rows.items():
            if values:
                arrays[f"{trial}/{kind}"] = _stacked(values, len(longest.steps))
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _stacked(values: list[Any], length: int) -> Any:
    whole = [
        np.pad(one, [(0, length - len(one)), *[(0, 0)] * (one.ndim - 1)], constant_values=np.nan) for one in values
    ]
    return np.stack(whole, axis=1).astype(np.float16)


if __name__ == "__main__":
    sys.exit(main())
