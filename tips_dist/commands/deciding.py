"""Commands that redo one step of a finished study: select, distill, evaluate."""

from __future__ import annotations

from pathlib import Path

from tips_dist.commands.output import console, print_json


def select(folder: Path, *, as_json: bool) -> None:
    """Select teachers and print them."""
    from tips_dist.stability.selection import select as select_teachers

    found = select_teachers(folder)
    if as_json:
        print_json(found)
        return
    print(f"Rule: {found['rule']}")
    for teacher in found["teachers"]:
        print(
            f"Teacher: {teacher['trial']} seed {teacher['seed']} step {teacher['step']}, "
            f"risk {teacher['risk']:.4g}, {teacher['file']}"
        )
    print(f"Wrote {folder / 'selection.json'}")


def distill(folder: Path, poses: Path | None) -> None:
    """Distil the selected teachers into one student."""
    from tips_dist.distillation import distill as distill_student
    from tips_dist.evaluation.evaluate import run_poses
    from tips_dist.files import read_json

    data = run_poses(folder, read_json(folder / "study.json"), poses)
    print(f"Wrote {distill_student(folder, data)}")


def evaluate(folder: Path, truth: Path, poses: Path | None, *, as_json: bool) -> None:
    """Evaluate a run, print the tables that show it."""
    from tips_dist.evaluation.evaluate import evaluate_run
    from tips_dist.report import summary, tables

    result = evaluate_run(folder, truth, poses)
    found = summary.write_summary(folder)
    if as_json:
        print_json(result)
        return
    tables.print_tables(console(), tables.representation_tables(found), tables.notes(found))
    print(f"Wrote {folder / 'evaluation.json'}")
