"""The 17 joints of Human3.6M in somebody's skeleton: limbs by name, trunk and head by hierarchy and proportion.

Rigs name a trunk in a hundred ways and cut it anywhere, so no vertebra is looked up by name. The hip is midway between
the hip joints. The thorax is the base of the neck: the first joint towards the head below the one where the ways to
the head and to both arms part. Spine and neck lie where Human3.6M has them on the chains between these: its spine at
0.36 of the way from hip to the top of the head with the thorax at 0.74, its neck (the nose's height) at 0.85.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tips_dist.data.importers.pipeline import ImportRecord
from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, J

Floats = npt.NDArray[np.float64]

SPINE_SHARE = 0.36 / 0.74  # of the chain from hip to thorax
NECK_SHARE = 1 - 0.85  # of the chains from hip to the top of the head, from above
HEAD_SHARE = 0.26 / 0.74  # the chain from thorax to the top of the head, in lengths of that from hip to thorax
ROUND_SHOULDERS = 0.2  # thorax to the middle of the shoulders at most, in lengths of hip to head
# What each joint is called without its side, letters only, the first that is there.
LIMBS: dict[str, tuple[str, ...]] = {
    "hip": ("upleg", "upperleg", "thigh", "hip", "femur"),
    "knee": ("leg", "lowleg", "lowerleg", "knee", "shin", "calf", "tibia"),
    "ankle": ("foot", "ankle"),
    "shoulder": ("arm", "uparm", "upperarm", "shldr", "humerus", "shoulder"),
    "elbow": ("forearm", "lowarm", "lowerarm", "elbow", "radius"),
    "wrist": ("hand", "wrist"),
}
EXAMPLES = {
    "hip": "LeftUpLeg, UpperLeg_L, Thigh_L", "knee": "LeftLeg, LowerLeg_L, Shin_L", "ankle": "LeftFoot, Foot_L",
    "shoulder": "LeftArm, UpperArm_L", "elbow": "LeftForeArm, LowerArm_L", "wrist": "LeftHand, Hand_L",
    "head": "Head",
}  # fmt: skip
NAMED = (*(f"{side}_{joint}" for side in ("left", "right") for joint in LIMBS), "head")  # what a joint map may name
_CMU = {"lhipjoint", "lowerback", "spine", "spine1", "neck", "leftshoulder", "rightshoulder"}  # cgspeed's conversion


@dataclass
class Node:
    """A joint or end site: name, parent's index (-1 for the root), offset from it, and channels."""

    name: str
    parent: int
    offset: Floats = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)

    @property
    def end(self) -> bool:
        """Whether it is an end site."""
        return self.name.startswith("end:")


@dataclass(frozen=True)
class Mixture:
    """A joint as a weighted sum of nodes, and what lies beyond the last in its own frame (the rig's unit)."""

    nodes: tuple[int, ...]
    weights: tuple[float, ...]
    beyond: Floats | None = None


def restore_thorax(nodes: Sequence[Node], record: ImportRecord) -> None:
    """Put back the bone "thorax" that the usual BVH conversion of the CMU database (cgspeed's) has lost, in place.

    Its neck and collar bones start at the thorax bone's lower end, some 120 mm too low. The bone's length is in the
    database's ASF files; here it is taken to be that of "upperback", the bone below it.
    """
    index = {letters(node.name): k for k, node in reversed(list(enumerate(nodes)))}
    if not index.keys() >= _CMU:
        return
    bone = nodes[index["spine1"]].offset
    lost = [index[name] for name in ("neck", "leftshoulder", "rightshoulder")]
    if any(
        nodes[k].parent != index["spine1"] or np.linalg.norm(nodes[k].offset) > 0.1 * np.linalg.norm(bone) for k in lost
    ):
        return
    for k in lost:
        nodes[k].offset = nodes[k].offset + bone
    record.note(
        'the bone "thorax", which this conversion of the CMU database lacks, is put back as long as "upperback"'
    )


def find_joints(
    nodes: Sequence[Node], names: Mapping[str, str], record: ImportRecord, where: str
) -> dict[str, Mixture]:
    """Each of the 17 joints as a mixture of nodes; ``names`` says which node a joint is where names do not tell.

    Raises:
        UserError: a joint cannot be found, or names what is not there; the message offers the nearest names.
    """
    single = {joint: _limb(nodes, joint, names, where) for joint in NAMED}
    joints = {joint: Mixture((k,), (1.0,)) for joint, k in single.items() if joint != "head"}
    joints["hip"] = Mixture((single["left_hip"], single["right_hip"]), (0.5, 0.5))
    to_head, arms = _way(nodes, single["head"]), [_way(nodes, single[f"{side}_shoulder"]) for side in ("left", "right")]
    shared = [k for k in to_head if k in arms[0] and k in arms[1]]
    above = to_head[len(shared) :]
    if not shared or not above:
        raise UserError(f"{where}: the ways to its head and its arms never part; is '{nodes[single['head']].name}' it?")
    legs = _way(nodes, single["left_hip"])
    trunk = [k for k in shared if k not in legs]
    if above[0] == single["head"]:  # no neck: its base is between the shoulders
        base = Mixture((single["left_shoulder"], single["right_shoulder"]), (0.5, 0.5))
    else:
        base = Mixture((above[0],), (1.0,))
    rest = _rest(nodes)
    joints["thorax"] = base
    trunk_chain = [joints["hip"], *(Mixture((k,), (1.0,)) for k in trunk), base]
    joints["spine"] = _along(trunk_chain, rest, SPINE_SHARE * _length(trunk_chain, rest))
    top = _top(nodes, single["head"], above, _length(trunk_chain, rest), rest, record)
    joints["head"] = top
    inner = [Mixture((k,), (1.0,)) for k in above if k not in base.nodes]
    head_chain = [base, *inner, top]
    whole = _length(trunk_chain, rest) + _length(head_chain, rest)
    down = min(NECK_SHARE * whole, 0.5 * _length(head_chain, rest))
    joints["neck"] = _along(head_chain, rest, _length(head_chain, rest) - down)
    return joints


def letters(name: str) -> str:
    """The letters and digits of a node's name, lower case, without what its tool puts in front (mixamorig:, Bip01)."""
    return re.sub(r"[^a-z0-9]", "", _bare(name).lower())


def _bare(name: str) -> str:
    bare = name.split(":")[-1]
    return re.sub(r"^(?i:mixamorig\d*|bip\d*|joint|jnt|def)[_. -]+", "", bare) or bare


def _sided(name: str) -> tuple[str, str] | None:
    """(side, letters without it) of a name that says its side, as LeftUpLeg, UpperLeg_L, thigh.R, LShin or lShin."""
    bare = _bare(name)
    for side, mark in (("left", "l"), ("right", "r")):
        if side in bare.lower():
            return side, letters(bare).replace(side, "", 1)
        found = (
            re.fullmatch(rf"(?i:(?P<part>.+)[_. -]{mark})", bare)
            or re.fullmatch(rf"(?i:{mark}[_. -](?P<part>.+))", bare)
            or re.fullmatch(rf"[{mark}{mark.upper()}](?P<part>[A-Z].*)", bare)
        )
        if found:
            return side, letters(found["part"])
    return None


def _limb(nodes: Sequence[Node], joint: str, names: Mapping[str, str], where: str) -> int:
    """The node that is this joint."""
    real = [k for k, node in enumerate(nodes) if not node.end]
    if joint in names:
        for k in real:
            if letters(nodes[k].name) == letters(names[joint]):
                return k
        raise UserError(f"{where}: names: {joint}: no joint '{names[joint]}' here{_near(nodes, [names[joint]])}")
    if joint == "head":
        wanted: tuple[str, ...] = ("head",)
        found = {letters(nodes[k].name): k for k in reversed(real)}
    else:
        side, part = joint.split("_")
        wanted = LIMBS[part]
        sided = {k: _sided(nodes[k].name) for k in reversed(real)}
        found = {name[1]: k for k, name in sided.items() if name is not None and name[0] == side}
    for name in wanted:
        if name in found:
            return found[name]
    examples = EXAMPLES[joint.split("_")[-1]]
    if joint.startswith("right"):
        examples = examples.replace("Left", "Right").replace("_L", "_R")
    raise UserError(
        f"{where}: no joint for {joint} (such as {examples}){_near(nodes, [joint, *examples.split(', ')])}; "
        f"say which it is with --set names='{{{joint}: NAME}}'"
    )


def _near(nodes: Sequence[Node], wanted: Sequence[str]) -> str:
    """A hint at the names most like those wanted."""
    known = {letters(node.name): node.name for node in nodes if not node.end}
    near = [name for word in wanted for name in difflib.get_close_matches(letters(word), known, n=2, cutoff=0.5)]
    shown = list(dict.fromkeys(known[name] for name in near))[:4] or list(known.values())[:8]
    return f"; nearest here: {', '.join(shown)}"


def _way(nodes: Sequence[Node], k: int) -> list[int]:
    """The nodes from the root down to node k, it included."""
    way = []
    while k >= 0:
        way.append(k)
        k = nodes[k].parent
    return way[::-1]


def _rest(nodes: Sequence[Node]) -> Floats:
    """Places (nodes, 3) in the rest pose."""
    places = np.zeros((len(nodes), 3))
    for k, node in enumerate(nodes):
        places[k] = node.offset + (places[node.parent] if node.parent >= 0 else 0.0)
    return places


def _place(mixture: Mixture, rest: Floats) -> Floats:
    place: Floats = np.einsum("n,nk->k", np.array(mixture.weights), rest[list(mixture.nodes)])
    return place if mixture.beyond is None else place + mixture.beyond


def _length(chain: Sequence[Mixture], rest: Floats) -> float:
    places = np.array([_place(mixture, rest) for mixture in chain])
    return float(np.linalg.norm(np.diff(places, axis=0), axis=-1).sum())


def _along(chain: Sequence[Mixture], rest: Floats, distance: float) -> Mixture:
    """The point of a chain at this distance from its start."""
    for first, second in itertools.pairwise(chain):
        step = _length((first, second), rest)
        if distance <= step and step > 0:
            share = distance / step
            weights = [(1 - share) * weight for weight in first.weights] + [share * weight for weight in second.weights]
            beyond = None if second.beyond is None else share * second.beyond
            return Mixture((*first.nodes, *second.nodes), tuple(weights), beyond)
        distance -= step
    return chain[-1]


def _top(
    nodes: Sequence[Node], head: int, above: Sequence[int], trunk: float, rest: Floats, record: ImportRecord
) -> Mixture:
    """The top of the head: the end of the head's bone, or where it would be in proportion to the trunk."""
    below = [k for k, node in enumerate(nodes) if head in _way(nodes, k) and k != head]
    ends = [k for k in below if (nodes[k].end or re.search("top|end|nub", letters(nodes[k].name)))]
    ends = [
        k for k in ends if not re.search("eye|jaw|ear|hair", " ".join(letters(nodes[j].name) for j in _way(nodes, k)))
    ]
    best = max(ends, key=lambda k: float(np.linalg.norm(rest[k] - rest[head])), default=head)
    if np.linalg.norm(rest[best] - rest[head]) > 0.05 * trunk:
        return Mixture((best,), (1.0,))
    chain = [Mixture((k,), (1.0,)) for k in above]
    missing = HEAD_SHARE * trunk - _length(chain, rest)
    missing = missing if missing > 0.1 * trunk else HEAD_SHARE * trunk / 2
    direction = nodes[head].offset if np.linalg.norm(nodes[head].offset) > 0 else rest[head] - rest[above[0]]
    if not np.linalg.norm(direction) > 0:
        direction = rest[above[0]] - rest[nodes[above[0]].parent]
    if not np.linalg.norm(direction) > 0:
        raise UserError(
            f"{record.source}: its head has no length and nothing tells where its top is; name another head"
        )
    record.note("the head's end site has no length: the top of the head is estimated from the trunk's proportions")
    return Mixture((head,), (1.0,), missing * direction / np.linalg.norm(direction))


def joints_of(found: Mapping[str, Mixture], places: Floats, turns: Sequence[Floats | None]) -> Floats:
    """The 17 joints (T, 17, 3) from the nodes' places (T, nodes, 3) and their turns into the world."""
    result = np.empty((len(places), len(JOINTS), 3))
    for joint, mixture in found.items():
        place = np.einsum("n,tnk->tk", np.array(mixture.weights), places[:, list(mixture.nodes)])
        if mixture.beyond is not None:
            turn = turns[mixture.nodes[-1]]
            place = place + (mixture.beyond if turn is None else np.einsum("tij,j->ti", turn, mixture.beyond))
        result[:, J[joint]] = place
    return result
