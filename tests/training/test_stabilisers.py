"""What keeps the adversarial game stable: each knob against its formula. Golden runs cover them packed and resumed."""

from typing import Any

import pytest
import torch

from tests.training.worlds import tiny
from tips_dist import geometry, losses
from tips_dist.models.blocks import PackedLinear
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training.adam import PackedAdam
from tips_dist.training.sampling import Batch, Sampler, stream
from tips_dist.training.state import State
from tips_dist.training.step import adversarial_step, gradient_penalty

CPU = torch.device("cpu")
SOLO = REPRESENTATIONS["solo"]


def game(*overrides: str, seeds: tuple[int, ...] = (0, 1)) -> tuple[Any, Batch]:
    configuration = tiny("solo", *overrides)
    poses = 0.1 * torch.randn(100, 17, 2, generator=stream(0, "test")) * torch.tensor([0.0] + [1.0] * 16)[:, None]
    return State(configuration, seeds, CPU), next(Sampler(poses, configuration, CPU).batches(seeds, 0))


def play(state: State, batch: Batch) -> dict[str, torch.Tensor]:
    weights = (losses.joint_weights(SOLO), losses.adversarial_shares(SOLO))
    return adversarial_step(state.lifter, state.discriminator, batch, state.weights, *weights)


def gradients(state: State, player: str) -> list[torch.Tensor]:
    return [gradient.clone() for gradient in state.optimisers[player].gradients]


def test_spectral_norm_makes_every_singular_value_at_most_one() -> None:
    layer = PackedLinear(3, 12, 7, spectral=True)
    torch.nn.init.normal_(layer.weight, generator=stream(0, "weight"))
    for _ in range(100):
        layer.iterate()
    for row in range(3):
        plain = layer.weight[row] / torch.linalg.matrix_norm(layer.weight[row], 2)
        torch.testing.assert_close(layer.matrix()[row], plain, rtol=1e-4, atol=1e-5)


def test_spectral_norm_has_the_papers_gradient() -> None:
    """Miyato et al., eq. 12: the gradient less its share along the first singular pair, over the norm."""
    layer = PackedLinear(1, 6, 5, spectral=True)
    torch.nn.init.normal_(layer.weight, generator=stream(0, "weight"))
    layer.iterate()
    outer = torch.randn(1, 6, 5, generator=stream(0, "outer"))
    (layer.matrix() * outer).sum().backward()  # type: ignore[no-untyped-call]
    weight, pair = layer.weight.detach(), layer.left * layer.right
    norm = (pair * weight).sum()
    expected = (outer - (outer * weight / norm).sum() * pair) / norm
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_a_spectral_discriminator_is_no_steeper_than_its_layers_allow() -> None:
    """Each of the residual block's two paths has slope at most 1, so the score's slope is at most 2."""
    state, batch = game("model.spectral_norm=true")
    state.discriminator.iterate(100)
    half_square = gradient_penalty(state.discriminator, batch.real)
    assert (half_square <= 2.0).all()
    with torch.no_grad():
        for parameter in state.discriminator.parameters():
            parameter *= 100
    state.discriminator.iterate(100)
    assert (gradient_penalty(state.discriminator, batch.real) <= 2.0).all()


def test_spectral_vectors_go_on_in_a_checkpoint_and_evaluation_leaves_them() -> None:
    state, _ = game("model.spectral_norm=true")
    other = State(state.configuration, (0, 1), CPU)
    state.discriminator.iterate(3)
    other.restore(*state.dump())
    assert torch.equal(state.discriminator.head.left, other.discriminator.head.left)
    before = state.discriminator.head.left.clone()
    state.discriminator(torch.zeros(2, 3, 17, 2))
    assert torch.equal(before, state.discriminator.head.left)


def test_r1_is_half_the_squared_slope_at_real_poses() -> None:
    """Against finite differences along each pose's own gradient."""
    state, batch = game()
    discriminator = state.discriminator.double()
    real = batch.real.double().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(real).sum(), real)
    length = slope.flatten(2).norm(dim=-1)[..., None, None]
    step = 1e-6 * slope / length
    with torch.no_grad():
        steepness = (discriminator(real + step) - discriminator(real - step)) / 2e-6
    expected = (steepness / 10).square().mean(-1) / 2
    torch.testing.assert_close(gradient_penalty(discriminator, real), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("overrides", [(), ("model.spectral_norm=true", "training.instance_noise=0.3")])
def test_r1_adds_its_gradient_to_the_discriminator_alone(overrides: tuple[str, ...]) -> None:
    (without, batch), (penalised, same) = game(*overrides), game(*overrides, "losses.r1=3")
    play(without, batch)
    terms = play(penalised, same)
    real = same.real if same.noise is None else same.real + same.noise[:, : same.real.shape[1]]
    discriminator = without.discriminator
    penalty = 3 * gradient_penalty(discriminator, real)
    torch.testing.assert_close(3 * terms["discriminator/r1"], penalty.detach())
    expected = torch.autograd.grad(penalty.sum(), list(discriminator.parameters()), allow_unused=True)
    pairs = zip(gradients(penalised, "discriminator"), gradients(without, "discriminator"), expected, strict=True)
    moved = 0.0
    for found, before, added in pairs:
        extra = torch.zeros_like(before) if added is None else added
        torch.testing.assert_close(found, before + extra, rtol=1e-4, atol=1e-6)
        moved += float(extra.abs().sum())
    assert moved > 1e-3
    for found, before in zip(gradients(penalised, "lifter"), gradients(without, "lifter"), strict=True):
        assert torch.equal(found, before)


def test_instance_noise_is_what_the_discriminator_sees_and_what_pulls_the_lifter() -> None:
    """Against each player's loss differentiated on its own."""
    state, batch = game("training.instance_noise=0.5", "losses.cycle_2d=0", "losses.consistency_90=0")
    terms = play(state, batch)
    assert batch.noise is not None
    real, fake = batch.noise.chunk(2, dim=1)
    pose = geometry.lift(batch.poses, state.lifter(batch.poses))
    view = geometry.project(geometry.rotate(pose, batch.views))
    adversarial = (state.discriminator(view + fake) - 1).square().mean(-1)
    torch.testing.assert_close(terms["generator/adversarial"], adversarial.detach())
    expected = torch.autograd.grad(adversarial.sum(), list(state.lifter.parameters()), retain_graph=True)
    for one, other in zip(gradients(state, "lifter"), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    scores = torch.cat((state.discriminator(batch.real + real), state.discriminator(view.detach() + fake)), dim=1)
    loss = (scores - batch.labels).square().mean(-1)
    torch.testing.assert_close(terms["discriminator/loss"], loss.detach())


def test_clipping_scales_each_seeds_gradient_to_the_longest_and_leaves_shorter_ones() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(4, 3)), torch.nn.Parameter(torch.zeros(2, 5, 2))]  # two seeds
    optimiser = PackedAdam(parameters, 2)
    for parameter, scale in zip(parameters, (1.0, 2.0), strict=True):
        parameter.grad = torch.full_like(parameter, scale)
        parameter.grad[: len(parameter) // 2] *= 0.01  # the first seed is far below
    before = [gradient.clone() for gradient in optimiser.gradients]
    norm = float(torch.cat([one[len(one) // 2 :].flatten() for one in before]).norm())
    optimiser.clip(1.5)
    for found, old in zip(optimiser.gradients, before, strict=True):
        half = len(old) // 2
        assert torch.equal(found[:half], old[:half])
        torch.testing.assert_close(found[half:], old[half:] * 1.5 / norm)


def test_clipping_keeps_a_non_finite_seed_to_itself() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    optimiser = PackedAdam([parameter], 2)
    parameter.grad = torch.tensor([[float("nan"), 1.0, 1.0], [1.0, 1.0, 1.0]])
    optimiser.clip(10.0)
    assert torch.equal(parameter.grad[1], torch.ones(3))
