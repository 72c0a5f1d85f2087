"""The model card beside a network's weights: what it was trained on, how well it does, and what it cannot do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tips_dist.escaping import for_markdown
from tips_dist.files import UserError, write_text
from tips_dist.lifting import FRAME, UNIT
from tips_dist.models import load_weights
from tips_dist.runfolder import Evaluation, StudentRecord, layout

_LIMITS = """## Limits
- Depths were learned from 2D poses alone. There is no absolute scale, and no position of the person in the room.
- It knows people, poses and cameras like those of its data set; other focal lengths, extreme views from above or
  below, and unusual poses are guesses. Nothing in the output says when it guesses.
- All 17 joints are needed. A joint that a detector put in a wrong place is lifted in that wrong place.
- Left and right of the input are believed: swapped sides give a person who faces the other way.
- Errors after alignment with reflection say nothing about the depth sign; read the sign-resolved ones.
- Not for decisions about people (identity, health, safety) without an evaluation for that very purpose.
"""


def write_card(weights: Path, evaluation: Evaluation | None = None) -> Path:
    """Write ``MODEL_CARD.md`` beside ``weights``; errors are quoted from ``evaluation`` if it is of these weights."""
    path = weights.parent / layout.MODEL_CARD.name
    write_text(path, card(weights, evaluation))
    return path


def card(weights: Path, evaluation: Evaluation | None = None) -> str:
    """The card's text (Markdown).

    Raises:
        UserError: the weights are missing or carry no record.
    """
    record, digest = load_weights(weights)[1], hashlib.sha256(weights.read_bytes()).hexdigest()
    kind = "Student" if record.kind == "student" else "Lifter"
    facts = {
        "weights": f"{for_markdown(weights.name)}, SHA-256 `{digest}`",
        "network": f"{for_markdown(record.representation)}, width {record.width}, {record.blocks} residual "
        "blocks a part",
        "input": "17 joints (Human3.6M order) in pixels, y down",
        "output": f"17 joints in 3D; {FRAME}; {UNIT}",
        "trained on": f"{for_markdown(record.source or 'see the data digest')}, 2D poses only",
        "data digest": for_markdown(record.data_digest),
        "pixels per ten root-to-head distances": f"{record.scale:.1f}",
        "seed and step": f"{record.seed}, {record.step}",
    }
    lines = [f"# {kind} {for_markdown(weights.name)}", "", "A 2D-to-3D human pose lifter trained without 3D data.", ""]
    lines += [f"- **{name}**: {text}" for name, text in facts.items()]
    lines += ["", *_distillation(weights, digest), *_errors(evaluation, digest), _LIMITS]
    return "\n".join(lines)


def _distillation(weights: Path, digest: str) -> list[str]:
    path = weights.parent / layout.STUDENT.name
    if not path.exists():
        return []
    try:
        report = StudentRecord.load(path)
    except UserError:
        return []
    if report.digest != digest:
        return []
    lines = ["## Teachers", "| trial | seed | step | risk |", "|---|---|---|---|"]
    lines += [f"| {for_markdown(t.trial)} | {t.seed} | {t.step} | {t.risk:.4f} |" for t in report.teachers]
    share = report.disagreement.relative_to_depth_spread
    settings = json.dumps(report.settings.model_dump(mode="json"), sort_keys=True)
    return [*lines, "", f"Teachers disagree by {share:.0%} of the spread of depth. Settings: `{settings}`.", ""]


def _errors(evaluation: Evaluation | None, digest: str) -> list[str]:
    if evaluation is None or evaluation.student_digest != digest or not evaluation.student:
        return ["## Errors", "Not evaluated: no truth was given.", ""]
    lines = [
        "## Errors",
        f"Against truth `{evaluation.truth.digest[:16]}…`, mm; truth played no part in training or selection.",
        "",
        "| split | poses | N-MPJPE as predicted | sign-resolved | PA-MPJPE as predicted | sign-resolved | PCK@150 |",
        "|---|---|---|---|---|---|---|",
    ]
    for split, metrics in evaluation.student.items():
        names = ("n_mpjpe", "n_mpjpe_resolved", "pa_mpjpe", "pa_mpjpe_resolved", "pck_150_resolved")
        values = [metrics.of(name) for name in names]
        cells = ["-" if value is None else f"{value:.1f}" for value in values]
        lines.append(f"| {for_markdown(split)} | {metrics.poses} | " + " | ".join(cells) + " |")
    return [*lines, ""]
