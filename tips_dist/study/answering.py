"""What a node says of itself when it is asked (see :mod:`tips_dist.study.preflight`).

This code travels to the node as code, so that a node answers which has another version of this program, or none: it
imports nothing but the standard library, whatever else it looks at comes from within a guard.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any, TypedDict

ABSENT = "missing"


class NodeAnswer(TypedDict):
    """What one node says of itself; plain, since the node's own version of this program may be another."""

    host: str
    time: float  # its clock, in seconds
    versions: dict[str, str]  # of Python and packages; ABSENT for one that is not there
    source: str  # digest of its tips_dist, which versions do not tell apart
    free: int  # bytes on the disk of its temporary files
    plugins: str | None  # why the study's plug-ins cannot be loaded
    shared: bool | None  # whether it sees the driver's run folders; None: nobody asked
    folder: dict[str, str] | None  # how it finds them


def answer(plugins: Sequence[Mapping[str, Any]] = (), mark: str | None = None, runs: str | None = None) -> NodeAnswer:
    """Say what is here.

    Args:
        plugins: the study's, their fields by name.
        mark: a file that the driver has made among its run folders, to be looked for.
        runs: where the run folders lie, to be tried.
    """
    folder, digest = None, source()
    if runs is not None and digest != ABSENT:
        from tips_dist.study.doctor import folder as tried

        folder = tried(Path(runs)).plain()
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "versions": versions(),
        "source": digest,
        "free": shutil.disk_usage(tempfile.gettempdir()).free,
        "plugins": None if digest == ABSENT else lacking(plugins),
        "shared": None if mark is None else Path(mark).exists(),
        "folder": folder,
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide a study's numbers."""
    found = {"Python": platform.python_version()}
    for name in ("torch", "ray"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ABSENT
    return found


def source() -> str:
    """A digest of the tips_dist that would be imported here."""
    try:
        spec = util.find_spec("tips_dist")
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return ABSENT
    sha, root = hashlib.sha256(), Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def lacking(plugins: Sequence[Mapping[str, Any]]) -> str | None:
    """Load the study's plug-ins here, or say why that cannot be."""
    if not plugins:
        return None
    from tips_dist import plugins as home
    from tips_dist.files import UserError

    try:
        home.ensure(home.Plugin(**one) for one in plugins)
    except UserError as error:
        return str(error)
    return None
