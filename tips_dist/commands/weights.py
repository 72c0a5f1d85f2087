"""Commands on one network's weights: lift, evaluate against any truth, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist.commands.output import console, print_json, print_record
from tips_dist.files import UserError

if TYPE_CHECKING:
    from tips_dist.lifting import Size


def lift(
    student: Path,
    poses: Path,
    output: Path | None,
    *,
    size: Size | None,
    minimum_score: float,
    picture: Path | None,
    animation: Path | None,
    as_json: bool,
) -> None:
    """Lift the poses of a file; write the result, a picture, an animation."""
    if output is None and picture is None and animation is None:
        raise UserError("lift: nothing to write; give --output FILE, --picture FILE or --animate FILE")
    from tips_dist.lifting import lift_file

    result = lift_file(
        student, poses, output, size=size, minimum_score=minimum_score, picture=picture, animation=animation
    )
    print_json(result) if as_json else print_record(result)


def evaluate(weights: Path, truth: Path, poses: Path | None, split: str, output: Path | None, *, as_json: bool) -> None:
    """Evaluate one candidate or student on one split of any data set, print the tables."""
    if poses is None:
        raise UserError(f"evaluate {weights}: say which poses with --poses NAME.pose2d.h5")
    from tips_dist.evaluation.evaluate import evaluate_weights
    from tips_dist.report import errors, formats
    from tips_dist.runfolder import Metrics

    result = evaluate_weights(weights, truth, poses, split=split, output=output)
    if as_json:
        print_json(result)
        return
    known = "the data set it was trained on" if result["trained_on_this_data"] else "a data set it never saw"
    notes = [f"{result['poses']['source']}: {known}."]
    notes += [f"Wrote {output}"] if output else []
    formats.print_tables(
        console(), errors.error_tables(Metrics.model_validate(result["metrics"]), f"{weights.name} on {split}"), notes
    )


def export(weights: Path, output: Path, *, as_json: bool) -> None:
    """Export weights as ONNX or as a torch.export program, checked against PyTorch."""
    from tips_dist.exporting import export as export_weights

    result = export_weights(weights, output)
    print_json(result) if as_json else print_record(result)
