"""The terms of the generator's loss besides the adversarial one: functions of one step's lifts, one value per seed.

Each is registered under the name that its weight has in the study file: ``losses.cycle_2d``, and ``losses.extra.NAME``
for one of a plug-in. All terms see one :class:`Scene`; none lifts anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tips_dist import losses
from tips_dist.files import UserError
from tips_dist.registry import BUILT_IN, built_in, entry, register


@dataclass(frozen=True)
class Scene:
    """What a term may look at; S seeds, B poses each, T turns of every n-th pose.

    Units: poses and depths in root-to-head distances. Of 2D poses (normalised image plane) that distance is about 0.1:
    ``geometry.CAMERA_DISTANCE`` times it is 1.
    """

    poses: Tensor  # (S, B, 17, 2) what was lifted
    pose: Tensor  # (S, B, 17, 3) the lifts
    seen: Tensor  # (S, B, 17, 3) the lifts, turned to the random new views
    again: Tensor  # (S, B, 17, 3) the new views, lifted again
    returned: Tensor  # (S, B, 17, 2) those, turned back and projected
    turned: Tensor  # (S, T * B / n, 17, 3) the lifts, turned by quarters and halves
    turned_offsets: Tensor  # (S, T * B / n, 17) the turned views' depths, lifted again
    joints: Tensor  # (17,) or (S, B, 17): how much each joint counts
    turned_joints: Tensor  # (17,) or (S, T * B / n, 17)
    present: Tensor | None  # (S, B, 17) which joints are there; None: all
    bend_margin: Tensor | float = 0.0  # (S, 1, 1)


Term = Callable[[Scene], Tensor]  # -> (S,); row k from row k of the scene alone
NO_TERMS = ("adversarial", "r1")  # weights that have a place of their own in the step


def _check(name: str, value: object) -> None:
    if not callable(value):
        raise UserError(f"expected a function of a Scene, got {value!r:.80}")


with built_in("losses", _check):

    @register("losses", "cycle_2d")
    def cycle_2d(scene: Scene) -> Tensor:
        """See :func:`losses.cycle_2d`."""
        return losses.cycle_2d(scene.returned, scene.poses, scene.joints)

    @register("losses", "cycle_3d")
    def cycle_3d(scene: Scene) -> Tensor:
        """The new view's lift against the pose that it is a view of."""
        return losses.pose_loss(scene.again, scene.seen, scene.joints)

    @register("losses", "consistency_90")
    def consistency_90(scene: Scene) -> Tensor:
        """See :func:`losses.turn_consistency`."""
        return losses.turn_consistency(scene.turned_offsets, scene.turned[..., 2], scene.turned_joints)

    @register("losses", "bone_prior")
    def bone_prior(scene: Scene) -> Tensor:
        """See :func:`losses.bone_prior`."""
        return losses.bone_prior(scene.pose, scene.present)

    @register("losses", "bend")
    def bend(scene: Scene) -> Tensor:
        """See :func:`losses.bend`."""
        return losses.bend(scene.pose, scene.bend_margin, scene.present)


def chosen(weights: Iterable[str]) -> dict[str, Term]:
    """The terms that have a weight; ``cycle_2d`` always, as every history holds it."""
    names = dict.fromkeys(["cycle_2d", *(name for name in weights if name not in NO_TERMS)])
    return {name: _named(name) for name in names}


def total(terms: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Their weighted sum, (S,)."""
    return sum((weights[name] * term for name, term in terms.items() if name in weights), 0 * terms["cycle_2d"])


def _named(name: str) -> Term:
    """A term; one of a plug-in says its name when it fails or gives another shape."""
    found = entry("losses", name)
    term: Term = found.value
    if found.source is BUILT_IN:
        return term

    def guarded(scene: Scene) -> Tensor:
        try:
            value = term(scene)
        except Exception as error:
            raise UserError(f"{found}: {type(error).__name__}: {error}") from error
        if not isinstance(value, Tensor) or value.shape != scene.pose.shape[:1]:
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise UserError(f"{found}: gave {got}, expected one value per seed ({len(scene.pose)},)")
        return value

    return guarded
