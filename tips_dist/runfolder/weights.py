"""The record of a weights file, without its tensors and without torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from tips_dist.files import UserError, check_file, shown
from tips_dist.runfolder.records import FrozenRecord, WeightsRecord

METADATA = "record"  # the key of our JSON in the file's metadata
MOST_CHARACTERS = 2**20  # of it


def read_weights_record(path: Path) -> WeightsRecord:
    """Read what stands beside the tensors of a candidate, a lifter or a student.

    Raises:
        UserError: the file is missing, damaged or not ours.
    """
    return parse_weights_record(_metadata(path, "weights file"), path)


def read_frozen_record(path: Path) -> FrozenRecord:
    """Read what stands beside the tensors of a frozen seed (see :func:`read_weights_record`)."""
    return FrozenRecord.parse(_text(_metadata(path, "frozen seed"), path), f"{path}: its record")


def parse_weights_record(metadata: dict[str, str], path: Path) -> WeightsRecord:
    """Check the metadata of a weights file (see :func:`read_weights_record`)."""
    return WeightsRecord.parse(_text(metadata, path), f"{path}: its record")


def _metadata(path: Path, what: str) -> dict[str, str]:
    check_file(path, what)
    try:
        with safe_open(str(path), framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({shown(error)})") from None


def _text(metadata: dict[str, str], path: Path) -> str:
    if METADATA not in metadata or len(metadata[METADATA]) > MOST_CHARACTERS:
        raise UserError(f"{path}: no tips-dist record in this safetensors file")
    return metadata[METADATA]
