"""Waiting for nodes that are still coming: a Slurm job's, which join one by one, or those that an autoscaler starts.

Nothing is waited for that cannot come: without an autoscaler, and where nobody said how many nodes there are to be
(``TIPS_DIST_NODES``), the nodes are those that are there.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence

from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.phases import phase
from tips_dist.study.cluster import RayNode, check_fits, settled, share
from tips_dist.study.place import WAIT, expected_nodes, wait_seconds
from tips_dist.terminal import notice

LATE_SECONDS = 60.0  # for nodes that are to come, where a trial has its place already

SeeNodes = Callable[[], Sequence[RayNode]]
Demand = Callable[[Resources], contextlib.AbstractContextManager[None]]


def await_room(
    resources: Resources,
    look: SeeNodes,
    grows: Callable[[], bool],
    *,
    demand: Demand | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until a trial has a place, and until the nodes that were announced are there; say what is waited for.

    Args:
        resources: what a trial asks.
        look: the cluster's nodes as they are now.
        grows: whether an autoscaler would add nodes.
        demand: asks for a trial's place while the body waits, so that an autoscaler knows what to start.
        clock, sleep: for tests.

    Raises:
        UserError: a trial has no place, and nothing will change that, or nothing has for ``TIPS_DIST_WAIT`` seconds.
    """
    expected, limit = expected_nodes(), wait_seconds()

    def missing() -> str:
        there = sum(node["Alive"] for node in look())
        return f"{there} of {expected} nodes have joined" if there < expected else ""

    def wait(what: str, over: Callable[[], bool], seconds: float) -> None:
        notice(f"waiting for {what}, at most {seconds:g} s: {missing() or 'the autoscaler is to start a node'}")
        with phase(f"waiting for {what}"):
            ends = clock() + seconds
            while not over() and clock() < ends:
                sleep(1.0)

    def coming() -> bool:
        return bool(missing()) or grows()

    refused, waited = _refused(resources, look()), ""
    if refused is not None and coming():
        with (demand or placed)(resources):
            wait("a place for a trial", lambda: not (_refused(resources, look()) and coming()), limit)
        refused = _refused(resources, look())
        waited = f"; nodes got {limit:g} s to come ({WAIT})" if coming() else ""
    if refused is not None:
        raise UserError(f"{refused}{waited}")
    if missing():
        wait("further nodes", lambda: not missing(), min(limit, LATE_SECONDS))
        if missing():
            notice(f"{missing()}; the study begins on them, and others that follow take part")


def autoscaler() -> bool:
    """Whether the cluster that this process has joined adds nodes by itself.

    Ray's monitor runs without one too, and then calls each node a kind of its own, ``node_…``.
    """
    from ray._private import worker
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.experimental.internal_kv import _internal_kv_get

    kinds: set[str] = set()
    with contextlib.suppress(Exception):  # whatever a cluster does not tell, it does not have
        report = json.loads(_internal_kv_get("__autoscaling_status") or "{}").get("autoscaler_report") or {}
        kinds |= {*report.get("active_nodes", ()), *(report.get("idle_nodes") or ())}
    with contextlib.suppress(Exception):
        found = get_cluster_status(worker.global_worker.gcs_client.address)
        kinds |= {str(node.ray_node_type_name) for node in (*found.active_nodes, *found.idle_nodes)}
    return any(kind and not kind.startswith("node_") for kind in kinds)


def _refused(resources: Resources, nodes: Sequence[RayNode]) -> UserError | None:
    try:
        check_fits(resources, nodes)
    except UserError as error:
        return error
    return None


@contextlib.contextmanager
def placed(resources: Resources) -> Iterator[None]:
    """Ask Ray for a trial's place, for as long as the body lasts."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    wanted = settled(resources, ray.nodes())
    group = placement_group([share(wanted)] * wanted.workers, strategy="PACK")
    try:
        yield
    finally:
        remove_placement_group(group)
