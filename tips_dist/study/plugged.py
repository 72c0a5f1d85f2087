"""Plug-ins on the nodes of a cluster: which nodes lack one, so that trials go elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tips_dist import plugins
from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.study.cluster import RayNode, check_fits, settled, share

ANSWER_SECONDS = 60.0  # a node that does not answer for so long is not kept from anything


def lacking(foreign: Sequence[plugins.Plugin], resources: Resources, nodes: Sequence[RayNode]) -> dict[str, str]:
    """Why plug-ins cannot be loaded, node by node: Ray's id of a node -> one line that says what to do.

    Args:
        foreign: the plug-ins of the study; without any, nobody is asked.
        resources: what a trial occupies: nodes that hold no worker of it are not asked.
        nodes: as ``ray.nodes()`` tells them.

    Raises:
        UserError: on the nodes that have them all, no trial fits.
    """
    if not foreign:
        return {}
    each = share(settled(resources, nodes))
    could = [n for n in nodes if n["Alive"] and all(n["Resources"].get(key, 0) >= each[key] for key in each)]
    asked = {node["NodeID"]: _ask(node["NodeID"], foreign) for node in could}
    answered, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS)
    answers = {node: ray.get(reference) for node, reference in asked.items() if reference in answered}
    found = {node: why for node, why in answers.items() if why is not None}
    if found:
        try:
            check_fits(resources, [node for node in nodes if node["NodeID"] not in found])
        except UserError as error:
            raise UserError(f"{next(iter(found.values()))}; on the other nodes: {error}") from None
    return found


def placed_elsewhere(lacking: Sequence[str], bundles: int) -> dict[str, list[dict[str, str]]]:
    """Arguments of a placement group that keeps all its bundles from some nodes."""
    if not lacking:
        return {}
    return {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(lacking)})"}] * bundles}


def why_not(foreign: Sequence[plugins.Plugin]) -> str | None:
    """Load the plug-ins here, or say why that cannot be."""
    try:
        plugins.ensure(foreign)
    except UserError as error:
        return str(error)
    return None


def _ask(node: str, foreign: Sequence[plugins.Plugin]) -> ray.ObjectRef:
    where = NodeAffinitySchedulingStrategy(node, soft=True)  # a node that leaves meanwhile is no reason to fail
    return ray.remote(why_not).options(num_cpus=0, scheduling_strategy=where).remote(list(foreign))
