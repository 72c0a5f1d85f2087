"""Unpickling that knows plain containers, numbers, texts and numeric arrays, and nothing else.

numpy's object arrays are pickles, and a pickle is a program. Here every name that the pickle asks for is looked up in
a short table of stand-ins written below, so no function or class of another module is ever called with what the file
says.
"""

from __future__ import annotations

import codecs
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tips_dist.data.npz import member_stream
from tips_dist.files import UserError

_KINDS = "biufSU"  # numbers and texts


class _DType:
    """Stands in for numpy.dtype: a numeric type or ``O``, with its byte order."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or len(name) > 8:
            raise pickle.UnpicklingError(f"a type {name!r:.40}")
        self.object = name.startswith("O")
        self.dtype = np.dtype(object) if self.object else np.dtype(name)
        if not self.object and (self.dtype.kind not in _KINDS or self.dtype.subdtype or self.dtype.names):
            raise pickle.UnpicklingError(f"a type {name!r:.40}")

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order in ("<", ">") and not self.object:
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for numpy.ndarray: keeps the state and becomes an array in :func:`_plain`."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array of unknown type")
        if dtype.object:
            if not isinstance(data, list):
                raise pickle.UnpicklingError("an object array without its list")
            self.value = data if len(shape) else data[0]
        else:
            flat = np.frombuffer(_bytes(data), dtype=dtype.dtype)
            self.value = flat.reshape(shape, order="F" if fortran else "C")


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):  # Python 2 pickles
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array without bytes")
    return bytes(data)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError("a subclass of array")
    return _Array()


def _scalar(dtype: Any, data: Any = None) -> Any:
    if not isinstance(dtype, _DType) or dtype.object:
        raise pickle.UnpicklingError("a number of unknown type")
    return np.frombuffer(_bytes(data), dtype=dtype.dtype)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("an unknown encoding")
    return codecs.encode(text, "latin1")


def _empty_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise pickle.UnpicklingError("bytes from something")
    return b""


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
    **{
        (module, name): function
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference to elsewhere")


def load_object(archive: zipfile.ZipFile, path: Path, key: str) -> Any:
    """The pickled object that ``numpy.savez`` stored under ``key``: dicts, lists and numeric arrays.

    Raises:
        UserError: the key is missing, is not an object array, or asks for anything but plain data.
    """
    with member_stream(archive, path, key) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            _, _, dtype = header[version](stream)
            if dtype != np.dtype(object):
                raise UserError(f"{path}: {key} is {dtype}, expected a pickled object")
            return _load(stream)
        except UserError:
            raise
        except RecursionError:
            raise UserError(f"{path}: {key}: nested too deeply") from None
        except Exception as error:  # whatever a damaged pickle makes of the unpickler
            raise UserError(f"{path}: {key}: cannot be unpickled: {error!s:.200}") from None


def _load(stream: IO[bytes]) -> Any:
    value = _plain(_Unpickler(stream, encoding="latin1").load())
    while isinstance(value, list) and len(value) == 1:  # a zero-dimensional object array
        value = value[0]
    return value


def _plain(value: Any, depth: int = 0) -> Any:
    """Stand-ins replaced by what they stand for, all the way down."""
    if depth > 20:
        raise pickle.UnpicklingError("nested too deeply")
    if isinstance(value, _Array):
        return _plain(value.value, depth + 1)
    if isinstance(value, dict):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, str | bytes | int | float | np.ndarray):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__}")
