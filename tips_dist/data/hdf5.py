"""HDF5 read without trust and written without halves."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tips_dist.files import UserError, check_file, shown

_PLENTY = 256 * 2**20  # a data set that claims more bytes than this
_INFLATION = 50  # may not claim more than this many times what it stores: coordinates pack to a third at best
_TEXTS, _LETTERS = 10_000, 2**24  # names of varying length, and bytes of them: a file repeats one text for nothing


@contextmanager
def reading(path: Path, hint: str = "") -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever libhdf5 raises inside becomes a :class:`UserError`.

    Without HDF5's own locks, which some network disks do not have: what we read is never written in place.
    """
    check_file(path, hint=hint)
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_attributes(path, file)
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if not is_hdf5(path):
            raise UserError(f"{path}: not an HDF5 file") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as HDF5; truncated or damaged? ({reason})") from None


def is_hdf5(path: Path) -> bool:
    """Whether a file carries HDF5's signature (at 0, or after a user block); unlike h5py's, without locks."""
    with path.open("rb") as stream:
        for start in (0, 512, 1024, 2048, 4096):
            stream.seek(start)
            if stream.read(8) == b"\x89HDF\r\n\x1a\n":
                return True
    return False


def _check_attributes(path: Path, file: h5py.File) -> None:
    """Attributes are few and short; a list of texts of varying length can repeat one text for nothing."""
    if len(file.attrs) > 1000:
        raise UserError(f"{path}: {len(file.attrs)} attributes; this is no file of ours")
    for name in file.attrs:
        identity = file.attrs.get_id(name)
        if identity.dtype.kind == "O" and math.prod(identity.shape) > 100:
            raise UserError(f"{path}: attribute {shown(name)}: a list of {math.prod(identity.shape)} texts")


def dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """A data set that lies in this very file and is as large as it claims.

    Raises:
        UserError: it is missing, a soft or external link, stored elsewhere, or claims absurdly much data.
    """
    where = f"{path}: {group.name.rstrip('/')}/{name}"
    node = group
    for part in name.strip("/").split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise UserError(f"{where}: no such data set")
        if not isinstance(link, h5py.HardLink):
            raise UserError(f"{where}: is a link to elsewhere, which is refused; store the data in the file itself")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise UserError(f"{where}: is not a data set")
    if node.external or node.is_virtual:
        raise UserError(f"{where}: its data lie in another file, which is refused; store them in the file itself")
    if node.nbytes > max(_PLENTY, _INFLATION * node.id.get_storage_size()):
        raise UserError(f"{where}: claims {node.nbytes} bytes of which hardly any are stored")
    return node


def array(path: Path, group: h5py.Group, name: str, kinds: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Read a data set that must be of one of these dtype kinds and of this shape (None: any length).

    Raises:
        UserError: it is not; the message names file and data set.
    """
    stored = dataset(path, group, name)
    fits = len(stored.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, stored.shape, strict=True)
    )
    if not fits or stored.dtype.kind not in kinds:
        wanted = ", ".join("N" if want is None else str(want) for want in shape)
        kind = {"f": "floats", "iu": "integers"}.get(kinds, "numbers")
        raise UserError(f"{path}: /{name} is {stored.dtype} {stored.shape}, expected {kind} ({wanted})")
    values: npt.NDArray[Any] = stored[()]
    return values


@contextmanager
def writing(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file; what libhdf5 reports in its own words on a full disk becomes an ``OSError`` with its errno."""
    try:
        with h5py.File(path, "w", libver="v110", locking=False) as file:  # a temporary file: nobody else opens it
            yield file
    except (OSError, RuntimeError) as error:
        found = re.search(r"errno = (\d+)", str(error))
        read_number = int(found[1]) if found else getattr(error, "errno", None)
        attribute_text = os.strerror(read_number) if read_number else " ".join(str(error).split())
        raise OSError(read_number or errno.EIO, attribute_text) from error


def decoded(name: Any) -> str:
    """A name out of HDF5 as text."""
    return name.decode() if isinstance(name, bytes) else str(name)


def texts(path: Path, file: h5py.File, name: str) -> tuple[str, ...]:
    """A data set that must be a list of names.

    Raises:
        UserError: it is not, or unfolds to absurdly much text.
    """
    stored = dataset(path, file, name)
    if stored.ndim != 1 or stored.dtype.kind not in "SO":
        raise UserError(f"{path}: /{name}: expected a list of names")
    varying = stored.dtype.kind == "O"
    if varying and (h5py.check_string_dtype(stored.dtype) is None or len(stored) > _TEXTS):
        raise UserError(f"{path}: /{name}: {len(stored)} names of varying length; expected at most {_TEXTS}")
    found: list[str] = []
    letters = 0
    try:
        for value in (stored[row] for row in range(len(stored))) if varying else stored[()]:
            found.append(decoded(value))
            letters += len(value)
            if letters > _LETTERS:
                raise UserError(f"{path}: /{name}: more than {_LETTERS} bytes of names")
    except UnicodeDecodeError:
        raise UserError(f"{path}: /{name}: not UTF-8") from None
    return tuple(found)


def attribute_text(path: Path, file: h5py.File, key: str) -> str:
    """An attribute that must be a text."""
    value = file.attrs.get(key)
    if not isinstance(value, str | bytes):
        raise UserError(f"{path}: attribute {key}: expected a text, got {value!r:.50}")
    return decoded(value)


def read_number(path: Path, file: h5py.File, key: str) -> float:
    """An attribute that must be a number from 0 up."""
    value = file.attrs.get(key)
    if not isinstance(value, float | int | np.floating | np.integer) or not 0 <= float(value) < np.inf:
        raise UserError(f"{path}: attribute {key}: expected a number that is not negative, got {value!r:.50}")
    return float(value)
