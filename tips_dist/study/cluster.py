"""Ray: starting or joining it, what it has, and whether a study fits."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, NotRequired, TypedDict

from tips_dist.addresses import check_address, is_address
from tips_dist.config import Resources
from tips_dist.devices import cores
from tips_dist.files import UserError, home
from tips_dist.study.starting import PATIENCE, hidden_cards, past_proxies, start_ray

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anyone
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a banner whatever it is told
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folder has its own records
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # places for trials are asked for together; the driver says how many
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it saves every trial's state first
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # no snapshots: the run folder is the only truth
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",  # a study that does not fit was refused already
}


PRELOAD = "RAY_preload_python_modules"
NEEDED = ("tips_dist.study.tuning", "tips_dist.study.monitored", "tips_dist.training.together")  # of a trial's worker


def prepare_environment(address: str | None) -> None:
    """Set Ray's environment variables, before Ray is imported; what the user has set stays.

    A cluster of our own listens on loopback alone and gets a random token of its own, so that Ray neither writes
    ``~/.ray/auth_token`` (which fails where HOME cannot be written) nor leaves the cluster open to other users of the
    machine. To join a cluster, a token that lies ready is used.
    """
    past_proxies()
    for name, value in {**_QUIET, **({} if address else PATIENCE)}.items():
        os.environ.setdefault(name, value)
    if "ray" in sys.modules:  # it has read the rest already
        return
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # despite its name: loopback, on every system
    if "RAY_AUTH_MODE" in os.environ:
        return
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        if not has_token:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    elif has_token or (home() / ".ray" / "auth_token").exists():
        os.environ["RAY_AUTH_MODE"] = "token"


@contextlib.contextmanager
def connected(resources: Resources, address: str | None, data_bytes: int = 0, trials: int = 0) -> Iterator[Machine]:
    """Be connected to Ray: a local cluster of our own on loopback, the one at ``address``, or the one already joined.

    Args:
        resources: what a trial asks; checked against what the cluster has.
        address: of a Ray cluster ("auto", "host:port"); None starts a local one, gone again at the end.
        data_bytes: size of the data set, for the local object store.
        trials: so many are to come, for which workers get ready meanwhile.

    Yields:
        What there is to compute with.

    Raises:
        UserError: the cluster cannot be reached, or no node has what one trial asks, nor is one to come that has.
        UnavailableError: Ray does not start on this machine.
    """
    if address is not None and is_address(address):
        check_address(address, "--address")
    prepare_environment(address)
    import ray

    if ray.is_initialized():
        check_fits(resources, ray.nodes())
        yield machine_of(resources, ray.nodes())
        return
    quiet: dict[str, object] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        memory = 256 * 2**20 + 2 * data_bytes
        with preloading(resources, trials, cores()):
            start_ray({"address": "local", "include_dashboard": False, "object_store_memory": memory, **quiet})
    else:
        _join({"address": address, **quiet})
    try:
        _silence()
        _find_room(resources, address)
        yield machine_of(resources, ray.nodes())
    finally:
        ray.shutdown()


def _join(options: Mapping[str, object]) -> None:
    import ray

    try:
        ray.init(**options)
    except Exception as error:  # Ray raises many kinds, bare Exception among them
        ray.shutdown()
        words = " ".join(str(error).split())[:300]
        raise UserError(f"--address {options['address']}: cannot join this Ray cluster ({words})") from None


def at_home() -> bool:
    """Whether the cluster is one that this process has started: this machine, with all that is installed here."""
    import ray._private.worker as worker

    node = worker._global_node
    return node is not None and bool(node.is_head())


def _find_room(resources: Resources, address: str | None) -> None:
    import ray

    from tips_dist.study.waiting import autoscaler, await_room

    if address is not None:
        await_room(resources, ray.nodes, autoscaler)
        return
    try:
        check_fits(resources, ray.nodes())
    except UserError as error:
        raise UserError(f"{error}{hidden_cards()}") from None


@contextlib.contextmanager
def preloading(resources: Resources, trials: int, cores: int) -> Iterator[None]:
    """Let the workers of a cluster that the body starts, one a core, import what a trial needs.

    They do so while the driver gets ready itself; but not where most of them would never have a trial.
    """
    at_once = min(trials, int(cores / resources.cpus), resources.max_concurrent or trials)
    if PRELOAD in os.environ or 2 * at_once * resources.workers < cores:
        yield
        return
    os.environ[PRELOAD] = ",".join(NEEDED)
    try:
        yield
    finally:
        del os.environ[PRELOAD]


def _silence() -> None:
    """Keep Ray's chatter off the terminal; what matters of it stands in trial records, the rest in Ray's own logs."""
    import ray._private.worker as worker

    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if hasattr(worker, "print_to_stdstream"):  # prints "(raylet) A worker died" whatever the log level
        worker.print_to_stdstream = lambda *arguments, **keywords: None


def settled(resources: Resources, nodes: Sequence[RayNode]) -> Resources:
    """The same with a number of cards: ``auto`` is one for each worker where a trial then fits, else none."""
    if resources.gpus != "auto":
        return resources
    with_cards = resources.model_copy(update={"gpus": float(resources.workers)})
    return with_cards if _fits(with_cards, nodes) else resources.model_copy(update={"gpus": 0.0})


class Machine(NamedTuple):
    """What a study has to compute with, all nodes together: cores, or cards where its trials ask for some."""

    unit: Literal["cores", "cards"]
    amount: float
    each: float  # of them that a trial occupies


def machine_of(asked: Resources, nodes: Sequence[RayNode]) -> Machine:
    """That of the cluster's nodes."""
    got = settled(asked, nodes)
    if got.gpus:
        return Machine("cards", sum(_cards(node) for node in nodes), float(got.gpus))
    return Machine("cores", sum(node["CPU"] for node in _have(nodes)), got.cpus)


def cards_in_words(asked: Resources, got: Resources, nodes: Sequence[RayNode], trials: int) -> str:
    """What was chosen where ``auto`` was asked for, and which cards stand idle; empty if there is nothing to say.

    Args:
        asked: what the study says a trial occupies.
        got: the same, settled.
        nodes: the cluster's.
        trials: how many the study still trains.
    """
    cards, each = sum(_cards(node) for node in nodes), float(got.gpus)
    if not cards:
        return ""
    at_once = min(trials, got.max_concurrent or trials)
    idle = cards - min(cards, math.ceil(at_once * each))
    words = []
    if asked.gpus == "auto":
        words.append(f"resources.gpus auto: {each:g} of {cards:g} card{'s' * (cards > 1)} for each trial")
    if idle >= 1:
        why = "resources.gpus is 0" if not each else f"{at_once} trial{'s' * (at_once > 1)} at a time"
        words.append(f"{idle:g} of {cards:g} card{'s' * (cards > 1)} will stand idle ({why})")
    return "; ".join(words)


def _cards(node: RayNode) -> float:
    return float(node["Resources"].get("GPU", 0)) if node["Alive"] else 0.0


def share(resources: Resources) -> dict[str, float]:
    """What one worker of a trial asks of Ray: one bundle of its placement group.

    Raises:
        UserError: the GPUs do not divide among the workers, who take whole cards.
    """
    workers = resources.workers
    if resources.gpus == "auto":
        raise ValueError("resources.gpus: settle it before")
    if workers > 1 and resources.gpus % workers:
        raise UserError(
            f"resources.gpus: {resources.gpus:g} GPUs do not divide among resources.workers = {workers}, which need "
            "cards of their own; set gpus to a multiple of workers"
        )
    gpus = {"GPU": resources.gpus / workers} if resources.gpus else {}
    return {"CPU": resources.cpus / workers, **gpus}


class RayNode(TypedDict):
    """What we read of a node in the answer of ``ray.nodes()``."""

    NodeID: str
    NodeManagerHostname: NotRequired[str]
    Alive: bool
    Resources: dict[str, float]


def check_fits(resources: Resources, nodes: Sequence[RayNode]) -> None:
    """Refuse what could never be placed, instead of letting Ray wait for ever.

    Args:
        resources: what one trial asks; a worker needs its share of it on one node.
        nodes: as ``ray.nodes()`` tells them.

    Raises:
        UserError: the living nodes have no place for all workers; the message names what is asked and what exists.
    """
    resources = settled(resources, nodes)
    if _fits(resources, nodes):
        return
    each, have = share(resources), _have(nodes)
    nodes_text = ", ".join(sorted(f"{node['CPU']:g} CPUs and {node['GPU']:g} GPUs" for node in have)) or "none"
    who = "a trial asks" if resources.workers == 1 else f"each of a trial's {resources.workers} workers asks"
    raise UserError(
        f"resources: {who} for {each['CPU']:g} CPUs and {each.get('GPU', 0):g} GPUs on one node; the cluster's "
        f"nodes have: {nodes_text}. Lower resources.cpus or resources.gpus, or choose another cluster with --address"
    )


def _fits(resources: Resources, nodes: Sequence[RayNode]) -> bool:
    """Whether the living nodes have a place for every worker of a trial."""
    return trials_at_once(resources, nodes) >= 1


def trials_at_once(resources: Resources, nodes: Sequence[RayNode]) -> int:
    """How many trials the living nodes train at once, if nobody else is there; ``resources`` are settled."""
    each, slack = share(resources), 1e-6  # thirds of a CPU
    workers = [min(int(node[key] / amount + slack) for key, amount in each.items()) for node in _have(nodes)]
    return sum(workers) // resources.workers


def _have(nodes: Sequence[RayNode]) -> list[dict[str, float]]:
    """CPUs and cards of each living node."""
    return [{key: float(node["Resources"].get(key, 0)) for key in ("CPU", "GPU")} for node in nodes if node["Alive"]]
