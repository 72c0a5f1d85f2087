"""``depths.npy``: the validation depths of every evaluation step, written step by step, mapped when they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tips_dist.files import storage_error

MOST = 1.0e4  # float16 holds little more; depths this large are gone anyway


def write_depths(path: Path, shape: tuple[int, ...], row: int, depths: npt.NDArray[np.floating]) -> None:
    """Write row ``row`` of a file of ``shape`` (E, S, V, 17), float16; the file is made when it is not there.

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
            stream.seek(row * step.nbytes, 1)
            stream.write(step.tobytes())
    except OSError as error:
        raise storage_error(path, error) from error
