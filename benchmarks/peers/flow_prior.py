"""A plug-in: the likelihood of the new view under a flow (module ``flow``) in place of what a discriminator says of it.

    TIPS_DIST_FLOW=data/cmu.flow.safetensors tips-dist run STUDY --plugin benchmarks/peers/flow_prior.py \
        --set losses.adversarial=0 --set losses.extra.flow_prior=1
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from torch import Tensor

from benchmarks.peers.flow import Flow, load
from tips_dist import geometry
from tips_dist.files import UserError
from tips_dist.registry import register
from tips_dist.training.terms import Scene

FLOW = "TIPS_DIST_FLOW"


@functools.cache
def _flow(path: str) -> Flow:
    return load(Path(path))


def flow_prior(scene: Scene) -> Tensor:
    """Mean negative log-likelihood of the lifted poses seen from their new views, (S,)."""
    if FLOW not in os.environ:
        raise UserError(f"set {FLOW} to the file of a flow: python -m benchmarks.peers.flow POSES -o FILE")
    likelihood: Tensor = _flow(os.environ[FLOW]).to(scene.seen.device)(geometry.project(scene.seen))
    mean: Tensor = likelihood.mean(-1)
    return mean


register("losses", "flow_prior", flow_prior)
