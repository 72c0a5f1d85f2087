"""Commands that redo one step of a finished study without truth: select, audit, distill."""

from __future__ import annotations

from pathlib import Path

from tips_dist.commands.output import console, print_json, say, showing


def select_candidates(folder: Path, *, as_json: bool) -> None:
    """Select teachers and print them."""
    from tips_dist.files import UserError
    from tips_dist.runfolder import RunFolder, layout
    from tips_dist.runfolder.lock import locked
    from tips_dist.second_look import Looker
    from tips_dist.selection import select as select_teachers

    run, looker, why = RunFolder(folder), None, ""
    record = run.study  # what is wrong with the run itself comes first
    try:
        looker = Looker(run.poses(), record.data.scale)
    except UserError as error:
        why = f"{record.name}: no second look at the candidates: {error}"
    with locked(run.path):
        found = select_teachers(folder, looker)
    if why:
        say(why, stderr=True)
    if as_json:
        print_json(found.plain())
        return
    say(f"Rule: {found.rule}")
    for teacher in found.teachers:
        say(
            f"Teacher: {teacher.trial} seed {teacher.seed} step {teacher.step}, risk {teacher.risk:.4g}, {teacher.file}"
        )
    say(f"Wrote {layout.SELECTION.at(folder)}")


def audit(folder: Path, policy: Path | None, goal: str | None = None, *, as_json: bool) -> None:
    """Replay a stopping policy over the recorded histories and print what it would have done."""
    from tips_dist.audit import audit_run, audit_words, read_goal, read_policy
    from tips_dist.report.formats import print_tables
    from tips_dist.report.tables import Table, number

    found = audit_run(folder, read_policy(policy) if policy else None, read_goal(goal) if goal else None)
    if as_json:
        print_json(found.plain())
        return
    head = ("trial", "seed", "verdict", "stopped at", "lowest risk", "kept", "why")
    rows = [
        (
            row.trial,
            str(row.seed),
            row.verdict,
            "never" if row.stop_step is None else str(row.stop_step),
            number(row.best_risk, None),
            number(row.kept_risk, None),
            "history was cut when it was made" if row.cut else row.reason,
        )
        for row in found.seeds
    ]
    print_tables(console(), [Table("What this policy would have done", head, rows)], [audit_words(found)])


def distill_run(folder: Path, poses: Path | None, device: str = "auto") -> None:
    """Distil the selected teachers into one student."""
    from tips_dist.devices import device_for
    from tips_dist.distillation import distill as distill_student
    from tips_dist.runfolder import RunFolder
    from tips_dist.runfolder.lock import locked

    run = RunFolder(folder)
    with locked(run.path), showing("distilling the student", run.path):
        written = distill_student(folder, run.poses(poses), device=device_for(device))
    say(f"Wrote {written}")
