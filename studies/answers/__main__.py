"""Write the results of a study: ``python -m studies.answers {representations,long,rates,recipes,search} RUN ...``.

Fills the tables of ``studies/results/NAME/README.md`` and writes ``answers.json``, ``summary.json``, the histories
(``histories.npz``) and, where the study has them, the figures and the report.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from studies.answers import figures, recipes, representations, search
from studies.answers.material import Ground, Material, load
from studies.answers.tables import Table, fill
from tips_dist.commands.reading import report
from tips_dist.evaluation.reference import SupervisedRecipe, supervised
from tips_dist.files import UserError, write_json, write_with
from tips_dist.replay import RISK
from tips_dist.report.summary import write_summary

RESULTS = Path(__file__).parents[1] / "results"
FRONT = Path(__file__).parents[2] / "README.md"


def main() -> int:
    """Parse, load, answer, write."""
    parser = argparse.ArgumentParser(prog="python -m studies.answers", description=__doc__)
    parser.add_argument("study", choices=["representations", "long", "rates", "recipes", "search"])
    parser.add_argument("run", type=Path, help="the finished run folder, or a folder of runs: its newest")
    parser.add_argument("--prior", type=Path, help="representations: the run of bone_prior.yaml")
    parser.add_argument("--bf16", type=Path, help="representations: the run of precision.yaml, if any")
    parser.add_argument("--papers", type=Path, help="search: the run of papers.yaml")
    parser.add_argument("--poses", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    folder: Path = given.output / given.study
    folder.mkdir(parents=True, exist_ok=True)
    try:
        ground = Ground.read(given.poses, given.truth)
        study = load(newest(given.run))
        if given.study == "representations":
            rounded = load(newest(given.bf16)) if given.bf16 else None
            tables = _representations(study, load(newest(given.prior)), rounded, ground, folder)
        elif given.study in ("long", "rates"):
            figures.curves(study, folder / "curves.png")
            tables = representations.again(study)
        elif given.study == "recipes":
            tables = recipes.answers(study)
            shown = {name: (tables[name], tables[f"{name}_seeds"]) for name in study.folder.representations}
            figures.effects(shown, list(recipes.OUTCOMES), folder / "effects.png")
        else:
            tables = search.answers(study, load(newest(given.papers)), ground)
        _write(study, tables, folder)
        if given.study == "representations" and given.output == RESULTS:
            fill(FRONT, {"front": tables["front"]})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def newest(path: Path) -> Path:
    """``path`` itself if it is a run folder; the newest evaluated run folder in it otherwise."""
    runs = sorted(path.glob("*/evaluation.json"), key=lambda file: file.stat().st_mtime)
    return path if (path / "study.json").exists() or not runs else runs[-1].parent


def _representations(
    study: Material, prior: Material, rounded: Material | None, ground: Ground, folder: Path
) -> dict[str, Table]:
    one = study.histories[0].configuration
    recipe = SupervisedRecipe(one.model.width, one.training.steps, one.training.batch_size)
    reference = supervised(ground.poses, ground.truth, recipe, [history.seed for history in study.of("solo")])
    write_json(folder / "supervised.json", dataclasses.asdict(reference))
    figures.curves(study, folder / "curves.png")
    figures.selected(
        study, folder / "selected.png", float(np.mean(representations.of_split(reference.validation).n_mpjpe))
    )
    report(study.path, None)
    shutil.copyfile(study.path / "report.html", folder / "report.html")
    return representations.answers(study, prior, rounded, ground, reference)


def _write(study: Material, tables: dict[str, Table], folder: Path) -> None:
    run = study.folder.study
    origin = run.model_dump(include={"name", "digest", "created", "git", "versions", "host"})
    write_json(folder / "answers.json", {"schema": 1, "run": origin, "chosen": study.chosen,
               "tables": {name: table.data() for name, table in tables.items()}})  # fmt: skip
    write_json(folder / "summary.json", write_summary(study.path))
    write_with(folder / "histories.npz", lambda path: save_histories(study, path))
    fill(folder / "README.md", tables)
    for table in tables.values():
        print(table.markdown(), end="\n\n")


def save_histories(study: Material, path: Path) -> None:
    """Every seed's signals and true errors as one archive, for those who want to ask more.

    ``names`` of the signals; per trial ``<id>/steps`` (E,), ``<id>/seeds`` (S,), ``<id>/signals`` (E, S, signals)
    and ``<id>/errors`` (E, S), sign-resolved N-MPJPE in mm; float32.
    """
    names = sorted((*study.histories[0].names, RISK))
    arrays: dict[str, Any] = {"names": np.array(names)}
    for trial, seeds in study.trials().items():
        arrays[f"{trial}/steps"] = np.array(seeds[0].steps)
        arrays[f"{trial}/seeds"] = np.array([history.seed for history in seeds])
        signals = [[h.risks if name == RISK else h.signal(name) for name in names] for h in seeds]
        arrays[f"{trial}/signals"] = np.array(signals, dtype=np.float32).transpose(2, 0, 1)
        arrays[f"{trial}/errors"] = np.array([history.errors for history in seeds], dtype=np.float32).T
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


if __name__ == "__main__":
    sys.exit(main())
