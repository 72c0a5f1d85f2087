"""The registry: what a study may name. Built-in and foreign parts come in by the same door, :func:`register`.

=================  ===================================================================================================
kind               what is registered under a name
=================  ===================================================================================================
representations    a :class:`tips_dist.skeleton.Representation`: how the 2D pose is cut up
lifters            a class with the contract of :class:`tips_dist.models.base.BaseLifter`, or made by ``per_seed``
losses             a function of :class:`tips_dist.training.terms.Scene` -> (S,), a term of the generator's loss
signals            a function of :class:`tips_dist.stability.signals.Look` -> (S,), or None where it is undefined
detectors          a class with the protocol :class:`tips_dist.stability.detectors.Detector`
importers          a module or class with ``USES`` and ``open_source``, see :mod:`tips_dist.data.importers`
samplers           a function (study, representation, number) -> an Optuna sampler
trackers           a class with the protocol :class:`tips_dist.trackers.Tracker`
=================  ===================================================================================================

A study file can only name what is registered. Names are looked up late: the module that registers a kind's built-in
parts is imported when the kind is first asked for anything, so that this module imports nothing heavy; a name that is
unknown then is looked for in installed plug-ins (:mod:`tips_dist.plugins`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from tips_dist.files import UserError, shown

HOMES: dict[str, str] = {  # kind -> the module that registers what is built in
    "representations": "tips_dist.skeleton",
    "lifters": "tips_dist.models.lifter",
    "losses": "tips_dist.training.terms",
    "signals": "tips_dist.stability.signals",
    "detectors": "tips_dist.stability.detectors",
    "importers": "tips_dist.data.importers",
    "samplers": "tips_dist.study.samplers",
    "trackers": "tips_dist.trackers",
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z0-9_]+)?")

T = TypeVar("T")
Check = Callable[[str, Any], None]


@dataclass(frozen=True)
class Origin:
    """Where a registered part comes from."""

    name: str  # of the plug-in
    version: str = ""
    digest: str = ""  # SHA-256 of its source
    where: str = ""  # its file or distribution

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip() + (f" ({self.where})" if self.where else "")


BUILT_IN = Origin("tips-dist")
SESSION = Origin("this session")  # registered by hand, in a notebook or a test: nothing that travels


@dataclass(frozen=True)
class Entry:
    """One registered part."""

    kind: str
    name: str
    value: Any
    source: Origin
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{singular(self.kind)} '{self.name}' of {self.source}"


class UnknownName(UserError, KeyError):  # noqa: N818
    """No such part is registered."""

    __str__ = Exception.__str__


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}
_checks: dict[str, Check] = {}
_homes_loaded: set[str] = set()
_source: list[Origin] = []


@overload
def register(kind: str, name: str, value: None = None, **options: Any) -> Callable[[T], T]: ...
@overload
def register(kind: str, name: str, value: T, **options: Any) -> T: ...
def register(kind: str, name: str, value: Any = None, **options: Any) -> Any:
    """Register ``value`` under ``name``; without a value, a decorator that does.

    Args:
        kind: one of :data:`HOMES`.
        name: letters, digits and ``_``; a signal's may have one ``/``.
        value: the part.
        options: what the kind wants to know besides: ``may_be_undefined=True`` of a signal.

    Raises:
        UserError: no such kind, a bad name, a name that is taken (both sources are named), or a part of another shape.
    """
    if kind not in HOMES:
        raise UserError(f"register: no kind '{shown(kind)}'{nearest(kind, HOMES)}; kinds: {', '.join(HOMES)}")
    if value is None:

        def decorate(found: T) -> T:
            return register(kind, name, found, **options)

        return decorate
    source = _source[-1] if _source else SESSION
    where = f"{singular(kind)} '{shown(name, 60)}' of {source}"
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: a name is letters, digits and _; a signal's may have one /")
    if source is not BUILT_IN:
        _load_home(kind)
    if name in _entries[kind]:
        raise UserError(f"{where}: the name is taken by {_entries[kind][name].source}; choose another")
    if kind in _checks:
        try:
            _checks[kind](name, value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    _entries[kind][name] = Entry(kind, name, value, source, options)
    return value


def unregister(kind: str, name: str) -> None:
    """Take a part out again, for tests and notebooks; what is built in stays.

    Raises:
        UserError: no such name, or it is built in.
    """
    if entry(kind, name).source is BUILT_IN:
        raise UserError(f"{singular(kind)} '{name}' is built in")
    del _entries[kind][name]


def built_in(kind: str, check: Check | None = None) -> contextlib.AbstractContextManager[None]:
    """Within this context the kind's home registers what is built in; ``check`` refuses parts of another shape."""
    if check is not None:
        _checks[kind] = check
    return registering(BUILT_IN)


@contextlib.contextmanager
def registering(source: Origin) -> Iterator[None]:
    """Within this context what is registered comes from ``source``; if it fails, nothing of it stays."""
    before = {kind: dict(entries) for kind, entries in _entries.items()}
    _source.append(source)
    try:
        yield
    except BaseException:
        for kind, entries in before.items():
            for name in [name for name, one in _entries[kind].items() if one.source == source and name not in entries]:
                del _entries[kind][name]
        raise
    finally:
        _source.pop()


def adopt(source: Origin, module: str) -> None:
    """What ``module`` (or one below it) registered when it was imported by hand comes from ``source``."""
    for found in _entries.values():
        for name, one in found.items():
            home = str(getattr(one.value, "__module__", ""))
            if one.source is SESSION and (home == module or home.startswith(f"{module}.")):
                found[name] = dataclasses.replace(one, source=source)


def entry(kind: str, name: str) -> Entry:
    """One registered part with its source.

    Raises:
        UnknownName: there is none, and no installed plug-in brings it; the nearest name is said.
    """
    _load_home(kind)
    if name not in _entries[kind]:
        from tips_dist import plugins

        plugins.load_installed()
    if name not in _entries[kind]:
        known = ", ".join(_entries[kind])
        raise UnknownName(
            f"no {singular(kind)} '{shown(name, 60)}'{nearest(name, _entries[kind])}; known: {known}. One of a "
            "plug-in needs it installed, or --plugin FILE.py"
        )
    return _entries[kind][name]


def entries(kind: str) -> list[Entry]:
    """Everything registered of a kind, in the order of registration."""
    _load_home(kind)
    return list(_entries[kind].values())


class Registered(Mapping[str, T], Generic[T]):
    """What is registered of a kind, live: name -> part. Iterates what is built in or loaded, in order."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getitem__(self, name: str) -> T:
        value: T = entry(self.kind, name).value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter([one.name for one in entries(self.kind)])

    def __len__(self) -> int:
        return len(entries(self.kind))

    def __contains__(self, name: object) -> bool:
        try:
            entry(self.kind, str(name))
        except UnknownName:
            return False
        return True


def name_of(kind: str, value: Any) -> str:
    """The name under which a part is registered.

    Raises:
        UserError: it is not.
    """
    for one in entries(kind):
        if one.value is value:
            return one.name
    what = getattr(value, "__name__", repr(value))
    raise UserError(f"{what} is not registered; use @tips_dist.register('{kind}', NAME)")


def singular(kind: str) -> str:
    """The word for one part of a kind."""
    return "loss" if kind == "losses" else kind.removesuffix("s")


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing."""
    matches = difflib.get_close_matches(str(name)[:100], list(known), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def _load_home(kind: str) -> None:
    if kind not in _homes_loaded:
        importlib.import_module(HOMES[kind])
        _homes_loaded.add(kind)
