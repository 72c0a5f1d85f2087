"""Weights on disk: safetensors with a JSON record; nothing is pickled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from tips_dist.files import UserError, write_with
from tips_dist.models.lifter import Lifter
from tips_dist.runfolder.record import Record
from tips_dist.runfolder.records import Network, WeightsRecord
from tips_dist.runfolder.weights import METADATA, parse_weights_record
from tips_dist.skeleton import REPRESENTATIONS


def network_of(lifter: Lifter) -> Network:
    """What is needed to build the same lifter again."""
    return Network(
        representation=lifter.representation.name,
        width=lifter.width,
        blocks=len(lifter.blocks),
        batch_norm=any("variance" in name for name, _ in lifter.named_buffers()),
    )


def weights_record(lifter: Lifter, **about: Any) -> WeightsRecord:
    """The record of a lifter's weights; ``about`` are the fields that its network does not tell."""
    return WeightsRecord(**network_of(lifter).model_dump(), **about)


def save_weights(path: Path, lifter: Lifter, seed_row: int, about: Mapping[str, object]) -> WeightsRecord:
    """Write one seed's rows of a packed lifter and return their record; ``about`` are fields of it."""
    record = weights_record(lifter, **about)
    write_tensors(path, seed_tensors(lifter, seed_row), record)
    return record


def seed_tensors(lifter: Lifter, seed_row: int) -> dict[str, torch.Tensor]:
    """Copies of one seed's rows of all parameters and statistics; the pack axis stays, with S = 1."""
    tensors = {}
    for name, tensor in lifter.state_dict().items():
        rows = tensor.shape[0] // lifter.seeds
        tensors[name] = tensor[seed_row * rows : (seed_row + 1) * rows].detach().cpu().clone()
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], record: Record) -> None:
    """Atomically write tensors as safetensors with the record as metadata; straight from memory, without a copy.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is untouched.
    """
    content = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {METADATA: json.dumps(record.plain(), sort_keys=True)}

    def write(temporary: Path) -> None:
        try:
            safetensors.torch.save_file(content, temporary, metadata=metadata)
        except SafetensorError as error:  # it wraps what the system said: "... (os error 28)"
            found = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(found[1]), os.strerror(int(found[1]))) if found else error) from error

    write_with(path, write)


def load_weights(path: Path) -> tuple[Lifter, WeightsRecord]:
    """Load one lifter or student as a pack of one, in evaluation mode, and its record.

    Raises:
        UserError: the file is missing, damaged, not ours, or its tensors do not fit its record.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({error})") from None
    record = parse_weights_record(metadata, path)
    if record.representation not in REPRESENTATIONS:
        raise UserError(f"{path}: representation: '{record.representation}' is unknown to this version")
    # Dropout has no tensors and is not recorded, but it moves a block's second linear layer on by one place.
    second = f"blocks.0.layers.{3 if record.batch_norm else 2}.weight"
    try:
        lifter = Lifter(
            REPRESENTATIONS[record.representation],
            record.width,
            blocks=record.blocks,
            batch_norm=record.batch_norm,
            dropout=0.0 if second in tensors else 0.5,
        )
        lifter.load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: tensors do not fit the record: {str(error).splitlines()[-1].strip()}") from None
    return lifter.eval(), record
