"""Weights on disk: safetensors with a JSON record; nothing is pickled."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from tips_dist.files import UserError, check_file, shown, write_with
from tips_dist.models.lifter import Lifter
from tips_dist.skeleton import REPRESENTATIONS

FORMAT = 1
MOST_WIDTH, MOST_BLOCKS = 2 * 8192, 64  # of a study file; matching parameters may double a width
MOST_RECORD = 2**20  # characters
MOST_VALUE = 1e6  # of a weight; trained ones stay below some tens


def lifter_record(lifter: Lifter) -> dict[str, Any]:
    """What is needed to build the same lifter again."""
    return {
        "format": FORMAT,
        "kind": "lifter",
        "representation": lifter.representation.name,
        "width": lifter.width,
        "blocks": len(lifter.blocks),
        "batch_norm": any("variance" in name for name, _ in lifter.named_buffers()),
    }


def save_weights(path: Path, lifter: Lifter, seed_row: int, record: dict[str, Any]) -> None:
    """Write one seed's rows of a packed lifter, with ``record`` beside what :func:`lifter_record` says."""
    tensors = seed_tensors(lifter, seed_row)
    write_tensors(path, tensors, {**lifter_record(lifter), **record})


def seed_tensors(lifter: Lifter, seed_row: int) -> dict[str, torch.Tensor]:
    """Copies of one seed's rows of all parameters and statistics; the pack axis stays, with S = 1."""
    tensors = {}
    for name, tensor in lifter.state_dict().items():
        rows = tensor.shape[0] // lifter.seeds
        tensors[name] = tensor[seed_row * rows : (seed_row + 1) * rows].detach().cpu().clone()
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
    """Atomically write tensors as safetensors with the record as metadata; straight from memory, without a copy.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is untouched.
    """
    content = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {"record": json.dumps(record, sort_keys=True)}

    def write(temporary: Path) -> None:
        try:
            safetensors.torch.save_file(content, temporary, metadata=metadata)
        except SafetensorError as error:  # it wraps what the system said: "... (os error 28)"
            found = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(found[1]), os.strerror(int(found[1]))) if found else error) from error

    write_with(path, write)


class WeightsRecord(BaseModel):
    """What a weights file must say about itself; it says more, which is passed on as it stands."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    format: int
    kind: Literal["lifter", "student"] = "lifter"
    representation: str
    width: Annotated[int, Field(ge=1, le=MOST_WIDTH)]
    blocks: Annotated[int, Field(ge=0, le=MOST_BLOCKS)]
    batch_norm: bool
    scale: Annotated[float, Field(gt=0, lt=1e9)]  # pixels of one unit
    part_signs: list[int] | None = None  # +1 or -1 of each independent lifter
    sign_confidence: list[Annotated[float, Field(ge=0, le=1)]] | None = None

    @model_validator(mode="after")
    def _of_this_program(self) -> WeightsRecord:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, this program reads {FORMAT}; use the version that wrote it")
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"representation {self.representation!r:.60} is unknown to this program")
        parts = len(REPRESENTATIONS[self.representation].lifters)
        if self.part_signs is not None and (len(self.part_signs) != parts or {*self.part_signs} - {-1, 1}):
            raise ValueError(f"part_signs: expected {parts} of +1 or -1, got {shown(self.part_signs, 60)}")
        if self.sign_confidence is not None and len(self.sign_confidence) != parts:
            raise ValueError(f"sign_confidence: expected {parts} numbers, got {len(self.sign_confidence)}")
        return self


def load_weights(path: Path) -> tuple[Lifter, dict[str, Any]]:
    """Load one lifter or student as a pack of one, in evaluation mode, and its record.

    The file is judged before it is used: record, names, shapes and types before anything is read or built, values
    before they reach a network.

    Raises:
        UserError: the file is missing, damaged, not ours, of another format, or its tensors do not fit its record or
            hold numbers that no training leaves.
    """
    check_file(path, "weights file")
    try:
        with safe_open(str(path), framework="pt") as file:
            record, checked = _record(path, file.metadata() or {})
            present = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            # Dropout has no tensors and is not recorded, but moves a block's second linear layer on by one place.
            second = f"blocks.0.layers.{3 if checked.batch_norm else 2}.weight"
            build = functools.partial(
                Lifter,
                REPRESENTATIONS[checked.representation],
                checked.width,
                blocks=checked.blocks,
                batch_norm=checked.batch_norm,
                dropout=0.0 if second in present else 0.5,
            )
            with torch.device("meta"):  # shapes without memory
                expected = build().state_dict()
            _check_tensors(path, expected, present)
            tensors = {name: file.get_tensor(name) for name in present}
        _check_values(path, tensors)
        lifter = build()
        lifter.load_state_dict(tensors)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({shown(error)})") from None
    return lifter.eval(), record


def _record(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], WeightsRecord]:
    try:
        text = metadata["record"]
        if len(text) > MOST_RECORD:
            raise ValueError("it is far too long")
        record = json.loads(text)
        checked = WeightsRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] in ("value_error", "missing") else f", got {shown(repr(first.get('input')), 60)}"
        raise UserError(f"{path}: its record: {key + ': ' if key else ''}{said}{got}") from None
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no tips-dist record in this safetensors file ({shown(error, 100)})") from None
    return record, checked


def _check_tensors(path: Path, expected: Mapping[str, torch.Tensor], present: Mapping[str, Any]) -> None:
    """Names, types and shapes, from the file's header alone."""
    shapes = {name: list(tensor.shape) for name, tensor in expected.items()}
    for name, shape in list(shapes.items()):  # written when linear layers before batch norm had a bias (blocks.py)
        before = re.fullmatch(r"(.*layers\.)(\d+)\.mean", name)
        bias = f"{before[1]}{int(before[2]) - 1}.bias" if before else ""
        if bias in present:
            shapes[bias] = shape
    wrong = [f"{name} is missing" for name in shapes if name not in present]
    wrong += [f"{name} is not part of such a network" for name in present if name not in shapes]
    for name, shape in shapes.items():
        if name in present:
            found, kind = present[name].get_shape(), present[name].get_dtype()
            if found != shape:
                wrong.append(f"{name} is {found}, expected {shape}")
            elif kind != "F32":
                wrong.append(f"{name} is {kind}, expected F32")
    if wrong:
        raise UserError(f"{path}: tensors do not fit the record: {shown(wrong[0])} ({len(wrong)} in all)")


def _check_values(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool((tensor.abs() <= MOST_VALUE).all()):  # NaN is not below anything
            raise UserError(f"{path}: {name} holds values that are not finite or beyond {MOST_VALUE:g}")
        if name.endswith(".variance") and bool((tensor < 0).any()):
            raise UserError(f"{path}: {name} holds a negative variance")
