"""The run folder of a submitted study, read through the cluster's dashboard alone: no storage, no second port.

The folder lies on the node of the job's driver. A second, small job on that very node (:mod:`tips_dist.study.sending`)
packs what a command reads of it into its output, which Ray hands out as bytes while it is written, by the same port and
token as everything else about jobs. The job is stopped and forgotten when everything has come; its log is emptied.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tips_dist.files import StorageError, UserError, write_with
from tips_dist.runfolder import layout
from tips_dist.runfolder.fetching import below_shown, fetch_from
from tips_dist.storage import StoredFile, cache_folder, inside, linked
from tips_dist.study import sending
from tips_dist.study.jobs import ENDED, Jobs
from tips_dist.study.packing import WORKS_IN

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_BYTES = 256 * 2**20  # sent by one job: it stands in a log on the driver's node meanwhile
MOST_LISTING = 2**28  # bytes
MOST_SAID = 2**22  # bytes of a job's log in which it must have said where it works
START_SECONDS = 300.0  # that the node may take to start a job and to list the folder


def fetch_job(address: str, identity: str, command: str = "everything", folder: Path | None = None) -> Path:
    """Bring what a command reads of the run folder of a job to this machine; see :func:`fetch_run` for the rest.

    Args:
        address: of the cluster's dashboard.
        identity: of the job that ``submit`` printed.
        command: decides which files.
        folder: where to; a cache of ours by default.

    Raises:
        UserError: no such job, it has no run folder yet, its node has gone, or as :func:`fetch_run` says.
        StorageError: the connection broke; what has come stays, and the same call goes on.
    """
    jobs = Jobs(address)
    job = jobs.status(identity)
    cache = cache_folder(below_shown(address, identity), job.started or "")
    with JobFolder(jobs, identity, command, folder or cache) as source:
        return fetch_from(source, command, folder, cache=cache)


class JobFolder:
    """The run folder of a job, as :func:`tips_dist.runfolder.fetching.fetch_from` reads one."""

    def __init__(self, jobs: Jobs, identity: str, command: str, local: Path) -> None:
        """Prepare to read what ``command`` needs and ``local``, a copy that may be there already, lacks."""
        self.url = below_shown(jobs.address, identity)
        self._jobs, self._identity, self._local = jobs, identity, local
        kinds = [file for file in layout.FILES if file.kind is not layout.FileKind.LOCAL]
        kinds.sort(key=lambda file: file.kind, reverse=True)  # as fetching wants them
        needed = layout.needs(command)
        self._layout = [file.pattern for file in kinds]
        self._wanted = [name for name in self._layout if name in needed or "*" in needed]
        self._run = _told(jobs, identity)
        self._open = contextlib.ExitStack()
        self._stream: Iterator[tuple[str, IO[bytes], StoredFile]] = iter(())
        self._study = b""
        self._arrived: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def list(self) -> dict[str, StoredFile]:
        """Every file of the run folder; begins to send those that the copy lacks."""
        have = {
            path.relative_to(self._local).as_posix(): (path.stat().st_size, path.stat().st_mtime)
            for pattern in self._wanted
            for path in self._local.glob(pattern)
            if path.is_file()
        }
        return self._ask(have=have, only=None)

    def read(self, name: str) -> bytes:
        """``study.json``: the one file that is sent whatever there is here."""
        assert name == layout.STUDY.name
        return self._study

    def bring(self, wanted: Mapping[str, StoredFile], folder: Path) -> Iterator[str]:
        """Copy files as they come, in as many jobs as it takes; yields the name of each that is there or has gone.

        Raises:
            StorageError: the connection broke.
            UserError: something comes that is no file of a run folder.
        """
        if layout.STUDY.name in wanted:
            self._put(folder, layout.STUDY.name, io.BytesIO(self._study), wanted[layout.STUDY.name])
        yield from wanted.keys() & self._arrived
        left, idle = wanted.keys() - self._arrived, 0
        while left:
            before = len(left)
            for name in self._taken(folder):
                if name in left:
                    left.remove(name)
                    yield name
                if not left:
                    return
            idle = idle + 1 if len(left) == before else 0
            if idle > 1:
                raise StorageError(
                    f"{self.url}: sends no more of what it has, {min(left)} for one; do it again to go on"
                )
            there = self._ask(have={}, only=sorted(left))
            for name in left - there.keys():
                inside(folder, name).unlink(missing_ok=True)
                left.remove(name)
                yield name

    def _taken(self, folder: Path) -> Iterator[str]:
        """Put what comes into the folder."""
        for name, content, entry in self._stream:
            if not (layout.in_layout(name) and layout.copied(name)):
                raise UserError(f"{self.url}: sends {name!r:.80}, which is no file of a run folder")
            self._put(folder, name, content, entry)
            yield name

    def _put(self, folder: Path, name: str, content: IO[bytes], entry: StoredFile) -> None:
        def write(temporary: Path) -> None:
            with temporary.open("wb") as target:
                shutil.copyfileobj(content, target, 2**20)

        path = linked(folder, name)
        write_with(path, write, lasting=False)
        os.utime(path, (entry.changed, entry.changed))
        self._arrived.add(name)

    def _ask(self, *, have: Mapping[str, Sequence[float]], only: Sequence[str] | None) -> dict[str, StoredFile]:
        """Start a job that sends; returns what it lists, and leaves the rest to be taken."""
        self._open.close()
        nonce = secrets.token_hex(16)
        order = {
            "run": self._run,
            "job": self._identity,
            "nonce": nonce,
            "layout": self._layout,
            "wanted": self._wanted,
            "have": have,
            "only": only,
            "most_bytes": MOST_BYTES,
        }
        job = self._open.enter_context(_sender(self._jobs, self._identity, order))
        output = self._open.enter_context(
            contextlib.closing(_Output(self._jobs.output(job, follow=True), nonce, self.url))
        )
        self._stream = _members(output)
        try:
            listing = json.loads(next(self._stream)[1].read(MOST_LISTING))["files"]
            there = {str(name): StoredFile(int(size), float(changed)) for name, (size, changed) in listing.items()}
            if layout.STUDY.name in there:
                self._study = next(self._stream)[1].read(MOST_LISTING)
        except (ValueError, TypeError, LookupError, AttributeError, StopIteration) as error:
            raise UserError(f"{self.url}: its answer is no run folder ({error!r:.100})") from None
        return there


def _told(jobs: Jobs, identity: str) -> str:
    """The run folder of a job, as its driver says near the beginning of its log.

    Raises:
        UserError: it has not said so.
    """
    said = b""
    for chunk in jobs.output(identity):
        said += chunk
        for line in said.splitlines(keepends=True):
            if line.startswith(WORKS_IN.encode()) and line.endswith(b"\n"):
                return line.decode().removeprefix(WORKS_IN).rstrip("\n")
        if len(said) > MOST_SAID:
            break
        said = said[said.rfind(b"\n") + 1 :] if len(said) > 2**16 else said
    state = jobs.status(identity).status
    raise UserError(
        f"{identity}: has not said where its run folder lies (it is {state}; it may not have begun, or be of an older "
        f"version); 'tips-dist jobs logs {identity}' shows what it said"
    )


@contextlib.contextmanager
def _sender(jobs: Jobs, identity: str, order: Mapping[str, object]) -> Iterator[str]:
    """A job that sends what is ordered, while the body reads it; afterwards it is stopped and forgotten.

    Raises:
        UserError: the node does not start it.
    """
    with tempfile.TemporaryDirectory(prefix="tips-dist-reads-") as name:
        shutil.copyfile(sending.__file__, Path(name, "sending.py"))
        Path(name, "order.json").write_text(json.dumps(order))
        job = jobs.errand(identity, Path(name), 'exec "$(command -v python3 || command -v python)" sending.py')
    try:
        _wait_for_the_first(jobs, job, str(order["nonce"]).encode())
        yield job
    finally:
        jobs.forget(job)


def _wait_for_the_first(jobs: Jobs, job: str, nonce: bytes) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended, said = jobs.status(job).status in ENDED, b""
        if jobs.node(job) is not None:
            for chunk in jobs.output(job):
                said += chunk
                if nonce in said:
                    return
        if ended:
            raise UserError(
                f"{job}: could not send the run folder ({' '.join(said.decode(errors='replace').split())[-300:]})"
            )
        time.sleep(0.3)
    raise UserError(f"{job}: the node of the job's driver did not start it within {START_SECONDS:.0f} s")


class _Output(io.RawIOBase):
    """What a sender packed, unpacked: begins behind the nonce, ends where the sender ended, breaks loudly before."""

    def __init__(self, chunks: Iterator[bytes], nonce: str, url: str) -> None:
        self._chunks, self.url = chunks, url
        self._unpack, self._packed = zlib.decompressobj(wbits=31), b""
        mark = f"\n{nonce}\n".encode()
        while mark not in self._packed:
            self._packed += self._next()
        self._packed = self._packed.partition(mark)[2]

    def _next(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StorageError(f"{self.url}: the connection broke; do it again to go on")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while not self._unpack.eof:
            try:
                found = self._unpack.decompress(self._packed, len(view))
            except zlib.error as error:
                raise StorageError(f"{self.url}: what came is damaged ({error}); do it again to go on") from None
            self._packed = self._unpack.unconsumed_tail
            if found:
                view[: len(found)] = found
                return len(found)
            if not self._unpack.eof:
                self._packed += self._next()
        return 0

    def close(self) -> None:
        if hasattr(self._chunks, "close"):
            self._chunks.close()
        super().close()


def _members(output: _Output) -> Iterator[tuple[str, IO[bytes], StoredFile]]:
    """The files that come, one after the other: name, content (to be read before the next), size and time."""
    try:
        with tarfile.open(fileobj=io.BufferedReader(output, 2**18), mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content, StoredFile(member.size, float(member.mtime))
    except tarfile.TarError as error:
        raise StorageError(f"{output.url}: what came is damaged ({error}); do it again to go on") from None
