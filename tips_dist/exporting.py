"""Export a network for use without this program: ONNX, or a ``torch.export`` program. Checked before it is kept.

Both take ``poses`` (N, 17, 2) float32 in pixels, any N, and give ``joints`` (N, 17, 3), exactly as ``Student.lift``:
centring, scale, depth signs and perspective are part of the exported graph.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tips_dist import geometry
from tips_dist.files import UserError, write_text, write_with
from tips_dist.lifting import FRAME, UNIT
from tips_dist.model_card import card
from tips_dist.models.student import Student
from tips_dist.skeleton import ROOT

TOLERANCE = 1e-5  # largest difference to PyTorch, in units of the root-to-head distance
ENDINGS = (".onnx", ".pt2")


class Program(nn.Module):
    """What is exported: pixels (N, 17, 2) to root-relative 3D poses (N, 17, 3)."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.lifter = student.lifter
        self.scale = student.record.scale
        representation = student.lifter.representation
        signs = student.record.part_signs or [1] * len(representation.lifters)
        self.signs: Tensor
        self.register_buffer("signs", geometry.joint_signs(torch.tensor([float(s) for s in signs]), representation))

    def forward(self, poses: Tensor) -> Tensor:
        """Lift poses."""
        centred = (poses - poses[:, ROOT : ROOT + 1]) / self.scale
        return geometry.lift(centred, self.lifter(centred[None])[0] * self.signs)


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how it is used."""

    output: str
    card: str
    difference_to_pytorch: float | None  # the largest on random poses; None where nothing here could run it
    input: str = "poses, float32 (N, 17, 2), pixels, y down"
    result: str = f"joints, float32 (N, 17, 3); {FRAME}; {UNIT}"


def export(weights: Path, output: Path) -> Exported:
    """Export ``weights`` to ``output`` (.onnx or .pt2) with its model card beside it.

    Raises:
        UserError: unknown ending, unusable weights, the extra is not installed, or the export differs from PyTorch.
    """
    if output.suffix not in ENDINGS:
        raise UserError(f"{output}: unknown ending '{output.suffix}'; known: {', '.join(ENDINGS)}")
    student = Student.load(weights)
    program = Program(student).eval()
    generator = np.random.default_rng(0)
    scale = np.float32(student.record.scale)
    poses = (generator.normal(0, 0.06, (64, 17, 2)).astype(np.float32) * scale + 500).astype(np.float32)
    difference: list[float | None] = []

    def write(temporary: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = (_onnx if output.suffix == ".onnx" else _torch_export)(program, torch.from_numpy(poses), temporary)
        if run is None:
            difference.append(None)
            return
        # Other batch sizes than the example's, too: the number of poses must be free.
        cases = (poses, poses[:1], np.concatenate([poses, poses[:7]]))
        largest = max(float(np.abs(run(case) - student.lift(case)).max()) for case in cases)
        difference.append(largest)
        if not largest <= TOLERANCE:
            raise UserError(f"{output}: the export differs from PyTorch by {largest:.2g}; it was not kept")

    write_with(output, write)
    described = output.with_suffix(".md")
    write_text(described, card(weights))
    return Exported(str(output), str(described), difference[0])


Run = Callable[[Any], Any]


def _torch_export(program: Program, example: Tensor, path: Path) -> Run:
    exported = torch.export.export(program, (example,), dynamic_shapes=({0: torch.export.Dim("poses", min=1)},))
    with path.open("wb") as stream:
        torch.export.save(exported, stream)
    loaded = torch.export.load(path.open("rb")).module()
    return lambda poses: loaded(torch.from_numpy(poses)).detach().numpy()


def _onnx(program: Program, example: Tensor, path: Path) -> Run | None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX export needs {' and '.join(missing)}: pip install 'tips-dist[export]'")
    torch.onnx.export(
        program,
        (example,),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("poses", min=1)},),
        input_names=["poses"],
        output_names=["joints"],
        external_data=False,
        verbose=False,
    )
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    onnxruntime = importlib.import_module("onnxruntime")  # it has no types
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda poses: session.run(["joints"], {"poses": poses})[0]
