"""One adversarial step on packed seeds: (S, B, 17, 2) in, both players' losses out and gradients in place.

Legend: S seeds, B poses of a batch, T turns of every n-th of them. Seeds never mix: every reduction ends in one value
per seed, and the sum over seeds that starts the backward pass hands each seed a gradient of exactly 1, so a non-finite
seed cannot touch its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tips_dist import geometry, losses
from tips_dist.models import BaseLifter, Discriminator
from tips_dist.training.pieces import Piece
from tips_dist.training.sampling import Batch
from tips_dist.training.terms import Scene, total
from tips_dist.training.values import Weights

TINY = 1e-12


def adversarial_step(
    lifter: BaseLifter | Piece,
    discriminator: Discriminator | Piece,
    batch: Batch,
    weights: Weights,
    joints: Tensor,
    shares: Tensor,
) -> dict[str, Tensor]:
    """Compute both players' losses and leave their gradients in ``.grad``.

    Each pose is lifted once; both players use that lift. The random view and the turned views are lifted again in one
    call. Both players move at once, from the same parameters.

    Args:
        lifter: generator of 2D views.
        discriminator: the other player.
        batch: poses, views, turns and labels.
        weights: weights of the losses, one per seed, and the recipe.
        joints: (17,) from :func:`losses.joint_weights`.
        shares: (17,) from :func:`losses.adversarial_shares`.

    Returns:
        One value per seed (S,) for each loss, detached.
    """
    kind, size, values = weights.kind, batch.poses.shape[1], weights.values
    present = batch.present  # None: all joints of all poses
    if present is not None:
        joints = joints * present  # (S, B, 17): a joint that is not there counts in no loss

    # --- Lift once, look from elsewhere ------------------------------------------------------------------------
    offsets = lifter(batch.poses)
    # A joint that is not there stays where its parent is, also in every view, as it does in the data. (S, B, 17, 3)
    pose = geometry.collapse(geometry.lift(batch.poses, offsets), present)
    seen = geometry.rotate(pose, batch.views)
    view = geometry.project(seen)
    every = size // batch.turns.shape[2]
    turned = geometry.rotate(pose[:, ::every].unsqueeze(1), batch.turns).flatten(1, 2)  # (S, T * B / n, 17, 3)

    # --- Lift the new views again, all in one call --------------------------------------------------------------
    again_views = torch.cat((view, geometry.project(turned)), dim=1)
    again_offsets = lifter(again_views)
    again = geometry.lift(view, again_offsets[:, :size])
    scene = Scene(
        poses=batch.poses,
        pose=pose,
        seen=seen,
        again=again,
        returned=geometry.project(geometry.rotate(again, batch.views.transpose(-1, -2))),
        turned=turned,
        turned_offsets=again_offsets[:, size:],
        joints=joints,
        turned_joints=joints if present is None else joints[:, ::every].repeat(1, batch.turns.shape[1], 1),
        present=present,
        bend_margin=weights.bend_margin[:, None, None],
    )
    terms = {name: term(scene) for name, term in weights.terms.items()}
    own = total(terms, values)

    # --- The discriminator sees real poses and the views, once, for both players ---------------------------------
    view = geometry.collapse(view, batch.shown)  # what only one of the two samples lacks must not give it away
    shown = view.detach().requires_grad_()
    both = torch.cat((batch.real, shown), dim=1)
    if batch.noise is not None:
        both = both + batch.noise
    scores = discriminator(both)
    judged = scores.detach().requires_grad_()
    discriminator_loss = losses.discriminator_loss(judged, batch.labels, kind)
    adversarial = losses.adversarial_loss(judged[:, size:], weights.real_label[:, None], kind)

    # --- Gradients: one pass back through the discriminator serves both players ----------------------------------
    # Both losses reach the network through one number per pose. So the gradient that the generator wants is the one
    # that the discriminator's loss leaves on the view, times the ratio of the two losses' slopes at that score (the
    # discriminator has no batch norm: no score depends on another pose).
    (slope,) = torch.autograd.grad(discriminator_loss.sum(), judged)
    (wanted,) = torch.autograd.grad(adversarial.sum(), judged)
    slope = torch.where(slope.abs() < TINY, TINY, slope)  # never exactly 0; 1e-12 is lost in any sum of gradients
    torch.autograd.backward(scores, slope, inputs=[shown, *discriminator.parameters()])
    ratio = (wanted / slope)[:, size:, None, None]
    # It reaches each part by its share of the keypoints.
    strength = values.get("adversarial", torch.zeros_like(adversarial))
    pull = shown.grad * ratio * (strength.view(-1, 1, 1, 1) * shares.unsqueeze(-1))
    torch.autograd.backward([own.sum(), view], [None, pull], inputs=list(lifter.parameters()))

    found = {
        "generator/adversarial": adversarial,
        "generator/loss": strength * adversarial + own,
        "discriminator/loss": discriminator_loss,
        **{f"generator/{name}": term for name, term in terms.items()},
    }
    if "r1" in values:  # the discriminator's alone, so it goes back by itself and adds to the gradients above
        found["discriminator/r1"] = gradient_penalty(discriminator, both[:, :size])
        torch.autograd.backward((values["r1"] * found["discriminator/r1"]).sum(), inputs=[*discriminator.parameters()])
    return {name: value.detach() for name, value in found.items()}


def gradient_penalty(discriminator: Discriminator | Piece, real: Tensor) -> Tensor:
    """R1: half the mean squared slope of the score on real poses (Mescheder et al. 2018, arXiv 1801.04406).

    (S, B, 17, 2) -> (S,), with slopes per root-to-head distance. Needs the gradient's gradient, which neither the
    trunk's own backward pass nor a compiled network has: hence ``forward`` itself, and ``twice``.
    """
    real = real.detach().requires_grad_()
    scores = discriminator.forward(real, twice=True)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return (slope / geometry.CAMERA_DISTANCE).square().sum((-1, -2)).mean(-1) / 2
