"""The step against the authors' formulation written plainly, and the pieces it is made of."""

from typing import Any

import pytest
import torch

from benchmarks.plain import Plain
from tests.training.worlds import tiny, world
from tips_dist import geometry, losses
from tips_dist.data.store import normalisation_scale, normalised
from tips_dist.models import matched_width
from tips_dist.models.blocks import PackedBatchNorm, Trunk, initialise
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.sampling import Sampler, stream
from tips_dist.training.state import State
from tips_dist.training.step import adversarial_step

CPU = torch.device("cpu")


@pytest.mark.parametrize(("turns", "every"), [("sampled", 1), ("all", 1), ("all", 2)])
@pytest.mark.parametrize("name", ["solo", "torso_legs"])
def test_losses_and_gradients_are_those_of_the_plain_program(name: str, turns: str, every: int) -> None:
    more = ("losses.label_swap=0.2", "losses.adversarial=0.7", "losses.bend=2", "losses.bend_margin=0.1")
    configuration = tiny(name, f"training.turns={turns}", f"training.turned_every={every}", *more)
    representation = REPRESENTATIONS[name]
    state: Any = State(configuration, (0, 1), CPU)
    poses = torch.randn(100, 17, 2, generator=stream(0, "test")) * 0.1 * torch.tensor([0.0] + [1.0] * 16)[:, None]
    batch = next(Sampler(poses, configuration, CPU).batches([0, 1], 0))
    shares, joints = losses.adversarial_shares(representation), losses.joint_weights(representation)
    terms = adversarial_step(state.lifter, state.discriminator, batch, state.weights, joints, shares)
    for row in (0, 1):
        plain: Any = Plain(name, matched_width(name, 16), 16, 1, (1e-3, 1e-3))
        plain.copy_weights(state.lifter, state.discriminator, row)
        renamed = {"consistency/cycle_2d": "generator/cycle_2d", "consistency/turn_90": "generator/consistency_90"}
        for key, value in plain.losses(batch, row, configuration.losses.model_dump()).items():
            torch.testing.assert_close(terms[renamed.get(key, key)][row], value, rtol=1e-5, atol=1e-7)
        for index, lifter in enumerate(plain.lifters):
            theirs = state.lifter.inputs[index].weight.grad
            torch.testing.assert_close(theirs[row], lifter.input.weight.grad.T, rtol=1e-4, atol=1e-6)
            theirs = state.lifter.blocks[-1].layers[2].weight.grad[row * len(plain.lifters) + index]
            torch.testing.assert_close(theirs, lifter.blocks[-1].second.weight.grad.T, rtol=1e-4, atol=1e-6)
        for mine, theirs in (("input", state.discriminator.input), ("head", state.discriminator.head)):
            expected = getattr(plain.discriminator, mine).weight.grad.T
            torch.testing.assert_close(theirs.weight.grad[row], expected, rtol=1e-4, atol=1e-7)


def test_steps_and_averages_are_those_of_the_plain_program() -> None:
    """Ten steps of both with Adam, the anatomical prior and averaged weights."""
    configuration = tiny("torso_legs", "losses.bend=1", "training.average=0.8", "training.generator_lr=1e-3")
    state: Any = State(configuration, (0, 1), CPU)
    rates = (configuration.training.generator_lr, configuration.training.discriminator_lr)
    programs = [Plain("torso_legs", matched_width("torso_legs", 16), 16, 1, rates) for _ in range(2)]
    for row, plain in enumerate(programs):
        plain.copy_weights(state.lifter, state.discriminator, row)
    engine = Engine(state, sampler_for(state, normalised(world(), world().rows("train"), normalisation_scale(world()))))
    for batch in engine.batches():
        engine.step(batch)
        for row, plain in enumerate(programs):
            plain.step(batch, row, configuration.losses.model_dump())
            plain.average(configuration.training.average)
    poses = 0.05 * torch.randn(2, 8, 17, 2, generator=stream(0, "test"))
    raw, averaged = state.lifter(poses), state.averaged(poses)
    for row, plain in enumerate(programs):
        torch.testing.assert_close(raw[row], plain.offsets(poses[row]), rtol=1e-3, atol=1e-5)
        weights = [parameter for lifter in plain.lifters for parameter in lifter.parameters()]
        for weight, average in zip(weights, plain.averages, strict=True):
            weight.data = average
        torch.testing.assert_close(averaged[row], plain.offsets(poses[row]), rtol=1e-3, atol=1e-5)
    assert (raw - averaged).abs().max() > 1e-2


class Certain(torch.nn.Module):
    """A discriminator whose scores are a constant, with a slope all the same."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.weight, self.score = torch.nn.Parameter(torch.ones(17, 2)), score

    def forward(self, poses: torch.Tensor) -> torch.Tensor:
        scores = (poses * self.weight).sum((-1, -2))
        return scores - scores.detach() + self.score


@pytest.mark.parametrize(("kind", "score", "slope"), [("least_squares", 0.0, -2.0), ("cross_entropy", -120.0, -1.0)])
def test_a_score_exactly_at_its_label_still_pulls_the_generator(kind: str, score: float, slope: float) -> None:
    """The shared backward pass divides by the discriminator's slope, which is 0 there."""
    configuration = tiny("solo", f"losses.adversarial_kind={kind}", "losses.cycle_2d=0", "losses.consistency_90=0")
    solo = REPRESENTATIONS["solo"]
    weights = (losses.joint_weights(solo), losses.adversarial_shares(solo))
    state: Any = State(configuration, (0,), CPU)
    batch = next(Sampler(torch.randn(50, 17, 2) * 0.1, configuration, CPU).batches([0], 0))
    adversarial_step(state.lifter, Certain(score), batch, state.weights, *weights)  # type: ignore[arg-type]
    found = state.lifter.heads[0].bias.grad.clone()
    state.lifter.zero_grad()
    pose = geometry.rotate(geometry.lift(batch.poses, state.lifter(batch.poses)), batch.views)
    (slope * geometry.project(pose).sum((-1, -2)).mean()).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, state.lifter.heads[0].bias.grad)
    assert found.abs().max() > 0


def test_a_trunk_has_the_gradients_of_its_layers() -> None:
    trunk = Trunk(2, 3, 8)
    initialise(trunk, [stream(seed, "block") for seed in range(3)])
    features = torch.randn(3, 5, 8, generator=stream(0, "features"))

    def gradients(plain: bool) -> list[torch.Tensor]:
        trunk.plain = plain
        leaf = features.clone().requires_grad_()
        out = trunk(leaf)
        found = torch.autograd.grad(out.sin().sum(), [leaf, *trunk.parameters()])
        return [out, *found]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_products_are_near_float32_and_leave_the_parameters_alone() -> None:
    """bfloat16 keeps 8 bits: 1 % of a block's output; gradients 10 % in norm, as some ReLUs near 0 switch."""
    trunk = Trunk(1, 2, 64)
    initialise(trunk, [stream(seed, "block") for seed in range(2)])
    features = torch.randn(2, 32, 64, generator=stream(0, "features"))

    def gradients(dtype: torch.dtype) -> list[torch.Tensor]:
        trunk[0].dtype = dtype  # type: ignore[assignment]
        leaf = features.clone().requires_grad_()
        out = trunk(leaf)
        assert out.dtype == torch.float32
        return [out, *torch.autograd.grad(out.sin().sum(), [leaf, *trunk.parameters()])]

    exact, rounded = gradients(torch.float32), gradients(torch.bfloat16)
    for index, (one, other) in enumerate(zip(exact, rounded, strict=True)):
        assert other.dtype == torch.float32
        error = float(((one - other).norm() / one.norm()).detach())
        assert 0 < error < (0.1 if index else 0.01)


def test_batch_norm_takes_its_statistics_in_float32_whatever_the_products() -> None:
    """A bfloat16 mean of features with mean 8 and deviation 1/20 would be off by up to 1/32."""
    norm = PackedBatchNorm(2, 4, momentum=1.0)
    features = (8 + 0.05 * torch.randn(2, 64, 4, generator=stream(0, "features"))).bfloat16()
    assert norm(features).dtype == norm.mean.dtype == torch.float32
    torch.testing.assert_close(norm.mean, features.float().mean(1, keepdim=True))
