"""Commands that redo one step of a finished study without truth: select, audit, distill."""

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


def audit(folder: Path, policy: Path | None, *, as_json: bool) -> None:
    """Replay a stopping policy over the recorded histories and print what it would have done."""
    from rich.table import Table

    from tips_dist.audit import audit_run, in_words, read_policy

    found = audit_run(folder, read_policy(policy) if policy else None)
    if as_json:
        print_json(found.plain())
        return
    table = Table(
        "trial", "seed", "verdict", "stopped at", "lowest risk", "kept", "why", box=None, title_justify="left"
    )
    for row in found.seeds:
        stopped = "never" if row.stop_step is None else str(row.stop_step)
        risks = ["-" if risk is None else f"{risk:.4g}" for risk in (row.best_risk, row.kept_risk)]
        why = "history was cut when it was made" if row.cut else row.reason
        table.add_row(row.trial, str(row.seed), row.verdict, stopped, *risks, why)
    console().print(table)
    print(in_words(found))


def distill(folder: Path, poses: Path | None) -> None:
    """Distil the selected teachers into one student."""
    from tips_dist.distillation import distill as distill_student
    from tips_dist.runfolder import RunFolder

    print(f"Wrote {distill_student(folder, RunFolder(folder).poses(poses))}")
