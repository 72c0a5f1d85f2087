"""Run folders and data at an address (``s3://…``, ``gs://…``, whatever pyarrow or fsspec opens).

A run folder lives on a file system, where its driver works. ``mirror.py`` copies it to an address while the study runs;
``runfolder/fetching.py`` brings what a command needs of it into a local cache. Nothing is ever worked on in place: an
object store has neither append nor rename nor locks (docs/storage.md says what follows from that).
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tips_dist.addresses import check_address
from tips_dist.addresses import is_address as is_address
from tips_dist.files import StorageError, UserError, home, write_with
from tips_dist.patience import try_again

PATIENCE_SECONDS = 300.0  # that storage may be away before the study's end is reported as not mirrored
PARALLEL = 64  # requests under way while many files are fetched: what waits is the network, not this machine
_CHUNK = 2**20
_REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE", "HTTP status 403", "not found")

T = TypeVar("T")


@dataclass(frozen=True)
class StoredFile:
    """A file at an address: bytes and the time it was written (s since 1970)."""

    size: int
    changed: float


class Store:
    """Files below an address. Every call is repeated while storage is away, for ``patience`` seconds."""

    def __init__(self, url: str, patience: float = 30.0) -> None:
        """Prepare; nothing is asked of the storage yet.

        Raises:
            UserError: nobody knows this kind of address, or it holds credentials (they would end up in records).
        """
        check_address(url)
        self.url, self._patience = url, patience
        try:
            self._files, self._base = self._patiently(lambda: _file_system(url))
        except (ImportError, ValueError, TypeError) as error:
            raise UserError(f"{url}: not an address that pyarrow or fsspec can open ({_line(error)})") from None
        self._local = urlsplit(url).scheme in ("file", "local")

    def list(self, *, few: bool = False) -> dict[str, StoredFile]:
        """Every file below the address (``few``: directly below), by its path relative to it; may be none."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._base, recursive=not few, allow_not_found=True)
        found = self._patiently(lambda: self._files.get_file_info(selector))
        prefix = self._base.rstrip("/") + "/"
        entries = {
            info.path.removeprefix(prefix): StoredFile(info.size or 0, (info.mtime_ns or 0) / 1e9)
            for info in found
            if info.type == FileType.File
        }
        return {name: entry for name, entry in entries.items() if not (self._local and self._reaches_out(name))}

    def _reaches_out(self, name: str) -> bool:
        """On a disk: whether a name is reached through a link, which may lead anywhere."""
        try:
            linked(Path(self._base), name)
        except UserError:
            return True
        return False

    def put(self, file: Path | IO[bytes], name: str) -> None:
        """Copy a local file to the address. Object stores show a whole object or none, and so do disks.

        Raises:
            UserError: on a disk, the place is reached through a link.
            StorageError: storage does not answer.
            FileNotFoundError: the local file has gone.
        """
        self._check(name, writing=True)
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as source:
            if self._local:
                write_with(Path(self._at(name)), lambda temporary: _copy(source, temporary))
                return

            def copy() -> None:
                source.seek(0)
                with self._files.open_output_stream(self._at(name)) as target:
                    shutil.copyfileobj(source, target, _CHUNK)

            try:
                self._patiently(copy)
            except FileNotFoundError:
                self._files.create_dir(self._at(name).rpartition("/")[0], recursive=True)  # file systems need folders
                self._patiently(copy)

    def get(self, name: str, path: Path) -> None:
        """Copy a file from the address, atomically; it can be had again, so it is not synced to disk.

        Raises:
            FileNotFoundError: it has gone.
        """

        self._check(name)

        def read(temporary: Path) -> None:
            def copy() -> None:
                with self._files.open_input_stream(self._at(name)) as source, temporary.open("wb") as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)

            self._patiently(copy)

        try:
            write_with(path, read, lasting=False)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise

    def bring(self, wanted: Mapping[str, StoredFile], folder: Path) -> Iterator[str]:
        """Copy many files into a folder, :data:`PARALLEL` at a time; yields the name of each that is there or has gone.

        A file that goes meanwhile, as a beaten candidate does, is removed from the folder.

        Raises:
            StorageError: storage does not answer; what has come stays.
        """

        def one(name: str, entry: StoredFile) -> str:
            path = inside(folder, name)
            try:
                self.get(name, path)
                os.utime(path, (entry.changed, entry.changed))
            except FileNotFoundError:
                path.unlink(missing_ok=True)
            return name

        with ThreadPoolExecutor(min(PARALLEL, max(1, len(wanted))), "fetch") as pool:
            under_way = [pool.submit(one, name, entry) for name, entry in wanted.items()]
            try:
                for ended in as_completed(under_way):
                    yield ended.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def read(self, name: str, most_bytes: int = 2**26) -> bytes:
        """A small file's content.

        Raises:
            UserError: it is larger than ``most_bytes``.
            FileNotFoundError: it has gone.
        """
        self._check(name)

        def content() -> bytes:
            with self._files.open_input_stream(self._at(name)) as source:
                return bytes(source.read(most_bytes + 1))

        found = self._patiently(content)
        if len(found) > most_bytes:
            raise UserError(f"{self.url}: {name} is larger than {most_bytes} bytes")
        return found

    def _check(self, name: str, *, writing: bool = False) -> None:
        """On a disk, refuse names that are reached through links."""
        if self._local:
            if writing and Path(self._base).is_symlink():
                raise UserError(f"{self._base}: is a link, and nothing is written through it; remove it")
            linked(Path(self._base), name)

    def delete(self, name: str) -> None:
        """Remove one file; a file that has gone is fine."""

        self._check(name, writing=True)

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._files.delete_file(self._at(name))

        self._patiently(remove)

    def _at(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}" if name else self._base

    def _patiently(self, action: Callable[[], T]) -> T:
        try:
            return try_again(action, self._patience, errors=(OSError,), hopeless=_hopeless)
        except FileNotFoundError:
            raise
        except OSError as error:
            if _hopeless(error):
                raise UserError(f"{self.url}: storage refuses ({_line(error)})") from error
            raise StorageError(f"{self.url}: storage does not answer ({_line(error)})") from error


def _copy(source: IO[bytes], path: Path) -> None:
    source.seek(0)
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _hopeless(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or any(sign in _line(error) for sign in _REFUSALS)


def below(url: str, name: str) -> str:
    """The address of ``name`` below an address (which may carry a query, as endpoints do)."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def fetch_file(url: str, patience: float = 30.0) -> Path:
    """Bring one file to the cache of this machine, if it is not there already; its local path.

    Raises:
        UserError: there is no such file, or storage refuses.
        StorageError: storage does not answer.
    """
    from pyarrow.fs import FileType

    store = Store(url, patience)
    info = store._patiently(lambda: store._files.get_file_info(store._base))
    if info.type != FileType.File:
        raise UserError(f"{url}: no such file")
    entry = StoredFile(info.size or 0, (info.mtime_ns or 0) / 1e9)
    path = cache_folder(url)
    if not same(path, entry):
        store.get("", path)
        os.utime(path, (entry.changed, entry.changed))
    return path


def cache_folder(url: str, mark: str = "") -> Path:
    """Where copies of an address lie on this machine; its name is that of the run folder, ``mark`` tells runs apart."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "tips-dist"
    parts = urlsplit(url)
    return base / hashlib.sha256(f"{url}{mark}".encode()).hexdigest()[:16] / (Path(parts.path).name or parts.netloc)


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, refused if it would lie outside.

    Raises:
        UserError: the name climbs out of the folder or is absolute.
    """
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise UserError(f"{name!r}: a file name that leaves its folder; not copied")
    return folder / name


def linked(folder: Path, name: str) -> Path:
    """``folder / name``, refused if anything below the folder on the way there is a link (or leaves the folder).

    Raises:
        UserError: it is; the message names the link.
    """
    path = inside(folder, name)
    for place in [path, *path.parents][: len(Path(name).parts)]:
        if place.is_symlink():
            raise UserError(f"{place}: is a link, and nothing is written or read through it; remove it")
    return path


def _file_system(url: str) -> tuple[Any, str]:
    import pyarrow
    from pyarrow import fs

    pyarrow.set_io_thread_count(max(PARALLEL, pyarrow.io_thread_count()))  # by it pyarrow bounds its connections
    parts = urlsplit(url)
    if parts.scheme == "s3":
        more = [] if "allow_delayed_open" in parts.query else ["allow_delayed_open=true"]  # a small file: one request
        elsewhere = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} & os.environ.keys() or "endpoint_override" in url
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        region = region or ("us-east-1" if elsewhere else None)
        if region and "region=" not in parts.query:  # else pyarrow asks Amazon where the bucket lies
            more.append(f"region={region}")
        url = urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, *more]))))
    if parts.scheme in ("s3", "gs", "gcs", "hdfs", "file", "abfs", "abfss"):
        return fs.FileSystem.from_uri(url)  # type: ignore[no-any-return]
    import fsspec

    files, path = fsspec.core.url_to_fs(url)
    return fs.PyFileSystem(fs.FSSpecHandler(files)), path


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits any of the patterns."""
    return _expression(tuple(patterns)).match(name) is not None


@functools.lru_cache
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


def same(path: Path, entry: StoredFile) -> bool:
    """Whether a local file is the copy of what lies at the address now."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == entry.size and abs(found.st_mtime - entry.changed) < 0.001


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
