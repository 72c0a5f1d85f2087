"""A folder served as an S3 bucket that takes its time for every answer: listing and reading, nothing else.

moto takes milliseconds of processor time for a request, so that with it a benchmark of reading would measure moto.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000  # keys in an answer, as S3 has it


class _Bucket:
    """Answers to requests on a folder."""

    def __init__(self, folder: Path, delay: float) -> None:
        self.folder, self.delay = folder, delay
        self.sizes: dict[str, tuple[int, float]] = {}
        for place, _, names in os.walk(folder):
            for name in names:
                path = Path(place, name)
                found = path.stat()
                self.sizes[path.relative_to(folder).as_posix()] = (found.st_size, found.st_mtime)
        self.keys = sorted(self.sizes)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await asyncio.sleep(self.delay)
                method, target, _ = head.split(" ", 2)
                ranged = [line for line in head.split("\r\n") if line.lower().startswith("range:")]
                writer.write(self.answer(method, target, ranged[0].partition("=")[2] if ranged else ""))
                await writer.drain()

    def answer(self, method: str, target: str, ranged: str) -> bytes:
        parts = urlsplit(target)
        key = unquote(parts.path).strip("/").partition("/")[2]
        asked = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if "list-type" in asked:
            return _response("200 OK", self.page(asked), "application/xml")
        if key not in self.sizes:
            return _response("404 Not Found", b"")
        size, changed = self.sizes[key]
        status, begin, end = "200 OK", 0, size
        if ranged:
            first, _, last = ranged.partition("-")
            status, begin, end = "206 Partial Content", int(first), min(size, int(last) + 1 if last else size)
        more = f'Last-Modified: {email.utils.formatdate(changed, usegmt=True)}\r\nETag: "0"\r\n'
        if method == "HEAD":
            return _response(status, b"", length=size, more=more)
        with (self.folder / key).open("rb") as stream:
            stream.seek(begin)
            return _response(status, stream.read(end - begin), more=more)

    def page(self, asked: dict[str, str]) -> bytes:
        """One page of a listing, as ListObjectsV2 gives it."""
        from bisect import bisect_left, bisect_right

        prefix, after = asked.get("prefix", ""), asked.get("continuation-token", "")
        begin = bisect_right(self.keys, after) if after else bisect_left(self.keys, prefix)
        found = []
        for key in self.keys[begin : begin + min(PAGE, int(asked.get("max-keys", PAGE)))]:
            if not key.startswith(prefix):
                break
            found.append(key)
        last = begin + len(found)
        cut = last < len(self.keys) and self.keys[last].startswith(prefix) and bool(found)
        rows = "".join(
            f"<Contents><Key>{escape(quote(key) if asked.get('encoding-type') == 'url' else key)}</Key>"
            f'<LastModified>{_time(self.sizes[key][1])}</LastModified><ETag>"0"</ETag><Size>{self.sizes[key][0]}</Size>'
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in found
        )
        token = f"<NextContinuationToken>{escape(found[-1])}</NextContinuationToken>" if cut else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount><MaxKeys>{PAGE}"
            f"</MaxKeys><IsTruncated>{'true' if cut else 'false'}</IsTruncated>{token}{rows}</ListBucketResult>"
        )
        return text.encode()


def _time(seconds: float) -> str:
    import datetime

    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _response(
    status: str, body: bytes, kind: str = "application/octet-stream", length: int = -1, more: str = ""
) -> bytes:
    length = len(body) if length < 0 else length
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n".encode() + body


def _main(folder: Path, delay: float, said: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(_Bucket(folder, delay).serve, "127.0.0.1", 0, backlog=1024)
        said.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


@contextlib.contextmanager
def serving(folder: Path, delay: float) -> Iterator[dict[str, str]]:
    """Serve what lies in a folder now as ``s3://bucket``, ``delay`` seconds after each request.

    Yields:
        What the environment must say.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_main, args=(folder, delay, there), daemon=True)
    process.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{here.recv()}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        process.kill()
        process.join()
