"""Signals: numbers computed from 2D data alone at an evaluation step, one per seed.

All are measured on the same validation poses with the same fixed views in every run of a study, so that they compare
across steps, seeds and configurations. Shapes: S seeds, V validation poses. Costs are per evaluation step; together
they lift 4 V poses, against 3 x 3 x batch_size x evaluate_every pose lifts of training between two evaluations.

==================================  =================================================================================
signal                              what it is, what it sees and what it cannot
==================================  =================================================================================
discriminator/real, /fake           mean score of held-out real poses and of reprojected lifts. 0.5 each when the
                                    least-squares game is balanced.
discriminator/accuracy              share told apart at the middle score, on poses it was not trained on. Near 1: it
                                    dominates; far below 0.5: it failed. Blind to what the lifter does off its views.
consistency/cycle_2d, _3d, turn_90  the cycle losses (module ``losses``) from fixed angles. Small also for flat poses.
distance/sliced_wasserstein         distance between reprojections and *other* held-out real poses, mean over 64 fixed
                                    directions (Rabin et al. 2011), in units of the root-to-head distance. Sees
                                    implausible views; cannot see a mirrored depth.
distance/mmd, /nearest_neighbour,   two-sample statistics on bone vectors: see module ``distances``.
distance/coverage
rigidity/bone_ratio_variance        a person's bones do not change length: standard deviation of bone ratios over one
                                    subject's poses relative to their mean, averaged. Blind to a constant wrong shape.
rigidity/symmetry                   mean relative difference between left and right bones.
depth/spread_ratio                  standard deviation of depth over that of x; azimuth is uniform, so near 1. Flat
                                    poses, which cheat every cycle, show here.
gradients/, updates/ (per player)   norm of the last gradient, and of Adam's last step relative to the weights; added by
                                    the training loop. Exploding or vanishing play; says nothing about poses.
..._torso, ..._legs                 rigidity, cycle, spread and sliced Wasserstein (half the directions) of one part.
depth/knees, depth/elbows           once signs are resolved: share of knees that bend forward and elbows backward,
                                    weighted by how far, -1 to 1. Far below 1: limbs bend at random.
depth/sign, depth/sign_confidence   the resolved sign (mean over independent lifters) and how sure it is (least sure
                                    lifter): see ``geometry.resolve_signs``.
==================================  =================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tips_dist import geometry, losses
from tips_dist.models import Discriminator, Lifter
from tips_dist.skeleton import BONES, JOINTS, LEGS, TORSO
from tips_dist.stability.distances import Reference, two_sample

DIRECTIONS = 64
PARTS = {"torso": TORSO, "legs": LEGS}


@dataclass(frozen=True)
class ValidationSet:
    """Validation poses and everything fixed about how they are looked at."""

    poses: Tensor  # (V, 17, 2) lifted and judged
    others: Tensor  # (V, 17, 2) other held-out real poses, the reference of distances
    subjects: Tensor  # (V,) index of the person
    views: Tensor  # (V, 3, 3) one fixed random view per pose
    turns: Tensor  # (V, 3, 3) one fixed quarter or half turn per pose
    directions: Tensor  # (34, 64) unit vectors
    reference: Reference  # the other held-out poses, prepared for two-sample statistics

    @classmethod
    def build(
        cls, poses: np.ndarray, others: np.ndarray, subjects: np.ndarray, azimuth: float, elevation: float
    ) -> ValidationSet:
        """Fix views and directions from the number of poses alone; angles in degrees as in training."""
        generator = torch.Generator().manual_seed(17)
        count = len(poses)
        angles = (2 * torch.rand((2, count), generator=generator) - 1) * torch.pi / 180
        quarters = torch.randint(1, 4, (count,), generator=generator) * (torch.pi / 2)
        directions = torch.randn((2 * len(JOINTS), DIRECTIONS), generator=generator)
        _, people = np.unique(subjects, return_inverse=True)
        return cls(
            poses=torch.from_numpy(poses),
            others=torch.from_numpy(others),
            subjects=torch.from_numpy(people.astype(np.int64)),
            views=geometry.rotation(angles[0] * azimuth, angles[1] * elevation),
            turns=geometry.rotation(quarters, torch.zeros(count)),
            directions=directions / directions.norm(dim=0),
            reference=Reference.build(torch.from_numpy(others)),
        )

    def to(self, device: torch.device) -> ValidationSet:
        """Move all tensors to ``device``."""
        return ValidationSet(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Measured:
    """What one evaluation step found: S seeds, V poses, P independent lifters."""

    signals: dict[str, Tensor]  # name -> (S,)
    depths: Tensor  # (S, V, 17) predicted offsets, signs not resolved
    signs: Tensor  # (S, P) resolved depth signs
    confidence: Tensor  # (S, P)


@torch.no_grad()
def measure(
    lifter: Lifter, discriminator: Discriminator, validation: ValidationSet, real_label: float, joints: Tensor
) -> Measured:
    """Compute every signal for every seed.

    Args:
        lifter: S packed lifters, in evaluation mode.
        discriminator: S packed discriminators.
        validation: V poses and fixed views.
        real_label: the label of real poses, so that accuracy is taken at the middle.
        joints: (17,) weights of the cycle losses.
    """
    seeds, count = lifter.seeds, len(validation.poses)
    poses = validation.poses.expand(seeds, -1, -1, -1)
    offsets = lifter(poses)
    pose = geometry.lift(poses, offsets)
    seen = geometry.rotate(pose, validation.views)
    view = geometry.project(seen)
    turned = geometry.rotate(pose, validation.turns)
    again_offsets = lifter(torch.cat((view, geometry.project(turned)), dim=1))
    again = geometry.lift(view, again_offsets[:, :count])
    returned = geometry.project(geometry.rotate(again, validation.views.transpose(-1, -2)))

    scores = discriminator(torch.cat((validation.others.expand(seeds, -1, -1, -1), view), dim=1))
    real, fake = scores[:, :count], scores[:, count:]
    middle = real_label / 2
    some = slice(None, None, max(1, count // 256))  # enough to tell the signs
    signs, confidence = geometry.resolve_signs(validation.poses[some], offsets[:, some], lifter.representation)
    spread = pose[:, :, 1:].std((1, 2))
    signals = {
        "discriminator/real": real.mean(-1),
        "discriminator/fake": fake.mean(-1),
        "discriminator/accuracy": ((real > middle).float().mean(-1) + (fake <= middle).float().mean(-1)) / 2,
        "consistency/cycle_2d": losses.cycle_2d(returned, poses, joints),
        "consistency/cycle_3d": losses.pose_loss(again, seen, joints),
        "consistency/turn_90": losses.turn_consistency(again_offsets[:, count:], turned[..., 2], joints),
        "distance/sliced_wasserstein": sliced_wasserstein(view, validation.others, validation.directions),
        "rigidity/bone_ratio_variance": bone_ratio_variance(pose, validation.subjects),
        "rigidity/symmetry": losses.bone_asymmetry(pose).mean(-1),
        "depth/spread_ratio": spread[:, 2] / spread[:, 0].clamp_min(1e-9),
        "depth/sign": signs.mean(-1),
        "depth/sign_confidence": confidence.amin(-1),
    }
    signals |= _by_part(pose, returned, view, validation)
    resolved = geometry.mirror_depth(pose[:, some], geometry.joint_signs(signs, lifter.representation).unsqueeze(1))
    bends = geometry.bend(resolved)
    share = bends.sum(1) / bends.abs().sum(1).clamp_min(1e-9)
    signals |= {"depth/knees": share[:, :2].mean(-1), "depth/elbows": share[:, 2:].mean(-1)}
    signals |= {f"distance/{name}": value for name, value in two_sample(view, validation.reference).items()}
    return Measured(signals, offsets, signs, confidence)


def _by_part(pose: Tensor, returned: Tensor, view: Tensor, validation: ValidationSet) -> dict[str, Tensor]:
    """The poses' signals again for torso and legs alone, whatever the representation: each (S,)."""
    found: dict[str, Tensor] = {}
    lengths = losses.bone_lengths(pose)
    for part, joints in PARTS.items():
        bones = [index for index, (_, child) in enumerate(BONES) if child in joints]
        mask = torch.zeros(len(JOINTS), device=pose.device)
        mask[list(joints)] = 1 / len(joints)
        spread = pose[:, :, list(joints)].std((1, 2))
        reference = validation.others * mask[:, None].sign()
        found |= {
            f"rigidity/bone_ratio_variance_{part}": length_variation(lengths[..., bones], validation.subjects),
            f"consistency/cycle_2d_{part}": losses.cycle_2d(returned, validation.poses, mask),
            f"depth/spread_ratio_{part}": spread[:, 2] / spread[:, 0].clamp_min(1e-9),
            f"distance/sliced_wasserstein_{part}": sliced_wasserstein(
                view * mask[:, None].sign(), reference, validation.directions[:, : DIRECTIONS // 2]
            ),
        }
    return found


def sliced_wasserstein(views: Tensor, reference: Tensor, directions: Tensor) -> Tensor:
    """Mean over directions of the 1D Wasserstein-1 distance: (S, V, 17, 2), (V, 17, 2), (34, D) -> (S,).

    In units of the root-to-head distance; equal sample sizes, so it is a mean over sorted pairs.
    """
    scale = geometry.CAMERA_DISTANCE
    first = ((views * scale).flatten(-2) @ directions).sort(dim=-2).values
    second = ((reference * scale).flatten(-2) @ directions).sort(dim=-2).values
    return (first - second).abs().mean((-1, -2))


def bone_ratio_variance(poses: Tensor, subjects: Tensor) -> Tensor:
    """How far bones change length within a subject: (S, V, 17, 3), (V,) -> (S,); see :func:`length_variation`."""
    return length_variation(losses.bone_lengths(poses), subjects)


def length_variation(lengths: Tensor, subjects: Tensor) -> Tensor:
    """Coefficient of variation of bone ratios: lengths (S, V, bones), (V,) -> (S,), the mean over bones and poses.

    A ratio is a bone's length over the mean of the bones given, so a person's size and distance drop out. Measured
    within subjects because people differ in proportions; a subject with one pose adds nothing.
    """
    ratios = lengths / lengths.mean(-1, keepdim=True).clamp_min(1e-9)
    people = int(subjects.max()) + 1
    onehot = torch.nn.functional.one_hot(subjects, people).to(ratios.dtype)  # (V, people)
    count = onehot.sum(0)[:, None]  # (people, 1)
    mean = torch.einsum("vp,svb->spb", onehot, ratios) / count.clamp_min(1)
    square = torch.einsum("vp,svb->spb", onehot, (ratios - mean[:, subjects]).square())
    deviation = (square / (count - 1).clamp_min(1)).sqrt() / mean.clamp_min(1e-9)
    share = count * (count > 1)
    return (deviation * share).sum(1).mean(-1) / share.sum().clamp_min(1)
