"""Training on a card that is not there (``tests/card.py``): one device throughout, and a host that never waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from tests.card import Seen, card, outside
from tests.training.worlds import of_their_own, tiny, world
from tips_dist import distillation
from tips_dist.config import Configuration
from tips_dist.data.store import normalisation_scale, normalised
from tips_dist.evaluation.measuring import predict
from tips_dist.models import Lifter
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.stability.signals import readings
from tips_dist.training import checkpoint, loop
from tips_dist.training.checkpoint import CheckpointWriter
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.state import State
from tips_dist.training.validation import validation_set

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real card is here: make gpu")
CUDA = torch.device("cuda")
# Every option that changes what a step does, in few programs.
PROGRAMS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in REPRESENTATIONS},
    "losses": (
        "solo", "losses.bone_prior=1", "losses.bend=1", "losses.bend_margin=0.1", "losses.cycle_3d=1", "losses.r1=1",
        "losses.label_swap=0.1", "losses.adversarial_kind=cross_entropy", "model.spectral_norm=true",
        "training.gradient_clip=1", "training.turns=all", "training.rotation=batch", "training.average=0",
        "training.precision=tf32", "training.final_lr_factor=0.1",
    ),
    "layers": (
        "five_parts_shared", "model.batch_norm=true", "model.dropout=0.5", "training.instance_noise=0.2",
        "training.judge=both", "training.precision=bf16",
    ),
}  # fmt: skip
OWN = ("training.generator_lr=1e-3", "losses.cycle_2d=1", "training.average=0.9")


def engine(configuration: Configuration, *, missing: bool = False, own: Any = None) -> Engine:
    poses = world()
    rows = poses.rows("train")
    present = None
    if missing:
        present = np.ones((len(rows), 17), np.bool_)
        present[::3, 16] = False
    state = State(configuration, (0, 1), CUDA)
    if own:
        of_their_own(state, [configuration, tiny(*own)])
    return Engine(state, sampler_for(state, normalised(poses, rows, normalisation_scale(poses)), present))


def steps(running: Engine, seen: Seen, count: int = 2) -> None:
    """Take steps; what they waited for is in ``seen``, drawing of batches aside, which is for a stretch of steps."""
    batches = running.batches()
    waits = []
    for number, batch in zip(range(count + 1), batches, strict=False):
        seen.take()
        running.step(batch)
        if number:  # the first step takes constants to the card
            waits += seen.take()
    seen.waits = waits


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_host_waits_for_no_step_and_once_for_an_evaluation(name: str) -> None:
    configuration = tiny(*PROGRAMS[name])
    validation = validation_set(world(), configuration, normalisation_scale(world()))
    with card() as seen:
        running = engine(configuration)
        steps(running, seen)
        assert not seen.lines()
        there = validation.to(CUDA)
        running.measure(there)
        seen.take()
        rows = readings(running.measure(there).signals)
        assert sum(seen.lines().values()) == 1, seen.lines()
        assert all(rows)


@pytest.mark.parametrize(
    "prepared", [{"missing": True}, {"own": ("solo", *OWN)}], ids=["joints that are not there", "values of single rows"]
)
def test_the_host_waits_for_no_step_of_other_data(prepared: dict[str, Any]) -> None:
    with card() as seen:
        steps(engine(tiny("torso_legs"), **prepared), seen)
        assert not seen.lines()


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda there: there.sum().item(), "value asked for"),
        (lambda there: bool((there > 0).all()), "value asked for"),
        (lambda there: there.cpu(), "copy to the host"),
        (lambda there: there.tolist(), "copy to the host"),
        (lambda there: there[[0, 1]], "copy to the card"),
        (lambda there: there[torch.tensor([0, 1])], "index on the host"),
        (lambda there: there.new_tensor([1.0]), "copy to the card"),
        (lambda there: there.copy_(torch.zeros(4, 5)), "copy to the card"),
    ],
)
def test_what_makes_the_host_wait_is_seen(plant: Callable[[torch.Tensor], object], kind: str) -> None:
    with card() as seen:
        there = torch.zeros(4, 5, device="cuda")
        assert not seen.take()
        plant(there)
        ((found, _, where),) = seen.take()
        assert found == kind
        assert where.startswith("test_card.py")


def test_a_wait_in_a_step_is_seen_forwards_and_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nosy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            gradient.max().item()
            return gradient

    plain = Lifter.forward
    monkeypatch.setattr(Lifter, "forward", lambda self, poses: Nosy.apply(plain(self, poses)))  # type: ignore[no-untyped-call]
    with card() as seen:
        steps(engine(tiny("solo")), seen, count=1)
        assert [kind for kind, _, _ in seen.take()] == ["value asked for"] * 2


def test_tensors_of_two_devices_are_refused() -> None:
    with card(), pytest.raises(FakeTensorDeviceMismatchError):
        torch.zeros(3, device="cuda") + torch.zeros(3)


def test_torch_is_as_before_afterwards() -> None:
    value = torch.ones(2, requires_grad=True)
    with card():
        pass
    (value * 2).sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    assert value.grad.tolist() == [2, 2]
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda")


def test_a_whole_run_is_interrupted_resumed_and_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "validation_set", outside(validation_set))
    monkeypatch.setattr(checkpoint, "load", outside(checkpoint.load))
    monkeypatch.setattr(CheckpointWriter, "submit", lambda self, job: job())  # fake tensors bear one thread
    configuration = tiny(
        "left_right", "training.judge=both", "training.steps=4", "training.evaluate_every=2",
        "training.checkpoint_every=1",
    )  # fmt: skip
    told: list[int] = []
    with card():

        def run(stop: bool) -> Any:
            return loop.train(
                configuration, [0, 1], world(), tmp_path, device="cuda", report=lambda now: told.append(now.step),
                should_stop=lambda: stop and bool(told),
            )  # fmt: skip

        with pytest.raises(loop.Interrupted):
            run(True)
        outcome = run(False)
    assert told == [2, 4]
    assert [seed.stopped_step for seed in outcome.seeds] == [4, 4]
    assert list((tmp_path / "candidates").iterdir())


def test_a_compacted_state_steps_and_restores_on_the_card() -> None:
    with card() as seen:
        running = engine(tiny("solo", "model.dropout=0.1"))
        steps(running, seen)
        running.state.compact([0])
        steps(running, seen)
        assert not seen.take()
        tensors, record = running.state.dump()
        assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
        again = State(running.state.configuration, (0, 1), CUDA)
        again.restore(tensors, record)
        assert {parameter.device.type for parameter in again.lifter.parameters()} == {"cuda"}


@pytest.mark.parametrize("name", ["solo", "five_parts"])
def test_teachers_lift_and_truth_is_measured_on_the_card(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = REPRESENTATIONS[name]
    signs = [1.0] * len(kind.lifters)
    made = outside(lambda: Lifter(kind, 16).eval())
    monkeypatch.setattr(distillation.LoadedTeacher, "lifter", property(lambda self: made()))
    entry: Any = SimpleNamespace(file="x", risk=1.0, second_risk=None)
    teacher = distillation.LoadedTeacher(Path("x"), kind, torch.tensor(signs), torch.ones(17), entry)
    inputs = torch.from_numpy(normalised(world(), np.arange(40), 100.0))
    with card():
        mean, spread, _ = distillation.teach([teacher, teacher], inputs, device=CUDA)
        assert mean.device.type == spread.device.type == "cpu"
        assert predict(made(), inputs, CUDA).shape == (40, 17)
