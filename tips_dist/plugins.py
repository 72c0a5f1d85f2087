"""Plug-ins: code of others that registers parts (:mod:`tips_dist.registry`). A study file cannot bring one.

They come from installed packages, by entry points of the group ``tips_dist`` that name a module, or from files given
with ``--plugin FILE.py``. Each is loaded once per process, when it is given or when a name is asked for that nothing
known has. Workers of a trial get the files with the trial and find packages by name; both must be the same everywhere:
a digest of the source says so.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import linecache
import re
import socket
import sys
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tips_dist.config import Study
from tips_dist.files import UserError, read_text, shown
from tips_dist.registry import BUILT_IN, HOMES, SESSION, Entry, Origin, adopt, entries, entry, registering
from tips_dist.study_file import named

GROUP = "tips_dist"
PREFIX = "tips_dist_plugin_"  # of the module that a file becomes


@dataclass(frozen=True)
class Plugin:
    """A plug-in that was loaded, and all that another process needs to load the same one."""

    name: str
    version: str
    digest: str  # SHA-256 of the source
    where: str  # its file or distribution
    text: str | None = None  # of a file; None: an installed package

    @property
    def source(self) -> Origin:
        """As the registry knows it."""
        return Origin(self.name, self.version, self.digest, self.where)


_loaded: dict[str, Plugin] = {}
_broken: dict[str, str] = {}  # installed plug-in -> why it could not be loaded
_looked = False


def load_file(path: Path) -> Plugin:
    """Load a plug-in from a file; the same file again does nothing.

    Raises:
        UserError: it is missing, fails to import, registers a name that is taken or a part of another shape.
    """
    return load_text(path.stem, read_text(path, "plug-in"), str(path))


def load_text(name: str, text: str, where: str) -> Plugin:
    """Load the text of a plug-in's file (see :func:`load_file`)."""
    name = re.sub(r"\W", "_", name)
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = _loaded.get(name)
    if known is not None:
        if known.digest == digest:
            return known
        raise UserError(
            f"plug-in {name}: {where} ({digest[:12]}) is another source than {known.where} ({known.digest[:12]}), "
            "which this process has loaded; rename one, or start a new process"
        )
    module = types.ModuleType(PREFIX + name)
    module.__file__ = where
    version = ""
    found = re.search(r"""^__version__\s*=\s*["']([^"'\n]{1,40})["']""", text, re.MULTILINE)
    if found:
        version = found[1]
    plugin = Plugin(name, version, digest, where, text)
    linecache.cache[where] = (len(text), None, text.splitlines(keepends=True), where)  # a node may not have the file
    sys.modules[module.__name__] = module
    try:
        with registering(plugin.source):
            exec(compile(text, where, "exec"), module.__dict__)  # what --plugin asks for
    except BaseException as error:
        del sys.modules[module.__name__]
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise UserError(f"plug-in {where}: {_said(error, where)}; mend it, or leave it out") from None
    _loaded[name] = plugin
    return plugin


def load_installed() -> None:
    """Load the plug-ins of all installed packages; one that fails is left out, see :func:`broken`."""
    global _looked
    if _looked:
        return
    _looked = True
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            _load_point(point)
        except Exception as error:
            _broken[point.name] = (
                f"installed plug-in {point.name} ({point.value}): {_said(error)}; mend or uninstall it"
            )


def broken() -> list[str]:
    """Why installed plug-ins could not be loaded, a line each."""
    load_installed()
    return list(_broken.values())


def loaded() -> list[Plugin]:
    """The plug-ins of this process."""
    return list(_loaded.values())


def used(study: Study) -> list[Plugin]:
    """The plug-ins that decide a study's numbers: those that it names something of, and all files that were given.

    Raises:
        UserError: it names something that was registered in this session, which no worker could load.
    """
    names = {plugin.name for plugin in loaded() if plugin.text is not None}
    for key, kind, name in named(study):
        if (key, name) == ("model.lifter", "packed"):
            continue
        found = entry(kind, name)
        if found.source is SESSION:
            raise UserError(
                f"{key}: {found} was registered by hand, and workers could not load it; put it into a file and load "
                "that with --plugin FILE.py or tips_dist.load_plugin(FILE)"
            )
        if found.source is not BUILT_IN:
            names.add(found.source.name)
    return [plugin for plugin in loaded() if plugin.name in names]


def ensure(plugins: Iterable[Plugin]) -> None:
    """Have these very plug-ins loaded, on a worker or a cluster's node.

    Raises:
        UserError: one is not installed here, or in another version; the message names it, this host and the remedy.
    """
    for plugin in plugins:
        if plugin.text is not None:
            load_text(plugin.name, plugin.text, plugin.where)
            continue
        load_installed()
        here = _loaded.get(plugin.name)
        if here is None or here.digest != plugin.digest:
            found = _broken.get(plugin.name) or (
                "is not installed" if here is None else f"has another source ({here.version}, {here.digest[:12]})"
            )
            raise UserError(
                f"plug-in {plugin.name} {plugin.version} ({plugin.digest[:12]}): on {socket.gethostname()} it {found}; "
                f"install the same {plugin.where} on every node"
            )


def registered() -> list[Entry]:
    """Everything that is registered, kind by kind, installed plug-ins included."""
    load_installed()
    return [one for kind in HOMES for one in entries(kind)]


def _load_point(point: importlib.metadata.EntryPoint) -> None:
    distribution = point.dist.name if point.dist is not None else point.name
    version = point.dist.version if point.dist is not None else ""
    spec = importlib.util.find_spec(point.module)
    if spec is None:
        raise UserError("no such module")
    plugin = Plugin(point.name, version, _digest_of(spec.origin, spec.submodule_search_locations), distribution)
    if point.name in _loaded:
        raise UserError(f"the name is taken by {_loaded[point.name].source}")
    with registering(plugin.source):
        point.load()
    adopt(plugin.source, point.module)
    _loaded[point.name] = plugin


def _digest_of(origin: str | None, folders: Sequence[str] | None) -> str:
    """Of a module's file, or of all Python files of a package, in order."""
    paths = [Path(origin)] if origin else []
    roots = [Path(folder) for folder in folders or []]
    paths = [path for root in roots for path in sorted(root.rglob("*.py"))] or paths
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _said(error: BaseException, where: str = "") -> str:
    """What went wrong, and at which line of the plug-in."""
    if isinstance(error, UserError):
        return str(error)
    line, trace = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == where:
            line = trace.tb_lineno
        trace = trace.tb_next
    return (f"line {line}: " if line else "") + f"{type(error).__name__}: {shown(error, 300)}"
