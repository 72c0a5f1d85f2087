"""Commands on one network's weights: lift, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tips_dist.commands.output import print_found, showing
from tips_dist.files import UserError

if TYPE_CHECKING:
    from tips_dist.lifting import Size


def lift_poses(
    student: Path,
    poses: Path,
    output: Path | None,
    *,
    size: Size | None,
    minimum_score: float,
    picture: Path | None,
    animation: Path | None,
    signs: Literal["network", "pose"],
    uncertainty: bool,
    device: str = "auto",
    as_json: bool,
) -> None:
    """Lift the poses of a file; write the result, a picture, an animation."""
    if output is None and picture is None and animation is None:
        raise UserError("lift: nothing to write; give --output FILE, --picture FILE or --animate FILE")
    with showing("lifting"):
        from tips_dist.devices import device_for
        from tips_dist.lifting import lift_file

        result = lift_file(
            student,
            poses,
            output,
            size=size,
            minimum_score=minimum_score,
            picture=picture,
            animation=animation,
            signs=signs,
            uncertainty=uncertainty,
            device=device_for(device),
        )
    print_found(result, as_json=as_json)


def export_network(weights: Path, output: Path, *, as_json: bool) -> None:
    """Export weights as ONNX or as a torch.export program, checked against PyTorch."""
    with showing("exporting"):
        from tips_dist.exporting import export as export_weights

        result = export_weights(weights, output)
    print_found(result, as_json=as_json)
