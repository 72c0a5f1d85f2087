import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_geometry import people
from tips_dist import geometry
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability import signals
from tips_dist.stability.distances import Projections, Reference, two_sample

VIEWS: torch.Tensor = geometry.project(people(0, 200))
OTHERS = geometry.project(people(1, 200))
SUBJECTS = np.zeros(200, np.int32)


class Known(torch.nn.Module):
    """A lifter that knows the true depth of every view of the person of ``people``, times a factor."""

    def __init__(self, factor: float = 1.0, noise: float = 0.0) -> None:
        super().__init__()
        self.seeds = 1
        self.representation = REPRESENTATIONS["solo"]
        self.factor, self.noise = factor, noise
        azimuths = torch.linspace(0, 2 * math.pi, 721)[:-1]
        # The validation set turns and tilts poses, so the table covers azimuth finely and elevation coarsely.
        self.poses = torch.cat([
            geometry.rotate(people(0, 1).expand(720, -1, -1),
                            geometry.rotation(azimuths, torch.full((720,), tilt)))
            for tilt in torch.linspace(-0.3, 0.3, 13).tolist()
        ])  # fmt: skip
        self.table = geometry.project(self.poses).flatten(1)

    def forward(self, poses: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(poses[0].flatten(1), self.table).argmin(-1)
        depths = self.poses[nearest][..., 2] * self.factor
        depths = depths + self.noise * torch.randn(depths.shape, generator=torch.Generator().manual_seed(0))
        depths[..., 0] = 0
        return depths[None]


def fooled(poses: torch.Tensor) -> torch.Tensor:
    return torch.full(poses.shape[:2], 0.5)


def measured(lifter: Any) -> dict[str, float]:
    validation = signals.ValidationSet.build(VIEWS.numpy(), OTHERS.numpy(), SUBJECTS, 160.0, 0.0)
    joints = torch.full((17,), 1 / 17)
    found = signals.measure(lifter, fooled, validation, 1.0, joints)  # type: ignore[arg-type]
    return {name: float(value[0]) for name, value in found.signals.items()}


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    return measured(Known())


def test_true_depths_look_right_to_every_signal(truth: dict[str, float]) -> None:
    assert truth["rigidity/bone_ratio_variance"] < 0.03
    assert truth["rigidity/symmetry"] < 0.06
    assert truth["depth/spread_ratio"] == pytest.approx(1.0, abs=0.25)
    assert truth["depth/sign"] == 1
    assert truth["depth/sign_confidence"] > 0.9
    assert truth["consistency/cycle_2d"] < 0.02


@pytest.mark.parametrize("name", ["rigidity/bone_ratio_variance", "rigidity/symmetry", "distance/sliced_wasserstein"])
def test_noisy_depths_look_worse(truth: dict[str, float], name: str) -> None:
    assert measured(Known(noise=0.3))[name] > 2 * truth[name]


def test_mirrored_depths_show_in_the_sign_alone(truth: dict[str, float]) -> None:
    mirrored = measured(Known(factor=-1.0))
    assert mirrored["depth/sign"] == -1
    assert mirrored["rigidity/bone_ratio_variance"] < 0.3


def test_flat_depths_show_in_the_spread(truth: dict[str, float]) -> None:
    flat = measured(Known(factor=0.01))
    assert flat["depth/spread_ratio"] < 0.05
    assert flat["distance/mmd"] > truth["distance/mmd"]


def test_rigidity_is_measured_within_a_subject() -> None:
    short, tall = people(0, 50), people(0, 50).clone()
    tall[:, [2, 3, 5, 6]] *= 1.4  # another person, with longer legs
    poses = torch.cat((short, tall))[None]
    one = signals.bone_ratio_variance(poses, torch.zeros(100, dtype=torch.long))
    two = signals.bone_ratio_variance(poses, torch.tensor([0] * 50 + [1] * 50))
    assert two.item() < 1e-4 < 0.02 < one.item()


def test_a_subject_with_one_pose_adds_nothing() -> None:
    poses = people(0, 50)[None] + 0.05 * torch.randn((1, 50, 17, 3), generator=torch.Generator().manual_seed(0))
    alone = signals.bone_ratio_variance(poses, torch.tensor([0] * 49 + [1]))
    expected = signals.bone_ratio_variance(poses[:, :49], torch.zeros(49, dtype=torch.long)).item()
    assert alone.item() == pytest.approx(expected)
    assert expected > 0.01


def test_sliced_wasserstein_of_shifted_poses_is_the_shift() -> None:
    """In one direction the distance of two equal clouds, one shifted, is the shift along it."""
    directions = torch.zeros(34, 2)
    directions[0] = 1
    shifted = VIEWS.clone()
    shifted[:, 0, 0] += 0.02
    distance = Projections.build(VIEWS, directions).distances(shifted[None])[""]
    assert distance.item() == pytest.approx(0.02 * geometry.CAMERA_DISTANCE, rel=1e-4)


def test_two_sample_statistics_of_the_same_distribution_and_of_another() -> None:
    reference = Reference.build(OTHERS)
    same = two_sample(VIEWS[None], reference)
    other = two_sample(VIEWS[None] * torch.tensor([0.3, 1.0]), reference)
    assert 0.3 < same["nearest_neighbour"].item() < 0.7 < other["nearest_neighbour"].item()
    assert same["coverage"].item() > 0.8 > other["coverage"].item()
    assert same["mmd"].item() < 0.1 < other["mmd"].item()


def test_parts_are_told_apart() -> None:
    """Noise in the legs alone shows in the legs' signals and leaves the torso's where they were."""

    class NoisyLegs(Known):
        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            depths = super().forward(poses)
            noise = torch.randn(depths.shape, generator=torch.Generator().manual_seed(1))
            depths[..., 1:7] += 0.3 * noise[..., 1:7]
            return depths

    calm, noisy = measured(Known()), measured(NoisyLegs())
    for name in ("rigidity/bone_ratio_variance", "consistency/cycle_2d", "distance/sliced_wasserstein"):
        assert noisy[f"{name}_legs"] > 1.5 * calm[f"{name}_legs"], name
        assert noisy[f"{name}_torso"] < 1.5 * calm[f"{name}_torso"] + 1e-3, name
    assert calm["depth/knees"] > 0.9 > noisy["depth/knees"]


def test_seeds_do_not_mix() -> None:
    poses = torch.stack((VIEWS, torch.full_like(VIEWS, math.nan)))
    statistics = two_sample(poses, Reference.build(OTHERS))
    alone = two_sample(VIEWS[None], Reference.build(OTHERS))
    assert all(statistics[name][0] == alone[name][0] for name in alone)


# --- instants, clips, missing joints, records --------------------------------------------------------------------


def packed(*networks: Any) -> Any:
    """Several of the lifters above as one."""

    class Packed(torch.nn.Module):
        seeds = len(networks)
        representation = REPRESENTATIONS["solo"]

        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            return torch.cat([network(poses[row : row + 1]) for row, network in enumerate(networks)])

    return Packed()


def seen_together(present: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None) -> signals.ValidationSet:
    """The same poses as 50 instants of four cameras (all show one rigid body) and clips made of them."""
    poses = VIEWS.numpy()
    order = np.argsort(torch.atan2(VIEWS[:, 1, 0], VIEWS[:, 11, 0]).numpy())  # neighbours are seen from near sides
    clips = poses[np.stack((order[:-1], order[1:]), axis=1)[::3]]
    instants = np.arange(200).reshape(50, 4)
    return signals.ValidationSet.build(
        poses, OTHERS.numpy(), SUBJECTS, 160.0, 0.0, instants=instants, clips=clips, present=present
    )


def values(found: signals.Measured, row: int = 0) -> dict[str, float]:
    return {name: float(value[row]) for name, value in found.signals.items()}


JOINTS_EQUAL = torch.full((17,), 1 / 17)


def look(lifter: Any, validation: signals.ValidationSet) -> signals.Measured:
    return signals.measure(lifter, fooled, validation, 1.0, JOINTS_EQUAL)  # type: ignore[arg-type]


def test_views_and_frames_speak_where_there_are_some(truth: dict[str, float]) -> None:
    assert not any(name.startswith("agreement/") for name in truth)  # one camera, no stretches: absent, never NaN
    assert truth["mirror/mixed"] < 0.05
    good, noisy = (values(look(Known(noise=noise), seen_together())) for noise in (0.0, 0.2))
    for name in ("views", "views_torso", "views_legs", "time"):
        assert good[f"agreement/{name}"] < 0.5 * noisy[f"agreement/{name}"], name


def test_mirrored_networks_agree_as_well_and_mixed_ones_are_told() -> None:
    class Mixed(Known):
        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            depths = super().forward(poses)
            depths[:, ::3] *= -1
            return depths

    mirrored, mixed = values(look(Known(factor=-1.0), seen_together())), values(look(Mixed(), seen_together()))
    assert mirrored["mirror/mixed"] < 0.05
    assert mirrored["agreement/views"] < 0.5 < mixed["agreement/views"]
    assert mixed["mirror/mixed"] == pytest.approx(1 / 3, abs=0.07)


def test_packed_equals_alone_with_views() -> None:
    together = look(packed(Known(noise=0.1), Known(factor=-1.0)), seen_together())
    for row, network in enumerate((Known(noise=0.1), Known(factor=-1.0))):
        for name, value in values(look(network, seen_together())).items():
            assert values(together, row)[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_recorded_depths_give_the_same_signals() -> None:
    validation, representation = seen_together(), REPRESENTATIONS["solo"]
    looks = [look(packed(Known(noise=noise), Known(factor=-1.0)), validation) for noise in (0.0, 0.1, 0.2)]
    depths = torch.stack([one.depths for one in looks]).numpy()
    found = signals.from_depths(depths, validation, representation)
    assert {name.split("/")[0] for name in found} == {"agreement", "mirror", "rigidity", "depth", "distance"}
    for name, table in found.items():
        assert table.shape == (3, 2)
        expected = torch.stack([one.signals[name] for one in looks])
        np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_joints_that_are_not_there_count_in_no_signal() -> None:
    """Whatever a network predicts for them, no signal moves; for a body without missing joints, they do."""
    rows = torch.rand((200, 17), generator=torch.Generator().manual_seed(2)) > 0.1
    rows[:, [0, 7, 8]] = True

    class Elsewhere(Known):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = shift

        def forward(self, poses: torch.Tensor) -> torch.Tensor:
            depths = super().forward(poses)
            missing = ~rows.repeat(poses.shape[1] // 200 + 1, 1)[: poses.shape[1]]
            if poses.shape[1] % 200:  # clips follow the poses
                missing[200:] = False
            return depths + self.shift * missing

    there = (rows.numpy(), np.ones((200, 17), bool), np.ones((67, 2, 17), bool))
    near, far = (values(look(Elsewhere(shift), seen_together(there))) for shift in (0.0, 0.5))
    for name, value in near.items():
        assert far[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    free_near, free_far = (values(look(Elsewhere(shift), seen_together())) for shift in (0.0, 0.5))
    assert free_far["rigidity/bone_ratio_variance"] > 2 * free_near["rigidity/bone_ratio_variance"]


def test_bones_that_are_not_there_leave_the_variance_of_the_others() -> None:
    lengths = torch.rand((1, 80, 16), generator=torch.Generator().manual_seed(0)) + 1
    subjects, present = torch.arange(80) % 3, torch.ones(80, 16, dtype=torch.bool)
    all_there = signals.length_variation(lengths, subjects, 3)
    assert signals.length_variation(lengths, subjects, 3, present).item() == pytest.approx(all_there.item(), rel=0.02)
    rigid = torch.rand((16,), generator=torch.Generator().manual_seed(1)) + 1
    sizes = torch.rand((1, 80, 1), generator=torch.Generator().manual_seed(2)) + 1
    present[::2, 5] = False
    broken = torch.where(present, rigid * sizes, 0.0)
    assert signals.length_variation(broken, subjects, 3, present).item() < 0.02
    assert signals.length_variation(broken, subjects, 3).item() > 0.05
