"""What ``make gpu`` proves: a card gives the numbers of a CPU, resumes to them, waits for nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine import configure
from benchmarks.gpu_bench import Bench, Skipped, engine, need_card, rate, stepper, wait
from tips_dist.data.procedural import generate
from tips_dist.files import read_json_lines
from tips_dist.training import precision
from tips_dist.training.engine import Engine
from tips_dist.training.loop import Interrupted, train
from tips_dist.training.sampling import Batch
from tips_dist.training.validation import validation_set

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
CLOSE = 5e-3  # what tests/training/test_loop.py allows


def history(folder: Path) -> list[dict[str, Any]]:
    return list(read_json_lines(folder / "history.jsonl"))


def furthest(rows: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> float:
    """The largest relative difference of two histories' losses (differences below 1e-4 count as none).

    Raises:
        ValueError: one is longer than the other.
    """
    worst = 0.0
    for row, other in zip(rows, expected, strict=True):
        for key, value in other.items():
            if isinstance(value, float) and abs(row[key] - value) > 1e-4:
                worst = max(worst, abs(row[key] - value) / max(abs(value), 1e-12))
    return worst


def golden(bench: Bench) -> None:
    """Golden numbers, card against CPU."""
    from tests.training.worlds import GOLDEN as NAMES
    from tests.training.worlds import golden as recorded
    from tests.training.worlds import world

    for name in list(NAMES)[: 1 if bench.quick else None]:
        configuration, rows = recorded(name)
        with tempfile.TemporaryDirectory() as folder:
            train(configuration, [0, 1], world(), Path(folder), device=str(bench.device))
            apart = furthest(history(Path(folder)), rows)
        bench.add(f"Golden numbers of {name}: largest relative difference", apart, "{:.1e}", good=apart < CLOSE)


def resume(bench: Bench) -> None:
    """A resumed run is the uninterrupted one, bit for bit."""
    from tests.training.worlds import tiny, world

    configuration = tiny(
        "five_parts", "model.dropout=0.2", "training.instance_noise=0.1", "training.checkpoint_every=1"
    )
    with tempfile.TemporaryDirectory() as folder:
        whole, parts, told = Path(folder) / "whole", Path(folder) / "parts", [0]
        train(configuration, [0, 1], world(), whole, device=str(bench.device))
        with contextlib.suppress(Interrupted):
            train(configuration, [0, 1], world(), parts, device=str(bench.device),
                  report=lambda now: told.append(now.step), should_stop=lambda: told[-1] >= 20)  # fmt: skip
        train(configuration, [0, 1], world(), parts, device=str(bench.device))
        same = [(path / "history.jsonl").read_bytes() for path in (whole, parts)]
    bench.proven("Resumed equals uninterrupted, bit for bit", same[0] == same[1])


def determinism(bench: Bench) -> None:
    """The same twice; torch finds no operation that could differ."""
    from tests.training.worlds import tiny, world

    found = []
    before = torch.are_deterministic_algorithms_enabled()
    for strict in (False, True, True):
        torch.use_deterministic_algorithms(strict)
        try:
            with tempfile.TemporaryDirectory() as folder:
                train(tiny("left_right", "training.steps=20"), [0, 1], world(), Path(folder), device=str(bench.device))
                found.append((Path(folder) / "history.jsonl").read_bytes())
        finally:
            torch.use_deterministic_algorithms(before)
    bench.proven("use_deterministic_algorithms refuses nothing; twice the same bits", found[1] == found[2])
    bench.proven("the same bits without it", found[0] == found[1])
    bench.proven("cuBLAS workspace", "CUBLAS_WORKSPACE_CONFIG" in os.environ,
                 os.environ.get("CUBLAS_WORKSPACE_CONFIG", "not set"))  # fmt: skip


def named_precision(bench: Bench) -> None:
    """float32 is float32, and tf32 is what it says."""
    need_card(bench)
    errors = {}
    for name in ("float32", "tf32"):
        with precision.applied(precision.choose(precision.effective(name, bench.device)[0], 256, bench.device)):
            generator = torch.Generator().manual_seed(0)
            one, other = (torch.randn(2, 256, 256, generator=generator).to(bench.device) for _ in range(2))
            exact = one.double() @ other.double()
            errors[name] = float((torch.bmm(one, other) - exact).abs().max() / exact.abs().max())
    bench.add("Error of a float32 product", errors["float32"], "{:.1e}", good=errors["float32"] < 2e-6)
    units = precision.effective("tf32", bench.device)[0] == "tf32"
    bench.add("Error of a tf32 product", errors["tf32"], "{:.1e}", good=not units or errors["tf32"] > 1e-5)


def waits(bench: Bench) -> None:
    """The host waits for no step, and once for an evaluation step."""
    need_card(bench)
    configuration = configure(64, 64, "left_right")
    running = engine(configuration, 4, bench.device)
    step = stepper(running)
    for _ in range(2):
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    bench.proven("No synchronisation in ten steps (torch's own check)", holds=True)
    poses, _ = generate(1500, 0)
    validation = validation_set(poses, configuration, 100.0).to(bench.device)
    running.measure(validation)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        running.measure(validation)
    copies = sum(event.count for event in profiler.key_averages() if event.key == "cudaMemcpyAsync")
    bench.proven(
        "Copies in an evaluation step", True, f"{copies:.0f} asked of the driver, between card and host or within"
    )


def graph(bench: Bench) -> None:
    """The whole step captured as one CUDA graph: the same numbers, how much faster."""
    need_card(bench)
    configuration = configure(64, 256, average=0.0)
    eager, captured = (engine(configuration, 4, bench.device) for _ in range(2))
    drawn = list(itertools.islice(eager.batches(), 20))
    replay = capture(captured, drawn[:3])
    for batch in drawn[:3]:
        eager.step(batch)
    for batch in drawn[3:]:
        eager.step(batch)
        replay(batch)
    wait(bench.device)
    pairs = zip(eager.state.lifter.parameters(), captured.state.lifter.parameters(), strict=True)
    bench.proven(
        "Step as one CUDA graph: weights after 20 steps, bit for bit", all(torch.equal(*pair) for pair in pairs)
    )
    rates = [rate(lambda one=one: one(drawn[0]), bench.device) for one in (eager.step, replay)]  # type: ignore[misc]
    bench.add("Step as one CUDA graph against eager, S=4 B=256 W=64", rates[1] / rates[0], "{:.2f}x")


def capture(running: Engine, first: Sequence[Batch]) -> Callable[[Batch], None]:
    """Take the first steps as they are, capture the next, and return what replays it for a batch of the same shape.

    What changes from step to step lies on the card: Adam's count, the clock of random numbers, the batch. Rates must
    not decay and no average be kept, whose numbers the host hands in.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for batch in first:
            running.step(batch)
    torch.cuda.current_stream().wait_stream(side)
    held = Batch(**{n: v.clone() if isinstance(v, Tensor) else v for n, v in vars(first[0]).items()})
    running.state.sums = {}
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        running.step(held)

    def replay(batch: Batch) -> None:
        for name, value in vars(held).items():
            if isinstance(value, Tensor):
                value.copy_(getattr(batch, name))
        recorded.replay()

    return replay


def two_cards(bench: Bench) -> None:
    """Two workers with nccl, a card each, give the numbers of one."""
    need_card(bench)
    if torch.cuda.device_count() < 2:
        raise Skipped("one card")
    from tests.training.worlds import golden as recorded
    from tests.training.worlds import world

    configuration, rows = recorded("torso_legs")
    with tempfile.TemporaryDirectory() as folder:
        train(configuration, [0, 1], world(), Path(folder), device="cuda", workers=2)
        apart = furthest(history(Path(folder)), rows)
    bench.add("Two workers with nccl: largest relative difference", apart, "{:.1e}", good=apart < CLOSE)
