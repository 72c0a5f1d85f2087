"""Runs on the node of a study's driver, as a small job: sends files of the run folder by its own output.

It travels by itself and needs the standard library alone, so that it does not matter which tips-dist, if any, the
``python3`` of that node has. ``order.json`` beside it says what is asked for (:mod:`tips_dist.study.job_folder` writes
it, and reads the answer). The output is a line with the order's nonce, then a gzipped tar: ``listing.json``, the run's
``study.json``, then what is asked for and differs from what the other side has, up to a number of bytes.

What was sent stands in the job's log on this node until the other side stops the job; then, or after an hour, the log
is emptied.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import json
import os
import re
import signal
import socket
import stat
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, BinaryIO

LISTING, STUDY, LOCK, NOTE = "listing.json", "study.json", "lock", "mirror.json"
LINGER_SECONDS = 3600.0  # that the other side may take to read the output
SAME_SECONDS = 0.001  # by which times of one file may differ after they travelled


def send(order: dict[str, Any], out: BinaryIO) -> None:
    """Answer an order: ``run``, ``layout`` and ``wanted`` (patterns), ``have``, ``only`` and ``most_bytes``."""
    run = Path(order["run"])
    found = present_files(run, order["layout"])
    listing: dict[str, Any] = {"files": {name: [one.st_size, one.st_mtime] for name, one in found.items()}}
    note = working(run, order["job"])
    if note is not None:  # a mirror's own would be taken for that of a driver on the reader's machine
        listing["files"][NOTE] = [len(note), time.time()]
    out.write(f"\n{order['nonce']}\n".encode())
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        put(tar, LISTING, json.dumps(listing).encode())
        if STUDY not in found:
            return
        add(tar, run, STUDY)
        sent = 0
        for name in to_send(listing["files"], order):
            size = add(tar, run, name) if name != NOTE or note is None else put(tar, name, note)
            sent += size
            if sent >= order["most_bytes"]:
                return


def present_files(run: Path, patterns: list[str]) -> dict[str, os.stat_result]:
    """The run folder's files that fit a pattern of the layout, by name; nothing that is a link or lies behind one."""
    known = expression(patterns)
    found = {}
    for place, _, names in os.walk(run, followlinks=False):
        prefix = "" if place == str(run) else os.path.relpath(place, run) + "/"
        for name in (prefix + name for name in names):
            if known.fullmatch(name):
                with contextlib.suppress(OSError):  # it has gone meanwhile
                    one = (run / name).lstat()
                    if stat.S_ISREG(one.st_mode):
                        found[name] = one
    return found


def expression(patterns: list[str]) -> re.Pattern[str]:
    """One expression for patterns in which ``*`` stands for no slash; the group that fits is the pattern's number."""
    return re.compile("|".join("(" + "[^/]*".join(map(re.escape, one.split("*"))) + ")" for one in patterns))


def to_send(there: dict[str, list[float]], order: dict[str, Any]) -> list[str]:
    """The names to send, in the order of the patterns wanted."""
    wanted, have, only = expression(order["wanted"]), order["have"], order["only"]
    places = {}
    for name, (size, changed) in there.items():
        fits = wanted.fullmatch(name)
        here = have.get(name)
        same = here is not None and here[0] == size and abs(here[1] - changed) < SAME_SECONDS
        if fits and name != STUDY and (not same if only is None else name in only):
            places[name] = (fits.lastindex or 0, name)
    return sorted(places, key=lambda name: places[name])


def add(tar: tarfile.TarFile, run: Path, name: str) -> int:
    """Add a file as it is now, so far as it is written; one that has gone is left out."""
    try:
        descriptor = os.open(run / name, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return 0
    with os.fdopen(descriptor, "rb") as stream:
        one = os.fstat(descriptor)
        member = tarfile.TarInfo(name)
        member.size, member.mtime = one.st_size, one.st_mtime
        tar.addfile(member, stream)
        return one.st_size


def put(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file that is none here."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(content), int(time.time())
    tar.addfile(member, io.BytesIO(content))
    return len(content)


def working(run: Path, job: str) -> bytes | None:
    """What a copy's ``mirror.json`` says while somebody works on the run: who; None if nobody does."""
    with contextlib.suppress(OSError, ValueError), (run / LOCK).open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            who = json.loads(stream.read() or b"{}")
            host = f"{who.get('host', socket.gethostname())} (job {job})"
            about = {"host": host, "pid": int(who.get("pid", 0)), "time": time.time(), "interval_seconds": 30.0}
            return json.dumps({"url": mirrored_to(run), "ended": False, **about}).encode()
    return None


def mirrored_to(run: Path) -> str:
    """The address that the run is mirrored to; empty if it is not."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads((run / NOTE).read_bytes())["url"])
    return ""


def over(*_: object) -> None:
    """Empty the log and end at once."""
    with contextlib.suppress(OSError):
        os.ftruncate(1, 0)
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, over)
    with contextlib.suppress(OSError):
        os.fchmod(1, 0o600)
    with open(1, "wb", closefd=False) as output:
        send(json.loads(Path(sys.argv[0]).with_name("order.json").read_text()), output)
    time.sleep(LINGER_SECONDS)
    over()
