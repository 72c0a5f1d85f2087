"""The nodes of a cluster, asked before the first trial and by the doctor: what is there, and what a trial would lack.

Every node is asked at once (:func:`ask`), and an answer is judged against what the driver has (:func:`judged`). What
changes a study's numbers, or keeps a trial from starting, bars a node: its trials go to others (:func:`barred`). A node
that comes later is judged by its first trial, in the same way (:func:`lacks_here`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tips_dist import plugins
from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.study import answering
from tips_dist.study.answering import ABSENT, NodeAnswer
from tips_dist.study.cluster import RayNode, check_fits, settled, share
from tips_dist.study.reasons import REMEDY, reason_words
from tips_dist.terminal import notice

ANSWER_SECONDS = 60.0  # a node that does not answer for so long is not kept from anything
MOST_SKEW = 5.0  # seconds; file times and logs of several nodes are read side by side
LEAST_FREE = 10**9  # bytes on a node's disk for temporary files
NO_ROOM = 10**8  # and what no trial can do with


@dataclass(frozen=True)
class Checked:
    """One thing looked at: ``state`` is ok, warning or failed; ``advice`` says what to do unless it is ok."""

    name: str
    state: str
    found: str
    advice: str = ""
    where: str = "here"

    def plain(self) -> dict[str, str]:
        """For JSON."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """In one line; what plug-ins say names their host by itself."""
        if self.name == "plug-ins":
            return self.found
        return f"node {self.where}: {self.name}: {self.found}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Asked:
    """A node's answer and, on our clock, between when it was given; or why there is none."""

    answer: NodeAnswer | None
    after: float = 0.0
    before: float = math.inf
    silence: str = ""
    late: bool = False  # there may yet be one


@dataclass(frozen=True)
class Needs:
    """What every node must have: the driver's own versions and source, and the study's plug-ins."""

    versions: tuple[tuple[str, str], ...]
    source: str
    plugins: tuple[plugins.Plugin, ...] = ()


def needs_of(foreign: Sequence[plugins.Plugin] = ()) -> Needs:
    """What this process has."""
    return Needs(tuple(answering.versions().items()), answering.source(), tuple(foreign))


def barred(wanted: Needs | None, resources: Resources, nodes: Sequence[RayNode]) -> dict[str, str]:
    """The nodes that no trial may go to: Ray's id of a node -> one line that says why, and what to do.

    What is merely odd (clocks, little room, no answer) is said and bars nobody.

    Args:
        wanted: what the study needs; None where the only node is this machine, which has what this process has.
        resources: what a trial occupies: nodes that hold no worker of it are not asked.
        nodes: as ``ray.nodes()`` tells them.

    Raises:
        UserError: on the nodes that remain, no trial fits.
    """
    if wanted is None:
        if (why := no_card(resources)) is not None:
            raise UserError(f"resources.gpus: {why}, or set it to 0")
        return {}
    each = share(settled(resources, nodes))
    could = [n for n in nodes if n["Alive"] and all(n["Resources"].get(key, 0) >= each[key] for key in each)]
    answers = ask([node["NodeID"] for node in could], wanted.plugins)
    found: dict[str, str] = {}
    for node in could:
        for one in judged_nodes(answers[node["NodeID"]], wanted, host_of(node)):
            if one.state == "failed":
                found.setdefault(node["NodeID"], one.line())
            elif one.state == "warning":
                notice(one.line())
    if found:
        try:
            check_fits(resources, [node for node in nodes if node["NodeID"] not in found])
        except UserError as error:
            raise UserError(f"{next(iter(found.values()))}; on the other nodes: {error}") from None
    return found


def placed_elsewhere(barred: Sequence[str], bundles: int) -> dict[str, list[dict[str, str]]]:
    """Arguments of a placement group that keeps all its bundles from some nodes."""
    if not barred:
        return {}
    return {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(barred)})"}] * bundles}


@functools.cache
def lacks_here(wanted: Needs) -> str | None:
    """Why no trial may run in this process; None if one may. For nodes that came after the others were asked."""
    here = answering.answer([dataclasses.asdict(one) for one in wanted.plugins])
    failed = (one for one in judged_nodes(Asked(here), wanted, here["host"]) if one.state == "failed")
    return next((one.line() for one in failed), None)


def no_card(resources: Resources) -> str | None:
    """Why a trial that is to use cards could not, in this process: Ray counts cards that torch may not see."""
    if not resources.gpus:
        return None
    import torch

    if torch.cuda.is_available():
        return None
    from tips_dist.study.doctor import torch_and_cuda

    found = torch_and_cuda()
    where = f"node {socket.gethostname()}: "
    return f"{where}torch sees no card ({found.found}); {found.advice or 'choose nodes that have one'}"


def ask(
    nodes: Sequence[str],
    foreign: Sequence[plugins.Plugin] = (),
    mark: str | None = None,
    runs: str | None = None,
    seconds: float = ANSWER_SECONDS,
) -> dict[str, Asked]:
    """Ask nodes, all at once.

    Args:
        nodes: Ray's ids of them.
        foreign: plug-ins that they are to load.
        mark, runs: see :func:`tips_dist.study.answering.answer`.
        seconds: to wait for all answers together.
    """
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cloudpickle.register_pickle_by_value(sys.modules[answering.__name__])
    question = ray.remote(answering.answer)
    words, after = [dataclasses.asdict(one) for one in foreign], time.time()
    waiting = {}
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_retries": 1, "scheduling_strategy": where}
        waiting[question.options(**options).remote(words, mark, runs)] = node
    answers = dict.fromkeys(nodes, Asked(None, silence=f"no answer within {seconds:.0f} s", late=True))
    ends = time.monotonic() + seconds
    while waiting and (left := ends - time.monotonic()) > 0:
        ready, _ = ray.wait(list(waiting), timeout=left)
        for reference in ready:
            node = waiting.pop(reference)
            try:
                answers[node] = Asked(ray.get(reference), after, time.time())
            except Exception as error:  # Ray's own kinds, and whatever was raised there
                answers[node] = Asked(None, silence=reason_words(str(error)))
    return answers


def judged_nodes(asked: Asked, wanted: Needs, host: str) -> Iterator[Checked]:
    """What a node's answer shows; ``failed`` is what no trial could do with."""
    answer = asked.answer
    if answer is None:
        advice = "its trials may have to wait" if asked.late else "look at this node's logs"
        yield Checked("node", "warning" if asked.late else "failed", asked.silence, advice, host)
        return
    skew = max(asked.after - answer["time"], answer["time"] - asked.before, 0.0)
    off = skew > MOST_SKEW
    advice = "run NTP on this node" if off else ""
    yield Checked("clock", "warning" if off else "ok", f"within {skew:.1f} s of ours", advice, host)
    yield _versions(answer, wanted, host)
    free = answer["free"]
    state = "failed" if free < NO_ROOM else "warning" if free < LEAST_FREE else "ok"
    advice = "" if state == "ok" else "make room where its temporary files lie"
    yield Checked("disk", state, f"{free / 1e9:.1f} GB free", advice, host)
    if answer["plugins"] is not None:
        yield Checked("plug-ins", "failed", answer["plugins"], where=host)


def _versions(answer: NodeAnswer, wanted: Needs, host: str) -> Checked:
    """Whether the node computes what the driver would: to the last digit only with the same packages."""
    text = ", ".join(f"{name} {version}" for name, version in answer["versions"].items())
    if answer["source"] == ABSENT:
        return Checked("tips-dist", "failed", "is not installed", REMEDY, host)
    other = [
        f"{name} {version} here"
        for name, version in wanted.versions
        if _release(name, version) != _release(name, answer["versions"].get(name, ABSENT))
    ]
    if other:
        return Checked("versions", "failed", f"{text}; {', '.join(other)}", REMEDY, host)
    if answer["source"] != wanted.source:
        return Checked("tips-dist", "failed", "has another source than the driver's", REMEDY, host)
    return Checked("versions", "ok", text, where=host)


def _release(name: str, version: str) -> str:
    """What must agree of a version: not for which card a wheel was built, nor which repair of a Python it is."""
    return ".".join(version.split(".")[:2]) if name == "Python" else version.partition("+")[0]


def host_of(node: RayNode) -> str:
    """The node's name for people."""
    return str(node.get("NodeManagerHostname", node["NodeID"][:8]))
