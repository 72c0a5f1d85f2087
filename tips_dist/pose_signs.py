"""Tell the sign of depth pose by pose, and how many poses a network holds mirrored, from 2D data alone.

A network that passes from one mirror solution to the other holds a share of its poses mirrored; one sign for the
whole network (``geometry.resolve_signs``) cannot mend that. Three things tell a single pose: its knees and elbows bend
one way; the views of one instant show one body; the independent parts of one pose belong together. They are the fields
and couplings of a small Ising model whose spins are the poses' parts, solved in mean field (a fixed number of damped
sweeps, no branch, no synchronisation with the device). Its prior is the share of mirrored poses, estimated along with
the signs (expectation maximisation): a network without mirrored poses is trusted, so that it loses nothing.

Shapes: S networks, V poses, P independent parts, I instants of up to M views, C = M (M - 1) / 2 pairs of views. A
table of instants (I, M) holds row numbers 0..V-1, and V where a view is missing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from tips_dist import geometry
from tips_dist.skeleton import JOINTS, J, Representation
from tips_dist.tensors import kept, places

# Log odds of a right sign per unit of evidence: of the order that logistic regression gives for half-trained lifters
# (knees twice as much as elbows), larger because better lifters bend more surely.
KNEE_ODDS, ELBOW_ODDS, BEND_LIMIT = 20.0, 10.0, 0.1  # per limb length of bend; bends beyond the limit say no more
VIEW_ODDS = 20.0  # per unit of squared distance by which a pair of views fits better with equal signs
PART_ODDS = 3.0  # per unit of the product of two standardised depths that should have one sign
TRUSTED_POSES = 10  # how many poses without fault a network is credited with before the first is seen
SWEEPS = 12
DAMPING = 0.5
_LEAST_SHARE = 0.005
SIDES = ("left", "right")
_BENDING = ("left_knee", "right_knee", "left_elbow", "right_elbow")
# Products of depths that are positive in a body whose parts have one sign: both girdles recede together, hips and
# shoulders lie on opposite sides of root and thorax (those of geometry.plausibility).
_PRODUCTS = (
    (("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")),
    (("left_hip", "hip"), ("hip", "right_hip")),
    (("left_shoulder", "thorax"), ("thorax", "right_shoulder")),
)


@dataclass(frozen=True)
class PoseSigns:
    """What was told of S networks' depths."""

    signs: Tensor  # (S, V, P) +1 or -1, to multiply the offsets of each part with
    confidence: Tensor  # (S, V, P) 0..1
    mirrored: Tensor  # (S, P) estimated share of poses whose sign is not the network's own

    def joints(self, representation: Representation) -> Tensor:
        """(S, V, 17) factors that turn predicted offsets into sign-resolved ones."""
        return geometry.joint_signs(self.signs, representation)


def resolve_pose_signs(
    poses: Tensor,
    offsets: Tensor,
    representation: Representation,
    *,
    signs: Tensor | None = None,
    instants: Tensor | None = None,
    present: Tensor | None = None,
) -> PoseSigns:
    """Tell the depth sign of each pose and independent part.

    Args:
        poses: (V, 17, 2) normalised 2D poses.
        offsets: (S, V, 17) depth offsets as predicted.
        representation: says which joints were lifted together.
        signs: (S, P) each network's own signs, the prior; ``None`` tells them by ``geometry.resolve_signs``.
        instants: (I, M) which poses are views of one instant; ``None`` where there is one camera.
        present: (V, 17) which joints are there; ``None`` for all.
    """
    if signs is None:
        signs, _ = geometry.resolve_signs(poses, offsets, representation, present)
    lifted = geometry.lift(poses, offsets * geometry.joint_signs(signs, representation).unsqueeze(-2))
    lifted = geometry.collapse(lifted, present)
    votes = None
    if instants is not None and len(instants):
        votes = view_votes(lifted, instants, representation, present)
    right, mirrored = tell_mirrored(lifted, representation, instants, votes)
    told = torch.where(right < 0, -1.0, 1.0) * signs.unsqueeze(-2)
    return PoseSigns(told, right.abs(), mirrored)


def tell_mirrored(
    lifted: Tensor,
    representation: Representation,
    instants: Tensor | None = None,
    votes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which parts of sign-resolved lifts (S, V, 17, 3) have the right sign, and what share has not.

    ``votes`` (S, I, C, P) come from :func:`view_votes` and the pairs of ``instants``.

    Returns:
        (S, V, P) from -1 (surely mirrored) to 1 (surely right), and (S, P) the estimated share that is mirrored.
    """
    field, parts = bend_odds(lifted, representation), part_couplings(lifted, representation)
    views = None if instants is None or votes is None else _square(votes, instants.shape[1])
    mean = torch.tanh(field / 2)
    share = torch.full_like(field[:, 0], 0.25)
    for _ in range(SWEEPS):
        odds = field + torch.logit(1 - share, eps=_LEAST_SHARE).unsqueeze(1)
        if parts is not None:
            odds = odds + (parts * mean.unsqueeze(-2)).sum(-1)
        if views is not None and instants is not None:
            odds = odds + _from_views(views, mean, instants)
        mean = DAMPING * mean + (1 - DAMPING) * torch.tanh(odds / 2)
        share = ((1 - mean) / 2).sum(1) / (mean.shape[1] + TRUSTED_POSES)
    return mean, share


def bend_odds(lifted: Tensor, representation: Representation) -> Tensor:
    """Log odds of each part's sign from its own knees and elbows: (S, V, 17, 3) -> (S, V, P)."""
    bends = geometry.limb_bend(lifted).clamp(-BEND_LIMIT, BEND_LIMIT)  # left and right knee, left and right elbow
    return bends @ _bend_weights(representation, bends.device)


def part_couplings(lifted: Tensor, representation: Representation) -> Tensor | None:
    """Log odds that two parts of one pose have one sign: (S, V, 17, 3) -> (S, V, P, P); None for a single part."""
    if len(representation.lifters) == 1:
        return None
    form, owner = _part_form(representation, lifted.device)
    depth = lifted[..., 2]
    girdle = torch.stack([depth[..., J[f"{side}_{joint}"]] for joint in ("hip", "shoulder") for side in SIDES], dim=-1)
    size = girdle.square().mean((-2, -1), keepdim=True).clamp_min(1e-9)  # (S, 1, 1)
    products = form * (depth.unsqueeze(-1) * depth.unsqueeze(-2)) / size.unsqueeze(-1)
    products = PART_ODDS * (products + products.transpose(-1, -2)) / 2
    couplings: Tensor = owner @ products @ owner.T
    return couplings * (1 - torch.eye(len(owner), device=couplings.device, dtype=couplings.dtype))


@kept
def _bend_weights(representation: Representation, device: torch.device) -> Tensor:
    """Log odds per unit of bend of each knee and elbow for the part that predicts it, (4, P)."""
    weights = torch.zeros(len(_BENDING), len(representation.lifters))
    for row, joint in enumerate(_BENDING):
        part = next(i for i, one in enumerate(representation.lifters) if J[joint] in one.joints)
        weights[row, part] = KNEE_ODDS if row < 2 else ELBOW_ODDS
    return weights.to(device)


@kept
def _part_form(representation: Representation, device: torch.device) -> tuple[Tensor, Tensor]:
    """The products of two depths that should be positive, as a form (17, 17), and whose joint is whose, (P, 17)."""
    form = torch.zeros(len(JOINTS), len(JOINTS))
    for first, second in _PRODUCTS:
        for (one, left), (other, right) in itertools.product(enumerate(first), enumerate(second)):
            form[J[left], J[right]] += 1 if one == other else -1
    owner = geometry.joint_signs(torch.eye(len(representation.lifters)), representation)
    return form.to(device), owner.to(device)


# --- views of one instant ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViewProducts:
    """Lifts of an instant's views multiplied pair by pair, over some joints; those of two groups of joints add up."""

    matrix: Tensor  # (S, I, C, 3, 3)
    squares: Tensor  # (2, S, I, C) squared norms of both, over the joints that both have

    def __add__(self, other: ViewProducts) -> ViewProducts:
        """The products over the joints of both groups, which must have none in common but the root."""
        return ViewProducts(self.matrix + other.matrix, self.squares + other.squares)

    def overlaps(self) -> tuple[Tensor, Tensor]:
        """How well views fit each other once rotated, as they are and with one mirrored: (S, I, C) each.

        Lifts are of norm 1: an overlap of 1 is a perfect fit, and that with a missing view 0 (:func:`pairs_present`).
        """
        same, mirrored = geometry.overlap(self.matrix)
        size = self.squares.prod(0).sqrt().clamp_min(1e-12)
        return same / size, mirrored / size


def view_products(
    lifted: Tensor, instants: Tensor, joints: tuple[int, ...], present: Tensor | None = None
) -> ViewProducts:
    """Multiply root-relative lifts (S, V, 17, 3), cut to ``joints``, within each of the ``instants`` (I, M)."""
    seeds, (count, views) = len(lifted), instants.shape
    first, second = _places(views, lifted.device)
    scattered = joints[-1] - joints[0] + 1 != len(joints)
    chosen = places(joints, lifted.device) if scattered else slice(joints[0], joints[-1] + 1)
    poses = lifted[:, :, chosen]
    mask = None if present is None else present[:, chosen].to(poses)
    if mask is not None:
        poses = poses * mask[..., None]
    nobody = poses.new_zeros((seeds, 1, *poses.shape[2:]))
    found = torch.cat((poses, nobody), dim=1)[:, instants]  # (S, I, M, J, 3)
    flat = found.transpose(-1, -2).flatten(2, 3)  # (S, I, 3 M, J)
    product = (flat @ flat.transpose(-1, -2)).view(seeds, count, views, 3, views, 3).transpose(3, 4)
    squares = found.square().sum(-1)  # (S, I, M, J)
    if mask is None:
        norms = squares.sum(-1)
        one, other = norms[:, :, first], norms[:, :, second]
    else:
        there = torch.cat((mask, mask.new_zeros((1, mask.shape[1]))))[instants]  # (I, M, J)
        norms = squares @ there.transpose(-1, -2)  # (S, I, M, M): of the first, over joints that the second has
        one, other = norms[:, :, first, second], norms[:, :, second, first]
    return ViewProducts(product[:, :, first, second], torch.stack((one, other)))


def view_votes(
    lifted: Tensor, instants: Tensor, representation: Representation, present: Tensor | None = None
) -> Tensor:
    """Log odds that each pair of an instant's views has one sign, part by part: (S, V, 17, 3) -> (S, I, C, P)."""
    products = [view_products(lifted, instants, part.joints, present) for part in representation.lifters]
    return torch.stack([votes_of(*product.overlaps()) for product in products], dim=-1)


def votes_of(same: Tensor, mirrored: Tensor) -> Tensor:
    """Log odds that two views have one sign, from their overlaps (..., C) as they are and with one mirrored."""
    return VIEW_ODDS * 2 * (same - mirrored).float()


@kept
def _places(views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two ends of each pair of ``views`` views, (C,) each."""
    first, second = torch.tensor(list(itertools.combinations(range(views), 2)), device=device).unbind(1)
    return first, second


def pairs_present(instants: Tensor, poses: int, joints: tuple[int, ...], present: Tensor | None = None) -> Tensor:
    """Which pairs of views are there and share at least half of ``joints``: (I, M) -> (I, C), bool."""
    first, second = _places(instants.shape[1], instants.device)
    there = instants < poses
    both = there[:, first] & there[:, second]
    if present is not None:
        mask = torch.cat((present[:, places(joints, present.device)], present.new_zeros((1, len(joints)))))
        both = both & ((mask[instants[:, first]] & mask[instants[:, second]]).sum(-1) * 2 >= len(joints))
    return both


def _square(votes: Tensor, views: int) -> Tensor:
    """(S, I, C, P) -> (S, I, M, M, P), symmetric, nothing on the diagonal."""
    first, second = _places(views, votes.device)
    square = votes.new_zeros((*votes.shape[:2], views, views, votes.shape[-1]))
    square[:, :, first, second] = votes
    square[:, :, second, first] = votes
    return square


def _from_views(couplings: Tensor, mean: Tensor, instants: Tensor) -> Tensor:
    """What the other views of its instant say about each pose: (S, I, M, M, P), (S, V, P) -> (S, V, P)."""
    nothing = mean.new_zeros((len(mean), 1, mean.shape[-1]))
    theirs = torch.cat((mean, nothing), dim=1)[:, instants]  # (S, I, M, P); 0 for a missing view
    odds = (couplings * theirs.unsqueeze(2)).sum(3)
    told = torch.cat((torch.zeros_like(mean), nothing), dim=1)
    told[:, instants] = odds  # the extra row takes what falls to missing views
    return told[:, :-1]
