"""One device, or several: where a trial's workers come from, and what the workers other than rank 0 do.

Rank 0 is the process that called :func:`tips_dist.training.loop.train`; it judges, records, reports and answers to
Ray. The others only step: they are started when training starts, get configuration, state and data from rank 0, and
end with it, whatever ends it. So nothing but rank 0's checkpoint has to survive, and it fits any number of workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch._C._distributed_c10d import TCPStore

from tips_dist import plugins
from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.runfolder.records import StateRecord
from tips_dist.sections import validate
from tips_dist.training import precision
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.group import ALONE, Group, join
from tips_dist.training.state import State

LOOPBACK = "127.0.0.1"
ARRIVED = "arrived"  # key in the store: the workers, other than rank 0, that have come


class WorkerLost(RuntimeError):  # noqa: N818
    """A worker of a trial died; the trial can go on from its checkpoint, on any number of workers."""


class Helper(Protocol):
    """A started worker."""

    def gone(self, patience: float = ...) -> str | None:
        """How it died; None if it did its work or lives, after ``patience`` seconds (by itself: what it may take)."""
        ...

    def end(self) -> None:
        """Make sure that it is gone."""
        ...


Launch = Callable[[str, int, int, int], Helper]  # host, port, rank, size -> the started worker


@dataclass(frozen=True)
class Plan:
    """How a trial is spread: ``workers`` processes, on this machine unless ``launch`` puts them elsewhere."""

    workers: int = 1
    threads: int | None = None  # of all workers together; None leaves torch's own choice
    device: str = "cpu"
    host: str = LOOPBACK  # the address at which the others reach rank 0
    launch: Launch | None = None
    pieces: int = 1  # in which a pack takes its steps, for memory's sake (module ``pieces``)

    def device_of(self, rank: int) -> torch.device:
        """Worker ``rank``'s device: on CUDA, one card each."""
        return torch.device(f"cuda:{rank}" if self.device == "cuda" and self.workers > 1 else self.device)

    @property
    def threads_each(self) -> int | None:
        """Threads of one worker: more processes than cores would make each other ruinously slow."""
        return max(1, self.threads // self.workers) if self.threads else None


@contextlib.contextmanager
def workers(plan: Plan, configuration: Configuration) -> Iterator[Group]:
    """Start the other workers of a trial and yield rank 0's group; they are gone when the context ends.

    Raises:
        UserError: the batch does not divide among the workers, or there are fewer cards than workers.
        WorkerLost: a worker died.
    """
    if plan.workers == 1:
        yield ALONE
        return
    training = configuration.training
    if training.batch_size % (plan.workers * training.turned_every):
        turned = f", in groups of training.turned_every = {training.turned_every}" * (training.turned_every > 1)
        raise UserError(
            f"training.batch_size: {training.batch_size} poses do not divide among "
            f"resources.workers = {plan.workers}{turned}"
        )
    if plan.device == "cuda" and plan.launch is None and torch.cuda.device_count() < plan.workers:
        raise UserError(f"resources.workers: {plan.workers} workers need a card each, {torch.cuda.device_count()} seen")
    store = _listen(plan)
    helpers: list[Helper] = []
    try:
        with _interface(plan.host):
            launch = plan.launch or Local(plan).launch
            helpers = [launch(plan.host, store.port, rank, plan.workers) for rank in range(1, plan.workers)]
            _meet(store, helpers)
            group = join(store, 0, plan.workers, plan.device_of(0))
        yield group
    except RuntimeError as error:
        ends = [(rank, helper.gone()) for rank, helper in enumerate(helpers, start=1)]
        gone = " and ".join(f"{rank} of {plan.workers} is gone ({how})" for rank, how in ends if how)
        if not gone:
            raise
        raise WorkerLost(f"worker {gone}; the last checkpoint is whole") from error
    finally:
        for helper in helpers:
            helper.end()
        if dist.is_initialized():
            dist.destroy_process_group()


def _listen(plan: Plan) -> TCPStore:
    """Rank 0's store, at ``plan.host`` alone: left to itself it listens on every network of this machine."""
    server = socket.create_server((plan.host, 0))
    port = server.getsockname()[1]
    return TCPStore(
        plan.host, port, plan.workers, is_master=True, wait_for_workers=False, master_listen_fd=server.detach()
    )


def _meet(store: TCPStore, helpers: Sequence[Helper]) -> None:
    """Wait until every helper has come.

    Raises:
        RuntimeError: one ended before (it lacks what it needs, or its machine died); the others would wait in vain.
    """
    while store.add(ARRIVED, 0) < len(helpers):
        if any(helper.gone(0.05) for helper in helpers):
            raise RuntimeError("a worker ended before training began")


def lead(state: State, poses: NDArray[np.float32], plan: Plan, present: NDArray[np.bool_] | None = None) -> None:
    """Give every other worker this state and the data (see :func:`~tips_dist.training.engine.sampler_for`)."""
    if state.group.size > 1:
        tensors, record = state.dump()
        configuration = state.configuration.model_dump(mode="json")
        state.group.tell(
            {
                "configuration": configuration,
                "seeds": state.seeds,
                "record": record.plain(),
                "device": plan.device,
                "threads": plan.threads_each,
                "matmul": state.matmul,
                "pieces": plan.pieces,
                "plugins": [dataclasses.asdict(plugin) for plugin in plugins.loaded()],
            }
        )
        data = {"poses": torch.from_numpy(poses)}
        if present is not None:
            data["present"] = torch.from_numpy(present).to(torch.uint8)  # gloo sends no bool
        state.group.give({**tensors, **data})


def tell(state: State, ended: Sequence[int], *, changed: bool) -> None:
    """At an evaluation step, tell the other workers which seeds have ended; where others came, the whole state."""
    if state.group.size == 1:
        return
    tensors, record = state.dump() if changed else ({}, None)
    state.group.tell({"ended": list(ended), "record": None if record is None else record.plain()})
    if changed:
        state.group.give(tensors)


def follow(host: str, port: int, rank: int, size: int, device: str = "cpu", patience: float = 300) -> None:
    """Be worker ``rank`` until rank 0 is done; on a machine of its own, ``device`` names a card, as in ``cuda:0``.

    Raises:
        RuntimeError: rank 0 was not found within ``patience`` seconds, or is gone.
    """
    where = Plan(workers=size, device=device).device_of(rank)
    store = TCPStore(host, port, size, is_master=False, timeout=timedelta(seconds=patience))
    store.add(ARRIVED, 1)
    with _interface(host):
        group = join(store, rank, size, where)
    try:
        _work(group, where)
    finally:
        dist.destroy_process_group()


def _work(group: Group, where: torch.device) -> None:
    """Step with the group until rank 0 says that all seeds have ended, or the steps are done."""
    order = group.tell()
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    tensors = group.give()
    poses = tensors.pop("poses").numpy()
    present = tensors.pop("present").bool().numpy() if "present" in tensors else None
    plugins.ensure(plugins.Plugin(**one) for one in order["plugins"])
    configuration = validate(Configuration, order["configuration"], where="rank 0")
    with precision.applied(order["matmul"]):
        state = State(configuration, tuple(order["seeds"]), where, group)
        state.restore(tensors, StateRecord.parse(json.dumps(order["record"]), "rank 0"))
        engine = Engine(state, sampler_for(state, poses, present), order["pieces"])
        while state.active and state.step < configuration.training.steps:
            engine.advance()
            state.sums = {}
            order = group.tell()
            state.compact(order["ended"])
            if order["record"] is not None:
                state.restore(group.give(), StateRecord.parse(json.dumps(order["record"]), "rank 0"))


@dataclass(frozen=True)
class Local:
    """Starts workers as processes of this machine."""

    plan: Plan

    def launch(self, host: str, port: int, rank: int, size: int) -> Helper:
        """Start one Python process that follows."""
        threads = str(self.plan.threads_each or max(1, torch.get_num_threads() // size))
        arguments: Sequence[Any] = ("tips_dist.training.follower", host, port, rank, size, self.plan.device)
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        return _Process(subprocess.Popen([sys.executable, "-m", *map(str, arguments)], env=environment))


@dataclass(frozen=True)
class _Process:
    process: subprocess.Popen[bytes]

    def gone(self, patience: float = 1.0) -> str | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=patience)
        return f"exit status {self.process.returncode}" if self.process.returncode else None

    def end(self) -> None:
        try:
            self.process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def _interface(host: str) -> Iterator[None]:
    """Keep gloo on the loopback interface when rank 0 is met there; elsewhere it follows the host name."""
    name = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if host != LOOPBACK or name is None or "GLOO_SOCKET_IFNAME" in os.environ:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
