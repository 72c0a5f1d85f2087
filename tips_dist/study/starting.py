"""Starting a Ray of our own on a machine as it is: busy, with a long ``TMPDIR``, with proxies for everything.

Ray gives up early where processors are scarce, and what it had started by then stays behind and makes them scarcer. So
one try has time (:data:`PATIENCE`, :func:`ports_known`), and nothing of a try that failed is left when the next begins.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.files import UnavailableError, UserError, shown
from tips_dist.patience import try_again
from tips_dist.terminal import notice

if TYPE_CHECKING:
    import psutil

START_SECONDS = 240.0  # for all tries together, from the first failure on
MOST_SOCKET = 107  # bytes of a Unix socket's path
SESSION = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"  # how Ray's longest one ends
ROOMS = ("/tmp", "/var/tmp", "/dev/shm")  # Ray makes a folder of its own below
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
NODE = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"  # the one way to tell Ray its node's id
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = {  # Ray's own limits are for idle machines
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "120",
    "RAY_worker_register_timeout_seconds": "300",
}


def session_room(rooms: Sequence[str] = ROOMS) -> str:
    """Where Ray's session may lie, so that its sockets' paths are short enough: ``TMPDIR`` if that is possible.

    Raises:
        UserError: ``RAY_TMPDIR`` is set and too long, or there is no other place.
    """
    told = os.environ.get("RAY_TMPDIR")
    if told is not None:
        if not _short(told):
            raise UserError(f"RAY_TMPDIR {shown(told)}: too long for Ray's sockets; {_most()}")
        return told
    wanted = tempfile.gettempdir()
    if _short(wanted):
        return wanted
    for room in (*rooms, os.environ.get("XDG_RUNTIME_DIR", "")):
        if room and _short(room) and os.access(room, os.W_OK | os.X_OK):
            notice(f"TMPDIR {shown(wanted)} is too long for Ray's sockets; Ray's session lies in {room}/ray")
            return room
    raise UserError(f"TMPDIR {shown(wanted)}: too long for Ray's sockets; {_most()}; name one by RAY_TMPDIR")


def _short(room: str) -> bool:
    return len(os.fsencode(room + SESSION)) <= MOST_SOCKET


def _most() -> str:
    return f"a folder's name may have {MOST_SOCKET - len(SESSION)} bytes"


def past_proxies() -> None:
    """Let no proxy stand between this machine and itself: a tunnel's end, a head of our own."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    for name in ("no_proxy", "NO_PROXY"):
        told = [one.strip() for one in os.environ.get(name, "").split(",") if one.strip()]
        os.environ[name] = ",".join([*told, *(one for one in LOOPBACK if one not in told)])


def start_ray(options: Mapping[str, object], seconds: float = START_SECONDS) -> None:
    """Start a Ray of our own (``ray.init``).

    Args:
        options: of ``ray.init``.
        seconds: to go on trying, from the first failure on.

    Raises:
        UnavailableError: it does not start; what it left was removed, and the message says what to do.
        UserError: no folder for its sockets has a name that is short enough.
    """
    import ray

    if os.environ.get("RAY_ADDRESS"):
        notice("RAY_ADDRESS is set, but a study joins a cluster by --address alone: Ray starts on this machine")
    os.environ["RAY_TMPDIR"] = room = session_room()
    tries = 0

    def once() -> None:
        nonlocal tries
        tries += 1
        try:
            with clean_start(), ports_known(room):
                ray.init(**options)
        except Exception as error:
            if tries == 1 and not _hopeless(error):
                notice(f"Ray did not start ({_said(error)}; {busy()}); trying again for at most {seconds:g} s")
            raise

    try:
        try_again(once, seconds, errors=(Exception,), hopeless=_hopeless)
    except Exception as error:  # Ray raises many kinds, bare Exception among them
        raise UnavailableError(
            f"Ray does not start here (tried {tries} time{'s' * (tries > 1)}): {_said(error)}; {busy()}. Do it again "
            f"when the machine is less busy, or join a cluster with --address; Ray's logs lie in {room}/ray"
        ) from None


@contextlib.contextmanager
def ports_known(room: str) -> Iterator[None]:
    """Let Ray's raylet know the ports of its agents beforehand.

    Left alone it waits for its agents, programs of some weight, to write them down, and ends when one takes longer than
    15 s; and one of them insists on port 52365 for seconds where another Ray has that. Where this Ray does not know
    what is used here, it is left alone.
    """
    try:
        from ray import NodeID, _raylet
        from ray._private import parameter

        persist: Any = getattr(_raylet, "persist_port")  # noqa: B009 (which its stubs do not know)
        names = {key: str(getattr(_raylet, f"{key.upper()}_NAME")) for key in AGENT_PORTS}
        node, real = NodeID.from_random().hex(), parameter.RayParams
    except (ImportError, AttributeError):
        yield
        return
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    session = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    folder = Path(room, "ray", session)
    folder.mkdir(parents=True)
    for key, name in names.items():
        persist(str(folder), node, name, ports[key])
    parameter.RayParams = functools.partial(_with, real, {**ports, "session_name": session})
    os.environ[NODE] = node
    try:
        yield
    finally:
        parameter.RayParams = real
        os.environ.pop(NODE, None)


def _with(make: Callable[..., Any], changes: Mapping[str, object], **options: object) -> Any:
    return make(**{**options, **changes})


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _hopeless(error: Exception) -> bool:
    return isinstance(error, (PermissionError, FileNotFoundError, ValueError))


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextlib.contextmanager
def clean_start() -> Iterator[None]:
    """If the body fails, end the processes that it has started and that Ray has forgotten."""
    import psutil  # Ray brings it
    import ray

    here = psutil.Process()
    before = set(here.children(recursive=True))
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            ray.shutdown()
        left = [one for one in here.children(recursive=True) if one not in before and _of_ray(one)]
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=10)
        raise


def _of_ray(process: psutil.Process) -> bool:
    with contextlib.suppress(Exception):  # it may be gone by now
        return "ray" in " ".join(process.cmdline())
    return False


def busy() -> str:
    """How busy this machine is, in words."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{os.getloadavg()[0]:.0f} processes want {cpus} CPU{'s' * (cpus > 1)}"


def hidden_cards() -> str:
    """A hint where cards are asked for and hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "; CUDA_VISIBLE_DEVICES hides every card of this machine: unset it to use them"
    return ""
