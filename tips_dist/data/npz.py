"""Archives of arrays (.npz) read block by block, without pickle, and never more than they may hold."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tips_dist.files import UserError, check_file

_INFLATION = 1100  # deflate cannot pack more than about 1032 to 1: anything above is a lie
_LARGEST = 64 * 2**30


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an .npz; whatever a damaged archive raises inside becomes a :class:`UserError`."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as opened:
            claimed = sum(item.file_size for item in opened.infolist())
            if claimed > min(_LARGEST, _INFLATION * max(path.stat().st_size, 1000)):
                raise UserError(f"{path}: claims {claimed} bytes unpacked, which is refused (zip bomb?)")
            yield opened
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds
        raise UserError(f"{path}: cannot be read as .npz; truncated or damaged? ({error!s:.100})") from None


def array_names(opened: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in an archive."""
    return [name.removesuffix(".npy") for name in opened.namelist() if name.endswith(".npy")]


def member_stream(opened: zipfile.ZipFile, path: Path, key: str) -> IO[bytes]:
    """The bytes of one array file in an archive."""
    if key not in array_names(opened):
        raise UserError(f"{path}: no array '{key}'; there are {', '.join(array_names(opened)[:20]) or 'none'}")
    return opened.open(f"{key}.npy")


class Column:
    """One array of an archive, read forward along its first axis."""

    def __init__(self, opened: zipfile.ZipFile, path: Path, key: str) -> None:
        self._where = f"{path}: {key}"
        self._stream = member_stream(opened, path, key)
        version = np.lib.format.read_magic(self._stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = read(self._stream)
        if self.dtype.hasobject:
            raise UserError(f"{self._where}: is a pickled object, which is refused; store plain numbers or texts")
        self._row = math.prod(self.shape[1:]) * self.dtype.itemsize
        size = opened.getinfo(f"{key}.npy").file_size
        if self._row * (self.shape[0] if self.shape else 1) > size:
            raise UserError(f"{self._where}: is shorter than its shape {self.shape} says")
        if fortran and len(self.shape) > 1:  # not row by row: read whole, then cut
            whole = self._take(self.shape[0])
            self._whole: npt.NDArray[Any] | None = whole.ravel().reshape(self.shape, order="F")
        else:
            self._whole = None

    def take(self, rows: int) -> npt.NDArray[Any]:
        """The next ``rows`` rows."""
        if self._whole is not None:
            taken, self._whole = self._whole[:rows], self._whole[rows:]
            return taken
        return self._take(rows)

    def _take(self, rows: int) -> npt.NDArray[Any]:
        wanted = rows * self._row
        data = self._stream.read(wanted)
        if len(data) != wanted:
            raise UserError(f"{self._where}: ends too early")
        return np.frombuffer(data, dtype=self.dtype).reshape(rows, *self.shape[1:])
