"""Signals: numbers computed from 2D data alone at an evaluation step, one per seed.

All are measured on the same validation poses with the same fixed views in every run of a study, so that they compare
across steps, seeds and configurations. Shapes: S seeds, V validation poses. Costs are per evaluation step; together
they lift 4 V poses, against 3 x 3 x batch_size x evaluate_every pose lifts of training between two evaluations
(``benchmarks/signals.py``). A signal that the data cannot give (no second camera, no dense stretches) is absent; joints
that are not there count in none.

==================================  =================================================================================
signal                              what it is, what it sees and what it cannot
==================================  =================================================================================
agreement/views, _torso, _legs      what is left between the lifts of one instant's views after the best rotation, as a
                                    share of what a mirror image leaves: 0 for one body, 1 and more for flat or random
                                    lifts (module ``agreement``). Needs two cameras. Blind to what all views share.
agreement/time                      how much bones stretch within a tenth of a second, as a share of their motion in the
                                    image. Needs dense stretches. Blind to mirrored depth.
mirror/mixed, _torso, _legs         estimated share of poses held mirrored, 0 to 0.5 (module ``pose_signs``).
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

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tips_dist import geometry, losses
from tips_dist.files import UserError
from tips_dist.models import BaseLifter, Discriminator
from tips_dist.models.blocks import products
from tips_dist.registry import built_in, entry, register
from tips_dist.skeleton import BONES, JOINTS, LEGS, SYMMETRIC_BONES, TORSO, Representation
from tips_dist.stability import agreement
from tips_dist.stability.detectors import OWN_NUMBERS
from tips_dist.stability.distances import Projections, Reference, two_sample
from tips_dist.stability.risk import risk
from tips_dist.tensors import on_host, places

DIRECTIONS = 64
PARTS = {"torso": TORSO, "legs": LEGS}
SIGN_POSES = 256  # enough to tell the signs of whole networks
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ValidationSet:
    """Validation poses and everything fixed about how they are looked at."""

    poses: Tensor  # (V, 17, 2) lifted and judged
    others: Tensor  # (V, 17, 2) other held-out real poses, the reference of distances
    subjects: Tensor  # (V,) index of the person
    people: int  # number of persons
    views: Tensor  # (V, 3, 3) one fixed random view per pose
    turns: Tensor  # (V, 3, 3) one fixed quarter or half turn per pose
    directions: Tensor  # (34, 64) unit vectors
    reference: Reference  # the other held-out poses, prepared for two-sample statistics
    sorted: Projections  # the other held-out poses, prepared for sliced Wasserstein distances
    instants: Tensor | None = None  # (I, M) places of the views of one instant, V for a missing one; None: one camera
    clips: Tensor | None = None  # (K, 2, 17, 2) pairs of near frames; None: the data has no dense stretches
    present: Tensor | None = None  # (V, 17) which joints are there; None: all
    clips_present: Tensor | None = None  # (K, 2, 17)

    @classmethod
    def build(
        cls,
        poses: np.ndarray,
        others: np.ndarray,
        subjects: np.ndarray,
        azimuth: float,
        elevation: float,
        *,
        instants: np.ndarray | None = None,
        clips: np.ndarray | None = None,
        present: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> ValidationSet:
        """Fix views and directions from the number of poses alone; angles in degrees as in training.

        ``present`` says which joints of ``poses``, ``others`` and ``clips`` are there. A joint that pose i lacks is
        taken from the i-th of the others too (and the other way round), so that both samples lack the same.
        """
        generator = torch.Generator().manual_seed(17)
        count = len(poses)
        angles = (2 * torch.rand((2, count), generator=generator) - 1) * torch.pi / 180
        quarters = torch.randint(1, 4, (count,), generator=generator) * (torch.pi / 2)
        directions = torch.randn((2 * len(JOINTS), DIRECTIONS), generator=generator)
        directions = directions / directions.norm(dim=0)
        names, people = np.unique(subjects, return_inverse=True)
        mask = None if present is None else torch.from_numpy(present[0] & present[1])
        reference = geometry.collapse(torch.from_numpy(others), mask)
        return cls(
            poses=geometry.collapse(torch.from_numpy(poses), mask),
            others=reference,
            subjects=torch.from_numpy(people.astype(np.int64)),
            people=len(names),
            views=geometry.rotation(angles[0] * azimuth, angles[1] * elevation),
            turns=geometry.rotation(quarters, torch.zeros(count)),
            directions=directions,
            reference=Reference.build(reference),
            sorted=Projections.build(reference, directions),
            instants=None if instants is None else torch.from_numpy(instants),
            clips=None if clips is None else torch.from_numpy(clips),
            present=mask,
            clips_present=None if present is None or clips is None else torch.from_numpy(present[2]),
        )

    def to(self, device: torch.device) -> ValidationSet:
        """Move all tensors to ``device``."""
        return ValidationSet(**{n: v.to(device) if hasattr(v, "to") else v for n, v in vars(self).items()})


@dataclass(frozen=True)
class Measured:
    """What one evaluation step found: S seeds, V poses, P independent lifters."""

    signals: dict[str, Tensor]  # name -> (S,)
    depths: Tensor  # (S, V, 17) predicted offsets, signs not resolved
    signs: Tensor  # (S, P) resolved depth signs
    confidence: Tensor  # (S, P)
    raw: Tensor | None = None  # (S, V, 17) offsets of the raw lifters, where both were to be judged
    late: Tensor | None = None  # (S,) 1 where the average began anew, see training/averaging.py

    def told(self) -> Measured:
        """The same in host memory, in float32: the one host synchronisation of an evaluation step."""
        signals = {f"signals/{name}": value for name, value in self.signals.items()}
        others = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        found = on_host({name: value.float() for name, value in {**signals, **others}.items()})
        named = {name: found.pop(f"signals/{name}") for name in self.signals}
        return Measured(named, **found)


@torch.no_grad()
def measure(
    lifter: BaseLifter, discriminator: Discriminator, validation: ValidationSet, real_label: float, joints: Tensor
) -> Measured:
    """Compute every signal for every seed.

    Args:
        lifter: S packed lifters, in evaluation mode.
        discriminator: S packed discriminators.
        validation: V poses and fixed views.
        real_label: the label of real poses, so that accuracy is taken at the middle.
        joints: (17,) weights of the cycle losses.
    """
    seeds, count, present = lifter.seeds, len(validation.poses), validation.present
    seen_first = validation.poses
    if validation.clips is not None:
        seen_first = torch.cat((seen_first, validation.clips.flatten(0, 1)))
    offsets, of_clips = lifter(seen_first.expand(seeds, -1, -1, -1)).split([count, len(seen_first) - count], dim=1)
    pose, view = _first_look(offsets, validation)
    measured = _of_depths(offsets, pose, view, validation, lifter.representation)
    signals = measured.signals

    turned = geometry.rotate(pose, validation.turns)
    again_offsets = lifter(torch.cat((view, geometry.project(turned)), dim=1))
    again = geometry.collapse(geometry.lift(view, again_offsets[:, :count]), present)
    returned = geometry.project(geometry.rotate(again, validation.views.transpose(-1, -2)))
    back = _Compared(present, joints)
    signals["consistency/cycle_2d"] = back.mean(losses.cycle_2d, returned, validation.poses)
    seen = geometry.rotate(pose, validation.views)
    signals["consistency/cycle_3d"] = back.mean(losses.pose_loss, again, seen)
    turn = again_offsets[:, count:, :, None], turned[..., 2:]
    signals["consistency/turn_90"] = back.mean(losses.pose_loss, *turn)
    for part, members in PARTS.items():
        own = _Compared(present, _mask(members, pose.device) / len(members))
        signals[f"consistency/cycle_2d_{part}"] = own.mean(losses.cycle_2d, returned, validation.poses)

    scores = discriminator(torch.cat((validation.others.expand(seeds, -1, -1, -1), view), dim=1))
    real, fake = scores[:, :count], scores[:, count:]
    middle = real_label / 2
    signals["discriminator/real"], signals["discriminator/fake"] = real.mean(-1), fake.mean(-1)
    told = (real > middle).float().mean(-1) + (fake <= middle).float().mean(-1)
    signals["discriminator/accuracy"] = told / 2

    if validation.clips is not None:
        resolved = of_clips * geometry.joint_signs(measured.signs, lifter.representation).unsqueeze(1)
        resolved = resolved.unflatten(1, validation.clips.shape[:2])
        signals["agreement/time"] = agreement.time(validation.clips, resolved, validation.clips_present)
    return measured


@dataclass(frozen=True)
class Look:
    """What a registered signal may look at: S seeds, V validation poses; units as in training."""

    validation: ValidationSet
    depths: Tensor  # (S, V, 17) predicted offsets
    pose: Tensor  # (S, V, 17, 3) lifted with resolved signs
    view: Tensor  # (S, V, 17, 2) how the lifts are seen from the fixed random views
    representation: Representation


_OF_PARTS = (
    "agreement/views",
    "consistency/cycle_2d",
    "depth/spread_ratio",
    "distance/sliced_wasserstein",
    "mirror/mixed",
    "rigidity/bone_ratio_variance",
)
_OF_ALL = """agreement/time average/opposed consistency/cycle_3d consistency/turn_90 depth/elbows depth/knees depth/sign
    depth/sign_confidence discriminator/accuracy discriminator/fake discriminator/real distance/coverage distance/mmd
    distance/nearest_neighbour rigidity/symmetry risk/total"""
BUILT_IN_NAMES = (*(f"{name}{part}" for name in _OF_PARTS for part in ("", "_torso", "_legs")), *_OF_ALL.split())
"""What every evaluation step measures, where the data can give it; all together, as they share their lifts."""


def _check(name: str, value: object) -> None:
    if not callable(value):
        raise UserError(f"expected a function of a Look, got {value!r:.80}")
    if name.startswith(OWN_NUMBERS) and value is not measure:
        raise UserError(f"its name must not begin with {', '.join(OWN_NUMBERS[:4])}: those are the networks' own")


def readings(measured: Mapping[str, Tensor]) -> list[dict[str, float | None]]:
    """Each seed's signals as plain numbers, its risk among them."""
    names = list(measured)
    table = torch.stack([measured[name].float() for name in names]).T.tolist()
    rows = [{n: v if math.isfinite(v) else None for n, v in zip(names, values, strict=True)} for values in table]
    return [{**row, "risk/total": risk(row)} for row in rows]


with built_in("signals", _check):
    for _name in BUILT_IN_NAMES:
        register("signals", _name, measure)


@torch.no_grad()
def further(
    names: Sequence[str], validation: ValidationSet, measured: Measured, representation: Representation
) -> dict[str, Tensor]:
    """Registered signals by name, (S,) each; one that is undefined for these data is absent.

    Raises:
        UserError: one of a plug-in failed, or gave another shape; the message names it.
    """
    if not names:
        return {}
    signs = geometry.joint_signs(measured.signs, representation).unsqueeze(1)
    _, view = _first_look(measured.depths, validation)
    pose = geometry.collapse(geometry.lift(validation.poses, measured.depths * signs), validation.present)
    look, found = Look(validation, measured.depths, pose, view, representation), {}
    for name in names:
        one = entry("signals", name)
        try:
            value = one.value(look)
        except Exception as error:
            raise UserError(f"{one}: {type(error).__name__}: {error}") from error
        if value is None and one.options.get("may_be_undefined"):
            continue
        if not isinstance(value, Tensor) or value.shape != measured.depths.shape[:1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{one}: gave {got}, expected one value per seed ({len(measured.depths)},); one that data may leave "
                "undefined is registered with may_be_undefined=True and gives None"
            )
        found[name] = value
    return found


@torch.no_grad()
def from_depths(
    depths: np.ndarray | Tensor, validation: ValidationSet, representation: Representation
) -> dict[str, Tensor]:
    """The signals that need no network, from recorded offsets: (E, S, V, 17) -> name -> (E, S).

    All of ``agreement/views``, ``mirror``, ``rigidity``, ``depth`` and ``distance``, as :func:`measure` gives them; not
    those that lift new views or clips of near frames, or ask a discriminator. For scoring checkpoints without weights.
    """
    found: list[dict[str, Tensor]] = []
    for step in depths:
        offsets = torch.as_tensor(step, dtype=torch.float32).to(validation.poses.device)
        found.append(_of_depths(offsets, *_first_look(offsets, validation), validation, representation).signals)
    return {name: torch.stack([row[name] for row in found]) for name in found[0]} if found else {}


def _first_look(offsets: Tensor, validation: ValidationSet) -> tuple[Tensor, Tensor]:
    """Lifted poses (S, V, 17, 3), and how each is seen from its fixed random view (S, V, 17, 2)."""
    pose = geometry.collapse(geometry.lift(validation.poses, offsets), validation.present)
    return pose, geometry.project(geometry.rotate(pose, validation.views))


def _of_depths(
    offsets: Tensor, pose: Tensor, view: Tensor, validation: ValidationSet, representation: Representation
) -> Measured:
    """The signals of lifted poses and their random views alone."""
    present, lengths = validation.present, losses.bone_lengths(pose)
    bones = None if present is None else losses.bones_present(present)
    some = slice(None, None, max(1, len(validation.poses) // SIGN_POSES))
    there = None if present is None else present[some]
    signs, confidence = geometry.resolve_signs(validation.poses[some], offsets[:, some], representation, there)
    spread = pose[:, :, 1:].std((1, 2))
    signals = {
        "rigidity/bone_ratio_variance": length_variation(lengths, validation.subjects, validation.people, bones),
        "rigidity/symmetry": _asymmetry(pose, bones),
        "depth/spread_ratio": spread[:, 2] / spread[:, 0].clamp_min(1e-9),
        "depth/sign": signs.mean(-1),
        "depth/sign_confidence": confidence.amin(-1),
    }
    for part, joints in PARTS.items():
        chosen = places(tuple(index for index, (_, child) in enumerate(BONES) if child in joints), pose.device)
        spread = pose[:, :, joints[0] : joints[-1] + 1].std((1, 2))
        signals |= {
            f"rigidity/bone_ratio_variance_{part}": length_variation(
                lengths[..., chosen],
                validation.subjects,
                validation.people,
                None if bones is None else bones[:, chosen],
            ),
            f"depth/spread_ratio_{part}": spread[:, 2] / spread[:, 0].clamp_min(1e-9),
        }
    own = geometry.joint_signs(signs, representation).unsqueeze(1)
    resolved = geometry.collapse(geometry.lift(validation.poses, offsets * own), present)
    bends = geometry.limb_bend(geometry.mirror_depth(pose[:, some], own))
    share = bends.sum(1) / bends.abs().sum(1).clamp_min(1e-9)
    signals |= {"depth/knees": share[:, :2].mean(-1), "depth/elbows": share[:, 2:].mean(-1)}
    found = None
    if validation.instants is not None:
        found = agreement.overlaps(resolved, validation.instants, present)
        signals |= agreement.views(found, validation.instants, len(validation.poses), present)
    signals |= agreement.mixed(resolved, validation.instants, found)
    signals |= {f"distance/sliced_wasserstein{part}": d for part, d in validation.sorted.distances(view).items()}
    signals |= {f"distance/{name}": value for name, value in two_sample(view, validation.reference).items()}
    return Measured(signals, offsets, signs, confidence)


@dataclass(frozen=True)
class _Compared:
    """Losses between poses of which some joints are not there: those joints say nothing, the others count for them."""

    present: Tensor | None
    weights: Tensor

    def mean(self, loss: Loss, first: Tensor, second: Tensor) -> Tensor:
        """``loss`` over the joints that are there."""
        if self.present is None:
            return loss(first, second, self.weights)
        kept = self.present.to(self.weights.dtype) @ self.weights
        there = loss(torch.where(self.present[..., None], first, second), second, self.weights)
        return there * (self.weights.sum() / kept.mean().clamp_min(1e-9))


def _mask(joints: tuple[int, ...], device: torch.device) -> Tensor:
    """(17,) 1 for ``joints``, which follow each other, else 0."""
    mask = torch.zeros(len(JOINTS), device=device)
    mask[joints[0] : joints[-1] + 1] = 1
    return mask


def _asymmetry(pose: Tensor, bones: Tensor | None) -> Tensor:
    """Mean relative difference between left and right bones (S, V, 17, 3) -> (S,), over pairs that are there."""
    if bones is None:
        return losses.bone_asymmetry(pose).mean(-1)
    lengths = losses.bone_lengths(pose)
    left, right = (lengths[..., places(side, pose.device)] for side in zip(*SYMMETRIC_BONES, strict=True))
    both = torch.stack([bones[:, one] & bones[:, other] for one, other in SYMMETRIC_BONES], dim=-1)
    apart = (left - right).abs() / (left + right).clamp_min(1e-9)
    return (apart * both).sum((1, 2)) / both.sum().clamp_min(1)


def bone_ratio_variance(poses: Tensor, subjects: Tensor) -> Tensor:
    """How far bones change length within a subject: (S, V, 17, 3), (V,) -> (S,); see :func:`length_variation`."""
    return length_variation(losses.bone_lengths(poses), subjects, int(subjects.max()) + 1)


def length_variation(lengths: Tensor, subjects: Tensor, people: int, present: Tensor | None = None) -> Tensor:
    """Coefficient of variation of bone ratios: lengths (S, V, bones), (V,) -> (S,), the mean over bones and poses.

    A ratio is a bone's length over the mean of the bones given, so a person's size and distance drop out. Measured
    within subjects because people differ in proportions; a subject with one pose adds nothing, nor does a bone that is
    not there (``present`` (V, bones)).
    """
    if present is None:
        ratios = lengths / lengths.mean(-1, keepdim=True).clamp_min(1e-9)
        there = torch.ones_like(lengths[0])
    else:  # a person's size, from the bones that are there, each measured by its own mean
        there = present.to(lengths.dtype)
        usual = (lengths * there).sum(1, keepdim=True) / there.sum(0).clamp_min(1)
        size = (lengths * there).sum(-1, keepdim=True) / (usual * there).sum(-1, keepdim=True).clamp_min(1e-9)
        ratios = lengths / size.clamp_min(1e-9)
    onehot = torch.nn.functional.one_hot(subjects, people).to(ratios.dtype).T  # (people, V)
    count, each = onehot @ there, onehot.expand(len(ratios), -1, -1)  # (people, bones), (S, people, V)
    mean = products(each, ratios * there) / count.clamp_min(1)
    square = products(each, (ratios - mean[:, subjects]).square() * there)
    deviation = (square / (count - 1).clamp_min(1)).sqrt() / mean.clamp_min(1e-9)
    share = count * (count > 1)
    return ((deviation * share).sum(1) / share.sum(0).clamp_min(1)).mean(-1)
