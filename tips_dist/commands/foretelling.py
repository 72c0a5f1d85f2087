"""``run --dry-run``: what a study asks for, before anything starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist.commands.output import console, print_json, showing

if TYPE_CHECKING:
    from tips_dist.forecast import Forecast

CARD = 20e12  # operations a second that a card of today sustains in float32 steps of this kind; see `make gpu`


def foretell(study_file: Path, overrides: list[str], *, as_json: bool) -> None:
    """Check a study and its data as ``run`` would, and say what it asks for; nothing is started or written."""
    from tips_dist.data.store import check_decidable
    from tips_dist.forecast import forecast
    from tips_dist.runfolder.poses import study_poses
    from tips_dist.study_file import check_names, load_study

    study = load_study(study_file, overrides)
    check_names(study, str(study_file))
    poses = study_poses(study.data, study_file.parent)
    if study.data.poses is not None:
        check_decidable(poses)
    with showing("timing a step of each representation"):
        parts = forecast(study, poses, max(1, int(study.resources.cpus)))
    places = max(1, int((os.cpu_count() or 1) / study.resources.cpus))
    at_once = min(study.resources.max_concurrent or places, places, sum(part.trials for part in parts))
    if as_json:
        print_json({"study": study.name, "at_once": at_once, "parts": [dataclasses.asdict(part) for part in parts]})
    else:
        _print(study.name, parts, at_once)


def _print(name: str, parts: Sequence[Forecast], at_once: int) -> None:
    from tips_dist.report.formats import print_tables
    from tips_dist.report.live import duration
    from tips_dist.report.tables import Table

    head = ("representation", "trials", "seeds", "steps", "PFLOP", "memory", "disk", "step ms", "training")
    rows = [
        (
            part.representation,
            str(part.trials),
            str(part.seeds),
            f"{part.steps:,}",
            f"{part.operations / 1e15:.3g}",
            _bytes(part.memory),
            _bytes(part.disk),
            f"{1000 * part.step_seconds:,.0f}",
            duration(part.seconds),
        )
        for part in parts
    ]
    seconds, operations = sum(part.seconds for part in parts) / at_once, sum(part.operations for part in parts)
    lines = [
        f"On this machine's processors, {at_once} trial{'s' * (at_once > 1)} at a time: about {duration(seconds)} of "
        "training steps. Evaluation takes some percent on top, selection and distillation some minutes.",
        f"On one card that sustains {CARD / 1e12:.0f} TFLOP/s: about {duration(operations / CARD)} (make gpu measures "
        "a card; several cards share the trials).",
        f"Memory: {_bytes(at_once * max(part.memory for part in parts))} for what runs at once, and 0.3 GB for each "
        f"worker's own libraries. Disk: {_bytes(sum(part.disk for part in parts))} at most. Nothing was started.",
    ]
    print_tables(console(), [Table(f"{name}: what it asks for", head, rows)], lines)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
