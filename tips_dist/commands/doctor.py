"""``doctor``: what is there, what is missing, what to do."""

from __future__ import annotations

from pathlib import Path

import typer

from tips_dist.commands.output import print_json, say

_SIGN = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED "}


def doctor(study_file: Path | None, runs: Path, storage: str | None, address: str | None, *, as_json: bool) -> None:
    """Examine this machine, a cluster, storage and a study's needs; exit with 1 if something failed.

    Raises:
        typer.Exit: something failed.
    """
    from tips_dist.study.doctor import diagnose
    from tips_dist.study_file import load_study

    study = load_study(study_file) if study_file is not None else None
    findings = []
    for finding in diagnose(study=study, study_file=study_file, runs=runs, storage=storage, address=address):
        findings.append(finding)
        if not as_json:
            where = "" if finding.where == "here" else f"{finding.where}: "
            say(f"{_SIGN[finding.state]} {where}{finding.name}: {finding.found}")
            if finding.advice:
                say(f"        -> {finding.advice}")
    failed = sum(finding.state == "failed" for finding in findings)
    if as_json:
        print_json({"schema": 1, "healthy": failed == 0, "findings": [finding.plain() for finding in findings]})
    if failed:
        raise typer.Exit(1)
