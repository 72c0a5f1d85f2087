"""The record of a weights file, without its tensors and without torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from tips_dist.files import UserError, check_file, shown
from tips_dist.runfolder.records import WeightsRecord

METADATA = "record"  # the key of our JSON in the file's metadata
MOST_CHARACTERS = 2**20  # of it


def read_weights_record(path: Path) -> WeightsRecord:
    """Read what stands beside the tensors of a candidate, a lifter or a student.

    Raises:
        UserError: the file is missing, damaged or not ours.
    """
    check_file(path, "weights file")
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a safetensors file, or damaged ({shown(error)})") from None
    return parse_weights_record(metadata, path)


def parse_weights_record(metadata: dict[str, str], path: Path) -> WeightsRecord:
    """Check the metadata of a weights file (see :func:`read_weights_record`)."""
    if METADATA not in metadata or len(metadata[METADATA]) > MOST_CHARACTERS:
        raise UserError(f"{path}: no tips-dist record in this safetensors file")
    return WeightsRecord.parse(metadata[METADATA], f"{path}: its record")
