"""Weights on disk: safetensors with a JSON record; nothing is pickled."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from tips_dist.files import UserError, check_file, shown, write_with
from tips_dist.models.base import BaseLifter
from tips_dist.models.lifter import Lifter
from tips_dist.registry import UnknownName, entry, name_of
from tips_dist.runfolder.record import Record
from tips_dist.runfolder.records import Network, WeightsRecord
from tips_dist.runfolder.weights import METADATA, parse_weights_record
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.tensors import on_host

MOST_VALUE = 1e6  # of a weight; trained ones stay below some tens


def network_of(lifter: BaseLifter) -> Network:
    """What is needed to build the same lifter again."""
    return Network(
        lifter=name_of("lifters", type(lifter)),
        representation=lifter.representation.name,
        width=lifter.width,
        blocks=len(lifter.blocks) if isinstance(lifter, Lifter) else 0,
        batch_norm=any("variance" in name for name, _ in lifter.named_buffers()),
        spread=isinstance(lifter, Lifter) and lifter.spread is not None,
    )


def weights_record(lifter: BaseLifter, **about: Any) -> WeightsRecord:
    """The record of a lifter's weights; ``about`` are the fields that its network does not tell."""
    return WeightsRecord(**network_of(lifter).model_dump(), **about)


def save_weights(path: Path, lifter: BaseLifter, seed_row: int, about: Mapping[str, object]) -> WeightsRecord:
    """Write one seed's rows of a packed lifter and return their record; ``about`` are fields of it."""
    record = weights_record(lifter, **about)
    write_tensors(path, seed_tensors(lifter, seed_row), record)
    return record


def seed_tensors(lifter: BaseLifter, seed_row: int) -> dict[str, torch.Tensor]:
    """Copies of one seed's rows of all parameters and statistics, where they lie; the pack axis stays, with S = 1."""
    tensors = {}
    for name, tensor in lifter.state_dict().items():
        rows = tensor.shape[0] // lifter.seeds
        tensors[name] = tensor[seed_row * rows : (seed_row + 1) * rows].detach().clone()
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], record: Record) -> None:
    """Atomically write tensors as safetensors with the record as metadata; straight from memory, without a copy.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is untouched.
    """
    content = {name: tensor.contiguous() for name, tensor in on_host(tensors).items()}
    metadata = {METADATA: json.dumps(record.plain(), sort_keys=True)}

    def write(temporary: Path) -> None:
        try:
            safetensors.torch.save_file(content, temporary, metadata=metadata)
        except SafetensorError as error:  # it wraps what the system said: "... (os error 28)"
            found = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(found[1]), os.strerror(int(found[1]))) if found else error) from error

    write_with(path, write)


def load_weights(path: Path) -> tuple[BaseLifter, WeightsRecord]:
    """Load one lifter or student as a pack of one, in evaluation mode, and its record.

    The file is judged before it is used: record, names, shapes and types before anything is read or built, values
    before they reach a network.

    Raises:
        UserError: the file is missing, damaged, not ours, of another format, or its tensors do not fit its record or
            hold numbers that no training leaves; or its lifter is of a plug-in that is not loaded.
    """
    check_file(path, "weights file")
    try:
        with safe_open(str(path), framework="pt") as file:
            record = parse_weights_record(file.metadata() or {}, path)
            present = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            try:
                kind = entry("lifters", record.lifter).value
            except UnknownName as error:
                raise UserError(f"{path}: {error}") from None
            build = functools.partial(
                kind, REPRESENTATIONS[record.representation], record.width, batch_norm=record.batch_norm
            )
            if kind is Lifter:
                # Dropout has no tensors and is not recorded, but moves a block's second linear layer on by one place.
                second = f"blocks.0.layers.{3 if record.batch_norm else 2}.weight"
                build = functools.partial(
                    build,
                    blocks=record.blocks,
                    dropout=0.0 if second in present else 0.5,
                    spread=record.spread,
                )
            with torch.device("meta"):  # shapes without memory
                expected = build().state_dict()
            _check_tensors(path, expected, present)
            tensors = {name: file.get_tensor(name) for name in present}
        _check_values(path, tensors)
        lifter: BaseLifter = build()
        lifter.load_state_dict(tensors)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({shown(error)})") from None
    return lifter.eval(), record


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
