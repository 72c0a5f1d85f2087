"""The workers of one trial, spread over Ray: one bundle of the trial's placement group for each, packed onto few nodes.

Rank 0 is the trial itself, in bundle 0. Each further worker is a Ray actor in the bundle of its rank, so the trial has
reserved all it needs before it starts and waits for nobody. Ray ends an actor when the process that made it is
gone or its placement group is removed: no worker outlives rank 0, whatever ends that.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util import get_node_ip_address, placement_group_table
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tips_dist.config import Resources
from tips_dist.study.cluster import share
from tips_dist.training.execution import LOOPBACK, Helper, Plan, follow

NOTICED = 20.0  # seconds from gloo's notice of a death to Ray's, and the other way round

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


@contextlib.contextmanager
def spread(resources: Resources, device: str) -> Iterator[Plan]:
    """How the trial that this process is rank 0 of is spread; valid, and gloo on the right network, inside the context.

    Args:
        resources: what the trial occupies, all workers together.
        device: "cpu" or "cuda"; Ray shows each worker its own cards alone, the first of which it takes.
    """
    group = get_current_placement_group()
    one_node = len(set(placement_group_table(group)["bundles_to_node_id"].values())) == 1
    host = LOOPBACK if one_node else get_node_ip_address()
    with network(host):
        yield Plan(
            workers=resources.workers,
            threads=max(1, int(resources.cpus)),
            device=device,
            host=host,
            launch=Bundles(group, share(resources), "cuda:0" if device == "cuda" else device).launch,
        )


@dataclass(frozen=True)
class Bundles:
    """Starts workers in a placement group, each in the bundle of its rank."""

    group: PlacementGroup
    bundle: dict[str, float]  # what each bundle holds
    device: str

    def launch(self, host: str, port: int, rank: int, size: int) -> Helper:
        """Start one Ray actor that follows."""
        where = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank)
        asked = {"num_cpus": self.bundle["CPU"], "num_gpus": self.bundle.get("GPU", 0)}
        actor = ray.remote(Follower).options(**asked, scheduling_strategy=where).remote()
        return Started(actor, actor.follow.remote(host, port, rank, size, self.device))


class Follower:
    """The actor. (A task would do, but Ray says of no task that its node is gone while its connection stays open.)"""

    def follow(self, host: str, port: int, rank: int, size: int, device: str) -> None:
        """Be one further worker of a trial, to its end."""
        with network(host):
            follow(host, port, rank, size, device)


class Started:
    """A started actor, watched: see :meth:`_watch`."""

    def __init__(self, actor: Any, work: Any, patience: float = NOTICED) -> None:
        self._actor, self._work, self._patience = actor, work, patience
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="follower", daemon=True).start()

    def gone(self, patience: float | None = None) -> str | None:
        """How it died; None if it did its work or lives."""
        try:
            ray.get(self._work, timeout=self._patience if patience is None else patience)
        except GetTimeoutError:
            return None
        except Exception as error:  # Ray's own kinds, and whatever the worker raised
            return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        return None

    def end(self) -> None:
        """Let it finish if it is about to, else kill it."""
        self._ended.set()
        ray.wait([self._work], timeout=0.2)
        ray.kill(self._actor)

    def _watch(self) -> None:
        """End this process when Ray knows that the worker is gone, but gloo does not.

        So it is when a machine loses power or network: no connection closes, gloo waits for half an hour and nothing
        can interrupt it. Tune then starts the trial again from its checkpoint, as after any other death.
        """
        while not self._ended.is_set():
            if ray.wait([self._work], timeout=1.0)[0]:
                if self.gone() and not self._ended.wait(self._patience):
                    os._exit(1)
                return


@contextlib.contextmanager
def network(host: str) -> Iterator[None]:
    """Where workers meet on several nodes, keep gloo on the interface at which Ray knows this one.

    Left alone, gloo listens where the host's own name leads, which on many machines is loopback.

    Args:
        host: rank 0's address; nothing is to be done for loopback.
    """
    name = None if host == LOOPBACK or GLOO_INTERFACE in os.environ else _interface(get_node_ip_address())
    if name is None:
        yield
        return
    os.environ[GLOO_INTERFACE] = name
    try:
        yield
    finally:
        del os.environ[GLOO_INTERFACE]


def _interface(address: str) -> str | None:
    import psutil  # Ray brings it

    every = psutil.net_if_addrs().items()
    return next((name for name, addresses in every if address in [one.address for one in addresses]), None)
