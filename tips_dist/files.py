"""Atomic writes, JSON lines and the one exception type that is meant for people."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

_HERE = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:16]
MOST_TEXT = 2**24  # bytes of a text file that people write

# What a JSON file may hold where nothing more is known; whatever is ours has a class (tips_dist.runfolder).
JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"


class UserError(Exception):
    """Bad input or an unusable environment: the command line prints it as one line and exits with 2.

    The message says what was wrong, where (file, key, row), and what would be right.
    """


class UnavailableError(UserError):
    """Something that the work needs is not to be had just now, for no fault of the input. Exit code 1."""


class StorageError(UserError):
    """A write failed (full disk, read-only file system); the last good state was kept. Exit code 1."""


def home() -> Path:
    """The user's own folder; the one for temporary files where a user has none (a mere number, in a container)."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def check_file(path: Path, what: str = "file", hint: str = "") -> None:
    """Refuse what is no ordinary file before anything opens it: a pipe would never end, a device never be full.

    Raises:
        UserError: it is missing, a folder, a pipe, a device, or has a name that no file can have.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{shown(path)}: no such {what}" + (f"; {hint}" if hint else "")) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{shown(path)}: cannot be read as a {what} ({reason})") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise UserError(f"{shown(path)}: is {kind}, expected a {what}")


def read_text(path: Path, what: str = "file", most_bytes: int = MOST_TEXT) -> str:
    """The text (UTF-8) of an ordinary file that is not larger than ``most_bytes``.

    Raises:
        UserError: it is missing, no ordinary file, too large or no text.
    """
    check_file(path, what)
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise UserError(f"{shown(path)}: larger than {most_bytes / 1e6:.0f} MB; this is no {what}")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
        raise UserError(f"{shown(path)}: cannot be read as a {what} ({reason})") from None


def shown(value: object, most: int = 200) -> str:
    """``value`` as text for a message: one line, its middle left out if it is long."""
    text = " ".join(str(value).split()) or repr(str(value))
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        StorageError: the disk is full or not writable; the old file, if any, is untouched.
    """
    write_with(path, lambda temporary: _write_all(temporary, content))


def write_text(path: Path, text: str) -> None:
    """Atomically write ``text`` as UTF-8 (see :func:`write_bytes`)."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Atomically write ``value`` as indented JSON with sorted keys; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_with(path: Path, writer: Callable[[Path], None], *, lasting: bool = True) -> None:
    """Let ``writer`` fill a temporary file beside ``path``, sync it to disk and move it into place.

    What can be had again need not be ``lasting``: it is not synced, and a crash of the machine may lose it.
    """
    temporary = path.with_name(f".{path.name}.{_HERE}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_leftovers(path)
        new = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)  # never through a link that lies there
        mode = os.fstat(new).st_mode  # what the umask makes of a new file; safetensors would leave 0600
        os.close(new)
        writer(temporary)
        with temporary.open("rb") as stream:
            os.fchmod(stream.fileno(), stat.S_IMODE(mode))
            if lasting:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.exists() else None


def _drop_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` whose writers, on this machine, were killed (or are this very process)."""
    start = f".{path.name}.{_HERE}-"
    for name in os.listdir(path.parent):  # noqa: PTH208 (names are all that is needed, at every write)
        if name.startswith(start) and name.endswith(".tmp"):
            process = name.removeprefix(start).removesuffix(".tmp")
            if not process.isdecimal() or int(process) == os.getpid() or not _lives(int(process)):
                path.with_name(name).unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def half_folder(path: Path, family: str) -> Path:
    """Where a folder is filled before it is renamed to ``path``; what killed makers of the family's left is removed.

    Args:
        path: the folder to be.
        family: how the names of such folders begin.
    """
    for left in path.parent.glob(f".{glob.escape(family)}*.{_HERE}-*.tmp") if path.parent.is_dir() else ():
        process = left.name.removesuffix(".tmp").rpartition("-")[2]
        if process.isdecimal() and not _lives(int(process)) and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    return path.with_name(f".{path.name}.{_HERE}-{os.getpid()}.tmp")


def drop_unfinished(folder: Path) -> list[Path]:
    """Remove what killed writers left below a folder that nobody else writes into now; links are not followed.

    Returns:
        What was removed.
    """
    found = [
        Path(place, name)
        for place, _, names in os.walk(folder, followlinks=False)
        for name in names
        if name.startswith(".") and name.endswith(".tmp")
    ]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def storage_error(path: Path, error: OSError) -> StorageError:
    """Turn an ``OSError`` of a write into words."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and resume",
        errno.EDQUOT: "the disk quota is used up; free some space and resume",
        errno.EROFS: "the file system is read-only; choose another folder with --runs",
        errno.EACCES: "permission denied; choose a folder you may write to",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"{path}: cannot write: {reason} (the last good state was kept)")


def read_json(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        UserError: the file is missing or is not JSON; the message names the file and the position.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def append_json_lines(path: Path, rows: Sequence[Mapping[str, JSON]]) -> None:
    """Append ``rows`` to ``path``, one JSON object a line, in a single write."""
    append_text(path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows))


def append_text(path: Path, text: str) -> None:
    """Append ``text`` to ``path`` as UTF-8 in a single write.

    Raises:
        StorageError: the disk is full or not writable.
    """
    try:
        with path.open("ab") as stream:
            stream.write(text.encode())
            stream.flush()
    except OSError as error:
        raise storage_error(path, error) from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)
