"""``depths.npy``: the validation depths of every evaluation step, written step by step, mapped when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tips_dist.files import storage_error

MOST = 1.0e4  # float16 holds little more; depths this large are gone anyway


def write_depths(
    path: Path,
    shape: tuple[int, ...],
    row: int,
    depths: npt.NDArray[np.floating],
    places: Sequence[int] | None = None,
) -> None:
    """Write row ``row`` of a file of ``shape`` (E, S, V, 17), float16; the file is made when it is not there.

    ``depths`` (S, V, 17) are of all seeds, or of those at ``places`` alone: the others' stay as they are.

    Raises:
        StorageError: the disk is full or not writable.
    """
    step = depths.clip(-MOST, MOST).astype(np.float16)
    try:
        # Plain writes at an offset, not a memory map: a full disk is then an error and not a bus fault.
        if not path.exists():
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            with path.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                stream.truncate(stream.tell() + 2 * int(np.prod(shape)))
        with path.open("r+b") as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            begin = stream.tell() + row * 2 * int(np.prod(shape[1:]))
            for place, of_seed in zip(range(shape[1]) if places is None else places, step, strict=True):
                stream.seek(begin + place * of_seed.nbytes)
                stream.write(of_seed.tobytes())
    except OSError as error:
        raise storage_error(path, error) from error
