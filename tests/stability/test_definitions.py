"""Signals and signs told pose by pose, against their definitions written out one pose at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tests.stability.bodies import PROCEDURAL, seen
from tests.test_geometry import bends_of
from tips_dist import geometry, pose_signs
from tips_dist.skeleton import BONES, LEGS, REPRESENTATIONS, SYMMETRIC_BONES, TORSO, J
from tips_dist.stability import signals

Array = Any
PARTS = REPRESENTATIONS["torso_legs"]
INDEPENDENT = [name for name, one in REPRESENTATIONS.items() if len(one.lifters) > 1]
VIEWS, OTHERS = (seen(PROCEDURAL[start::17][:12])[0] for start in (0, 5))
SUBJECTS = np.array([7] * 5 + [9] * 6 + [30])
FACTORS = (1.0, -0.6)  # of the two seeds
REAL = 0.9


def depths_of(poses: Any, factor: float) -> Any:
    """A made-up lifter that takes arrays and tensors: (..., 17, 2) -> (..., 17), the root at 0."""
    x, y = poses[..., 0], poses[..., 1]
    return factor * (2 * x - 30 * y * y + 40 * x * y) * (np.arange(17) > 0)


def score_of(poses: Any) -> Any:
    """A made-up discriminator: (..., 17, 2) -> (...)."""
    return 0.45 + 3 * poses[..., 5, 0] - 2 * poses[..., 12, 1] - 0.1


class Lifter(torch.nn.Module):
    seeds, representation = 2, PARTS

    def forward(self, poses: torch.Tensor) -> torch.Tensor:
        there = torch.from_numpy(np.stack([depths_of(one.numpy(), f) for one, f in zip(poses, FACTORS, strict=True)]))
        return there.to(poses)


VALIDATION = signals.ValidationSet.build(VIEWS.numpy(), OTHERS.numpy(), SUBJECTS, 120.0, 8.0)
VALIDATION = VALIDATION.to(torch.device("cpu"))


@pytest.fixture(scope="module")
def measured() -> signals.Measured:
    joints = torch.full((17,), 1 / 17)
    return signals.measure(Lifter(), score_of, VALIDATION, REAL, joints)  # type: ignore[arg-type]


def lift(flat: Array, offsets: Array) -> Array:
    depth = np.maximum(10 + offsets, 1)
    return np.concatenate([flat * depth[..., None], (depth - 10)[..., None]], axis=-1)


def project(body: Array) -> Array:
    return body[..., :2] / np.maximum(body[..., 2:] + 10, 1)


class ByHand:
    """What one seed sees."""

    def __init__(self, factor: float) -> None:
        self.flat, self.factor = VIEWS.double().numpy(), factor
        self.turns, self.looks = VALIDATION.turns.double().numpy(), VALIDATION.views.double().numpy()
        self.pose = lift(self.flat, depths_of(self.flat, factor))
        self.seen = np.array([body @ turn.T for body, turn in zip(self.pose, self.looks, strict=True)])
        self.view = project(self.seen)
        self.again = lift(self.view, depths_of(self.view, factor))
        back = np.array([body @ turn for body, turn in zip(self.again, self.looks, strict=True)])
        self.cycle = ((10 * (project(back) - self.flat)) ** 2).mean(-1)  # (V, 17)
        self.lengths = np.array([[np.linalg.norm(body[c] - body[p]) for p, c in BONES] for body in self.pose])

    def turned(self) -> float:
        bodies = np.array([body @ turn.T for body, turn in zip(self.pose, self.turns, strict=True)])
        return float(((depths_of(project(bodies), self.factor) - bodies[..., 2]) ** 2).mean())

    def rigidity(self, bones: list[int]) -> float:
        lengths = self.lengths[:, bones]
        ratios = lengths / lengths.mean(1, keepdims=True)
        found, counts = [], []
        for person in (7, 9):  # the third has one pose
            own = ratios[person == SUBJECTS]
            found.append(own.std(0, ddof=1) / own.mean(0))
            counts.append(len(own))
        return float(np.average(found, axis=0, weights=counts).mean())

    def spread(self, first: int, last: int) -> float:
        own = self.pose[:, first : last + 1]
        return float(own[..., 2].std(ddof=1) / own[..., 0].std(ddof=1))

    def symmetry(self) -> float:
        pairs = [(self.lengths[:, one], self.lengths[:, other]) for one, other in SYMMETRIC_BONES]
        return float(np.mean([np.abs(left - right) / (left + right) for left, right in pairs]))

    def values(self) -> dict[str, float]:
        flat = torch.from_numpy(self.flat)
        offsets = torch.from_numpy(depths_of(self.flat, self.factor))
        signs, confidence = geometry.resolve_signs(flat, offsets[None], PARTS)
        own = np.array([float(signs[0, 0] if joint in TORSO else signs[0, 1]) for joint in range(17)])
        right = self.pose.copy()
        right[..., 2] *= own
        bends = bends_of(torch.from_numpy(right))
        share = bends.sum(0) / np.abs(bends).sum(0)
        real, fake = score_of(OTHERS.double().numpy()), score_of(self.view)
        assert 0 < (real > REAL / 2).sum() < len(real)
        assert 0 < (fake > REAL / 2).sum() < len(fake)
        torso, legs = ([k for k, (_, child) in enumerate(BONES) if child in part] for part in (TORSO, LEGS))
        return {
            "consistency/cycle_2d": self.cycle.mean(),
            "consistency/cycle_2d_torso": self.cycle[:, list(TORSO)].mean(),
            "consistency/cycle_2d_legs": self.cycle[:, list(LEGS)].mean(),
            "consistency/cycle_3d": ((self.again - self.seen) ** 2).mean(),
            "consistency/turn_90": self.turned(),
            "discriminator/real": real.mean(),
            "discriminator/fake": fake.mean(),
            "discriminator/accuracy": ((real > REAL / 2).mean() + (fake <= REAL / 2).mean()) / 2,
            "rigidity/bone_ratio_variance": self.rigidity(list(range(16))),
            "rigidity/bone_ratio_variance_torso": self.rigidity(torso),
            "rigidity/bone_ratio_variance_legs": self.rigidity(legs),
            "rigidity/symmetry": self.symmetry(),
            "depth/spread_ratio": self.spread(1, 16),
            "depth/spread_ratio_torso": self.spread(7, 16),
            "depth/spread_ratio_legs": self.spread(0, 6),
            "depth/sign": float(signs.mean()),
            "depth/sign_confidence": float(confidence.min()),
            "depth/knees": share[:2].mean(),
            "depth/elbows": share[2:].mean(),
        }


@pytest.mark.parametrize("seed", [0, 1])
def test_every_signal_by_its_definition(measured: signals.Measured, seed: int) -> None:
    expected = ByHand(FACTORS[seed]).values()
    for name, value in expected.items():
        assert measured.signals[name][seed].item() == pytest.approx(value, rel=2e-4, abs=1e-5), name
    others = {name for name in measured.signals if name not in expected}
    assert {name.split("/")[0] for name in others} == {"mirror", "distance"}


def test_views_and_turns_are_fixed_within_their_angles() -> None:
    many = signals.ValidationSet.build(np.tile(VIEWS, (40, 1, 1)), np.tile(OTHERS, (40, 1, 1)), np.zeros(480), 120, 8)
    angles = Rotation.from_matrix(many.views.double().numpy()).as_euler("yxz", degrees=True)
    assert np.abs(angles[:, 2]).max() < 1e-3  # no roll
    for values, limit in ((angles[:, 0], 120), (angles[:, 1], 8)):
        assert 0.95 * limit < values.max() <= limit
        assert -limit <= values.min() < -0.95 * limit
    quarters = np.round(Rotation.from_matrix(many.turns.double().numpy()).as_rotvec(degrees=True), 3)
    assert {tuple(np.abs(turn)) for turn in quarters} == {(0, 90, 0), (0, 180, 0)}
    assert {turn[1] for turn in quarters} >= {90.0, -90.0}
    np.testing.assert_allclose(many.directions.norm(dim=0), 1, rtol=1e-6)
    assert many.directions.shape == (34, signals.DIRECTIONS)
    again = signals.ValidationSet.build(np.tile(OTHERS, (40, 1, 1)), np.tile(VIEWS, (40, 1, 1)), np.ones(480), 120, 8)
    assert torch.equal(many.views, again.views)
    assert torch.equal(many.turns, again.turns)
    assert torch.equal(many.directions, again.directions)
    assert VALIDATION.subjects.tolist() == [0] * 5 + [1] * 6 + [2]
    assert VALIDATION.people == 3


# --- signs told pose by pose -------------------------------------------------------------------------------------


def bodies(seeds: int = 2, count: int = 6) -> torch.Tensor:
    """Lifts (S, V, 17, 3) that are no bodies any more, so that nothing cancels."""
    noise = torch.randn((seeds, count, 17, 3), generator=torch.Generator().manual_seed(4))
    made = PROCEDURAL[:count] + 0.2 * noise
    return made - made[..., :1, :]


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_bends_speak_for_the_part_that_predicts_them(name: str) -> None:
    representation, lifted = REPRESENTATIONS[name], bodies()
    found = pose_signs.bend_odds(lifted, representation)
    bends = np.clip([bends_of(seed.double()) for seed in lifted], -0.1, 0.1)
    assert 0 < (np.abs(bends) < 0.1).sum() < bends.size
    expected = np.zeros(found.shape)
    for place, (joint, odds) in enumerate(
        (("left_knee", 20), ("right_knee", 20), ("left_elbow", 10), ("right_elbow", 10))
    ):
        expected[..., representation.lifter_of[J[joint]]] += odds * bends[..., place]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_parts_of_a_body_have_one_sign_where_girdles_recede_together(name: str) -> None:
    representation, lifted = REPRESENTATIONS[name], bodies()
    found = pose_signs.part_couplings(lifted, representation)
    owner, depth = representation.lifter_of, lifted[..., 2].double().numpy()
    girdle = [J[f"{side}_{joint}"] for joint in ("hip", "shoulder") for side in ("left", "right")]
    size = (depth[..., girdle] ** 2).mean((1, 2))[:, None]
    expected = np.zeros((*depth.shape[:2], len(representation.lifters), len(representation.lifters)))
    for (a, b), (c, d) in (
        (("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")),
        (("left_hip", "hip"), ("hip", "right_hip")),
        (("left_shoulder", "thorax"), ("thorax", "right_shoulder")),
    ):  # depths (a - b) (c - d) should be positive
        for one, other, sign in ((a, c, 1), (a, d, -1), (b, c, -1), (b, d, 1)):
            first, second = owner[J[one]], owner[J[other]]
            if first != second:
                value = 3 / 2 * sign * depth[..., J[one]] * depth[..., J[other]] / size
                expected[..., first, second] += value
                expected[..., second, first] += value
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert pose_signs.part_couplings(lifted, REPRESENTATIONS["solo"]) is None


def fit(first: Array, second: Array) -> float:
    """The largest inner product of two poses over all rotations of the second, as a share of their norms."""
    turn, _ = Rotation.align_vectors(first, second)
    return float((first * turn.apply(second)).sum() / np.linalg.norm(first) / np.linalg.norm(second))


def test_pairs_of_views_vote_by_how_much_better_they_fit_with_equal_signs() -> None:
    lifted, instants = bodies(1, 6), torch.tensor([[0, 1, 2], [3, 4, 6]])  # the last view of the second is missing
    found = pose_signs.view_votes(lifted, instants, PARTS)
    assert found.shape == (1, 2, 3, 2)
    mirror = np.array([1, 1, -1])
    for instant, (pair, (one, other)) in itertools.product((0, 1), enumerate(itertools.combinations(range(3), 2))):
        for place, part in enumerate(PARTS.lifters):
            ends = instants[instant, [one, other]].tolist()
            if 6 in ends:
                assert found[0, instant, pair, place].item() == pytest.approx(0, abs=1e-6)
                continue
            first, second = (lifted[0, end, list(part.joints)].double().numpy() for end in ends)
            expected = 40 * (fit(first, second) - fit(first, second * mirror))
            assert found[0, instant, pair, place].item() == pytest.approx(expected, abs=0.02)


def test_views_are_compared_over_the_joints_that_both_have() -> None:
    lifted, present = bodies(1, 2), torch.ones(2, 17, dtype=torch.bool)
    present[0, 12], present[1, [9, 15]] = False, False
    found = pose_signs.view_votes(lifted, torch.tensor([[0, 1]]), PARTS, present)
    common = [joint for joint in PARTS.lifters[0].joints if joint not in (9, 12, 15)]
    first, second = (lifted[0, row, common].double().numpy() for row in (0, 1))
    expected = 40 * (fit(first, second) - fit(first, second * np.array([1, 1, -1])))
    assert found[0, 0, 0, 0].item() == pytest.approx(expected, abs=0.02)


def test_a_pair_of_views_must_share_half_of_the_joints() -> None:
    instants, present = torch.tensor([[0, 1, 2], [0, 3, 3]]), torch.ones(3, 17, dtype=torch.bool)
    present[1, 7:12] = False  # five of the ten joints of the torso are left
    present[2, 7:13] = False
    found = pose_signs.pairs_present(instants, 3, TORSO, present)
    assert found.tolist() == [[True, False, False], [False, False, False]]
    assert pose_signs.pairs_present(instants, 3, TORSO).tolist() == [[True, True, True], [False, False, False]]


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("name", ["solo", "torso_legs"])
def test_signs_are_the_mean_field_of_bends_parts_views_and_their_own_share(name: str, views: bool) -> None:
    representation, lifted = REPRESENTATIONS[name], bodies(1, 7)
    instants = torch.tensor([[0, 1, 2], [3, 4, 7], [5, 6, 7]]) if views else None
    votes = pose_signs.view_votes(lifted, instants, representation) / 20 if instants is not None else None
    found, share = pose_signs.tell_mirrored(lifted, representation, instants, votes)
    field = pose_signs.bend_odds(lifted, representation)[0].double().numpy()
    parts = pose_signs.part_couplings(lifted, representation)
    mean, expected = np.tanh(field / 2), np.full(field.shape[1], 0.25)
    for _ in range(12):
        odds = field + np.log((1 - expected) / expected)
        if parts is not None:
            odds = odds + np.einsum("vpq,vq->vp", parts[0].double().numpy(), mean)
        if instants is not None and votes is not None:
            for row, members in enumerate(instants.tolist()):
                for pair, (one, other) in enumerate(itertools.combinations(members, 2)):
                    if 7 not in (one, other):
                        odds[one] += votes[0, row, pair].numpy() * mean[other]
                        odds[other] += votes[0, row, pair].numpy() * mean[one]
        mean = 0.5 * mean + 0.5 * np.tanh(odds / 2)
        expected = np.clip(((1 - mean) / 2).sum(0) / (7 + 10), 0.005, 0.995)
    np.testing.assert_allclose(found[0], mean, atol=2e-3)
    np.testing.assert_allclose(share[0].clamp(0.005, 0.995), expected, atol=2e-3)
