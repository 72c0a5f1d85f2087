"""One golden list of losses for a trial alone, packed, on two workers, and resumed on another number of workers."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_loop import StopAfter, history
from tests.training.worlds import GOLDEN, golden, tiny, world
from tips_dist.data.store import normalisation_scale
from tips_dist.data.store import normalised as normalised_poses
from tips_dist.files import StorageError, UserError
from tips_dist.models import write_tensors
from tips_dist.runfolder.record import Record
from tips_dist.runfolder.records import Execution
from tips_dist.training import checkpoint, execution, precision
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.loop import Interrupted, train
from tips_dist.training.state import State

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def equal(folder: Path, expected_rows: list[dict[str, Any]], rel: float = 2e-3) -> None:
    """Losses, signals and the risk agree."""
    for row, expected in zip(history(folder), expected_rows, strict=True):
        for key, value in expected.items():
            near = 2e-4 if key == "depth/sign_confidence" else 1e-5  # a small difference of two numbers of about 1
            assert row[key] == (pytest.approx(value, rel=rel, abs=near) if isinstance(value, float) else value), key


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("way", ["alone", "packed", "two_workers", "resumed_on_two_workers"])
@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "solo"])
def test_golden_losses(tmp_path: Path, name: str, way: str) -> None:
    configuration, rows = golden(name)
    if way == "alone":
        train(configuration, [1], world(), tmp_path)
        rows = [row for row in rows if row["seed"] == 1]
    elif way == "packed":
        train(configuration, [0, 1], world(), tmp_path)
    elif way == "two_workers":
        outcome = train(configuration, [0, 1], world(), tmp_path, workers=2)
        assert outcome.execution.workers == 2
    else:
        with pytest.raises(Interrupted):
            train(configuration, [0, 1], world(), tmp_path, should_stop=StopAfter(25))
        train(configuration, [0, 1], world(), tmp_path, workers=2)
    equal(tmp_path, rows)


NORMALISED = ("torso_legs", "model.batch_norm=true", "model.dropout=0.1")


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of two packed seeds with batch norm, on one worker."""
    folder = tmp_path_factory.mktemp("normalised")
    train(tiny(*NORMALISED), [0, 1], world(), folder)
    return history(folder)


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("way", ["alone", "two_workers", "resumed_on_two_workers"])
def test_losses_and_signals_with_batch_norm(tmp_path: Path, way: str, normalised: list[dict[str, Any]]) -> None:
    """All losses and signals of 40 steps, within 0.2 % (measured: 0.01 %)."""
    configuration = tiny(*NORMALISED)
    if way == "alone":
        train(configuration, [1], world(), tmp_path)
        normalised = [row for row in normalised if row["seed"] == 1]
    elif way == "two_workers":
        train(configuration, [0, 1], world(), tmp_path, workers=2)
    else:
        with pytest.raises(Interrupted):
            train(configuration, [0, 1], world(), tmp_path, should_stop=StopAfter(25))
        train(configuration, [0, 1], world(), tmp_path, workers=2)
    equal(tmp_path, normalised)


def test_a_step_with_batch_norm_does_not_depend_on_the_number_of_workers() -> None:
    """Gradients and running statistics of one step, tensor by tensor, within float32's rounding."""
    configuration = tiny(*NORMALISED, "training.steps=1", "training.evaluate_every=1")
    poses = normalised_poses(world(), world().rows("train"), normalisation_scale(world()))

    def step(workers: int) -> dict[str, torch.Tensor]:
        plan = execution.Plan(workers)
        with execution.workers(plan, configuration) as group:
            state = State(configuration, (0, 1), torch.device("cpu"), group=group)
            execution.lead(state, poses, plan)
            engine = Engine(state, sampler_for(state, poses))
            engine.step(next(engine.batches()))
            group.tell({"ended": []})  # lets the other worker end
        players = state.networks.items()
        found = {f"{player}/{name}": p.grad for player, network in players for name, p in network.named_parameters()}
        return {**dict(state.lifter.named_buffers()), **{name: g for name, g in found.items() if g is not None}}

    alone, together = step(1), step(2)
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        assert tensor.norm() > 1e-3, f"{name} holds nothing but rounding"
        assert (together[name] - tensor).norm() < 1e-5 * tensor.norm(), name


def test_a_batch_that_does_not_divide_among_the_workers_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="16 poses do not divide among resources"):
        train(tiny(), [0], world(), tmp_path, workers=3)
    with pytest.raises(UserError, match=r"resources\.workers = 2, in groups of training\.turned_every = 16"):
        train(tiny("solo", "training.turned_every=16"), [0], world(), tmp_path, workers=2)


def test_a_dead_worker_ends_the_trial_with_its_name_and_the_checkpoint_is_good(tmp_path: Path) -> None:
    started: list[Any] = []

    def launch(host: str, port: int, rank: int, size: int) -> execution.Helper:
        started.append(execution.Local(execution.Plan(2)).launch(host, port, rank, size))
        helper: execution.Helper = started[-1]
        return helper

    def kill(progress: Any) -> None:
        if progress.step == 20:
            started[0].process.kill()

    plan = execution.Plan(2, launch=launch)
    configuration, rows = golden("solo")
    with pytest.raises(execution.WorkerLost, match="worker 1 of 2 is gone"):
        train(configuration, [0, 1], world(), tmp_path, plan=plan, report=kill)
    train(configuration, [0, 1], world(), tmp_path)
    equal(tmp_path, rows)


def test_a_worker_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    def launch(host: str, port: int, rank: int, size: int) -> execution.Helper:
        return execution.Local(execution.Plan(2, device="no such device")).launch(host, port, rank, size)

    with pytest.raises(execution.WorkerLost, match=r"worker 1 of 2 is gone \(exit status 1\)"):
        train(tiny(), [0], world(), tmp_path, plan=execution.Plan(2, launch=launch))


def test_a_follower_without_its_leader_says_so_in_one_line() -> None:
    command = [
        sys.executable,
        "-c",
        "import tips_dist.training.follower as f; f.attend(['127.0.0.1','1','1','2','cpu'],1)",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "worker 1" in done.stderr.splitlines()[-1]


def test_a_failed_write_in_the_background_surfaces_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_tensors

    def full(path: Path, tensors: dict[str, torch.Tensor], record: Record) -> None:
        if "000000030" in path.name:
            raise StorageError(f"{path}: no space left on device")
        real(path, tensors, record)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(StorageError, match="no space left"):
        train(tiny("solo", "training.checkpoint_every=1"), [0], world(), tmp_path)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "checkpoint")[1].step == 20  # type: ignore[index]
    train(tiny("solo", "training.checkpoint_every=1"), [0], world(), tmp_path)
    assert [row["step"] for row in history(tmp_path)] == [10, 20, 30, 40]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of step 20 is held back until step 30 reports: only a background write can finish this run."""
    may_write, real = threading.Event(), write_tensors

    def slow(path: Path, tensors: dict[str, torch.Tensor], record: Record) -> None:
        assert may_write.wait(30)
        real(path, tensors, record)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    seen = []

    def report(progress: Any) -> None:
        seen.append(len(list((tmp_path / "checkpoint").glob("*"))) if (tmp_path / "checkpoint").exists() else 0)
        if progress.step == 30:
            may_write.set()

    train(tiny(), [0], world(), tmp_path, report=report)
    assert seen[:3] == [0, 0, 0]
    assert len(list((tmp_path / "checkpoint").iterdir())) == 2


def test_the_backend_is_exact_and_recorded(tmp_path: Path) -> None:
    for backend in ("default", precision.choose("float32", 1024, torch.device("cpu"))):
        with precision.applied(backend):
            assert precision.product_error() < 2e-6
    assert torch.get_float32_matmul_precision() == "highest"
    outcome = train(tiny(), [0], world(), tmp_path)
    assert outcome.execution == Execution(workers=1, matmul="default", precision="float32")
    assert checkpoint.load(tmp_path / "checkpoint")[1].matmul == "default"  # type: ignore[index]


def test_bf16_training_stays_near_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 40 steps the generator's loss in either precision agrees to 5 %; imitated where there are no units."""
    monkeypatch.setattr(precision, "bf16_units", lambda: True)
    for name in ("float32", "bf16"):
        train(tiny("solo", f"training.precision={name}"), [0], world(), tmp_path / name)
    exact, rounded = (history(tmp_path / name)[-1] for name in ("float32", "bf16"))
    assert rounded["generator/loss"] != exact["generator/loss"]
    assert rounded["generator/loss"] == pytest.approx(exact["generator/loss"], rel=0.05)


@CUDA
@pytest.mark.parametrize("extra", ["training.precision=float32", "training.precision=tf32", "training.compile=true"])
def test_a_card_gives_the_golden_losses(tmp_path: Path, extra: str) -> None:
    configuration, rows = golden("torso_legs", extra)
    train(configuration, [0, 1], world(), tmp_path, device="cuda")
    equal(tmp_path, rows, rel=5e-2 if "tf32" in extra else 5e-3)


@CUDA
def test_two_cards_give_the_golden_losses(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    configuration, rows = golden("torso_legs")
    train(configuration, [0, 1], world(), tmp_path, device="cuda", workers=2)
    equal(tmp_path, rows, rel=5e-3)
