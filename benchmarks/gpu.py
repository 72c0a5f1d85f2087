"""What a card makes of the engine: ``make gpu``, the one command for whoever has one; five minutes.

Each section proves or measures one thing and stands alone: one that fails says so in its row and the others go on; one
that the time does not reach is skipped with a word. Rates are of whole steps, sampling included, the card waited for at
both ends. Writes ``bench-results/gpu.json`` and prints the same as a table. Without a card: one line.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine import configure, flops
from benchmarks.plain import Plain
from tips_dist.config import Configuration
from tips_dist.data.procedural import generate
from tips_dist.files import read_json_lines, write_json
from tips_dist.models import matched_width
from tips_dist.training import precision
from tips_dist.training.engine import Engine
from tips_dist.training.loop import Interrupted, train
from tips_dist.training.sampling import Batch
from tips_dist.training.state import State
from tips_dist.training.validation import validation_set

OUTPUT = Path("bench-results/gpu.json")
SECONDS = 300.0  # for all of it
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
CLOSE = 5e-3  # what tests/training/test_loop.py allows
BYTES = 4  # of a float


@dataclass
class Row:
    """One thing proven or measured."""

    title: str
    value: float | None
    text: str
    state: str = "ok"  # ok, failed, skipped


@dataclass
class Bench:
    """Where it runs, how long it may take, and what was found so far."""

    device: torch.device
    quick: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    rows: list[Row] = field(default_factory=list)

    def add(self, title: str, value: float | None, form: str = "{:.2f}", *, good: bool = True) -> None:
        """Note a figure, or whether something holds."""
        self._note(Row(title, value, "-" if value is None else form.format(value), "ok" if good else "failed"))

    def proven(self, title: str, holds: bool, said: str = "") -> None:
        """Note whether something holds."""
        self._note(Row(title, None, said or ("yes" if holds else "no"), "ok" if holds else "failed"))

    def run(self, section: Callable[[Bench], None]) -> None:
        """Do one section, whatever becomes of it."""
        title = (section.__doc__ or section.__name__).splitlines()[0].rstrip(".")
        if time.monotonic() > self.deadline:
            self._note(Row(title, None, "out of time", "skipped"))
            return
        try:
            section(self)
        except Skipped as why:
            self._note(Row(title, None, str(why), "skipped"))
        except Exception as error:  # a section that falls ill says so; the others go on
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            self._note(Row(title, None, said, "failed"))

    def _note(self, row: Row) -> None:
        self.rows.append(row)
        print(f"{row.state:<8}{row.title:<68} {row.text}", flush=True)


class Skipped(Exception):  # noqa: N818 (no error)
    """What a section needs is not here."""


# --- shared ------------------------------------------------------------------------------------------------------


def engine(configuration: Configuration, seeds: int, device: torch.device) -> Engine:
    """An engine on poses of the right size; what they show does not matter for speed."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(2000, 17, 2, generator=generator).mul_(0.1).numpy()
    return Engine(State(configuration, tuple(range(seeds)), device), poses)


def stepper(running: Engine) -> Callable[[], None]:
    """One step at each call."""
    batches = itertools.chain.from_iterable(running.batches() for _ in itertools.count())

    def step() -> None:
        with precision.applied(running.state.matmul):
            running.step(next(batches))

    return step


def wait(device: torch.device) -> None:
    """Until the card has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], object], device: torch.device, least: float = 1.0) -> float:
    """Calls per second: the median of three stretches of at least a third of ``least`` seconds each."""
    found = []
    for _ in range(5):  # also so that a compiled network is compiled
        work()
    for _ in range(3):
        wait(device)
        calls, began = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - began < least / 3:
            work()
            calls += 1
            if calls % 20 == 0:  # not further ahead than that
                wait(device)
        wait(device)
        found.append(calls / (time.perf_counter() - began))
    return statistics.median(found)


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


# --- proofs ------------------------------------------------------------------------------------------------------


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


def packed(bench: Bench) -> None:
    """Packed seeds: seed-steps per second, and memory for each."""
    counts = (1, 4) if bench.quick else (1, 2, 4, 8, 16, 32, 64)
    rates = {}
    for seeds in counts:
        step = stepper(engine(configure(256, 256), seeds, bench.device))
        rates[seeds] = seeds * rate(step, bench.device, 0.2 if bench.quick else 1.0)
        bench.add(f"Seed-steps per second, S={seeds} B=256 W=256", rates[seeds], "{:.0f}")
    bench.add(f"Packed S={counts[-1]} against one after another", rates[counts[-1]] / rates[1], "{:.1f}x")


def memory(bench: Bench) -> None:
    """Memory for each seed."""
    need_card(bench)
    peaks = []
    for seeds in (1, 9):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
        step = stepper(engine(configure(256, 256), seeds, bench.device))
        for _ in range(3):
            step()
        peaks.append(torch.cuda.max_memory_allocated(bench.device))
    each = (peaks[1] - peaks[0]) / 8
    total = torch.cuda.get_device_properties(bench.device).total_memory
    bench.add("Memory per seed, B=256 W=256", each / 2**20, "{:.0f} MiB")
    bench.add("Seeds that fit on this card at once", (0.9 * total - peaks[0]) / each, "{:.0f}")


def compiled(bench: Bench) -> None:
    """torch.compile against eager."""
    if shutil.which("g++") is None:
        raise Skipped("no C++ compiler")
    rates = [
        rate(stepper(engine(configure(256, 256, compile=wanted), 8, bench.device)), bench.device)
        for wanted in (False, True)
    ]
    bench.add("torch.compile against eager, S=8 B=256 W=256", rates[1] / rates[0], "{:.2f}x")


def precisions(bench: Bench) -> None:
    """Lower precisions against float32."""
    base = rate(stepper(engine(configure(256, 256), 8, bench.device)), bench.device)
    for name in ("tf32", "bf16"):
        if precision.effective(name, bench.device)[0] != name:
            raise Skipped(f"no units for {name}")
        other = rate(stepper(engine(configure(256, 256, precision=name), 8, bench.device)), bench.device)
        bench.add(f"{name} against float32, S=8 B=256 W=256", other / base, "{:.2f}x")


def against_plain(bench: Bench) -> None:
    """Steps per second against the plain program."""
    for seeds, width in ((1, 64),) if bench.quick else ((1, 256), (8, 256)):
        configuration = configure(width, 256)
        running = engine(configuration, seeds, bench.device)
        batch = next(iter(running.batches()))
        weights, blocks = configuration.losses.model_dump(), configuration.model.discriminator_blocks
        with torch.device(bench.device):  # it names no device itself
            programs = [Plain("solo", matched_width("solo", width), width, blocks, (2e-4, 2e-4)) for _ in range(seeds)]

        def plain(programs: list[Plain] = programs, batch: Batch = batch, weights: Any = weights) -> None:
            with torch.device(bench.device):
                for row, program in enumerate(programs):
                    program.step(batch, row, weights)

        least = 0.2 if bench.quick else 1.0
        ours, theirs = rate(stepper(running), bench.device, least), rate(plain, bench.device, least)
        bench.add(f"Steps per second, S={seeds} B=256 W={width}", ours, "{:.0f}")
        bench.add(f"against the plain program, S={seeds} B=256 W={width}", ours / theirs, "{:.1f}x")


def roofline(bench: Bench) -> None:
    """How far the step is from what the card can do."""
    seeds, batch, width = (2, 64, 64) if bench.quick else (8, 256, 256)
    configuration = configure(width, batch)
    one, other = (
        torch.randn(seeds, batch, width, device=bench.device),
        torch.randn(seeds, width, width, device=bench.device),
    )
    big = torch.empty(2**22 if bench.quick else 2**28, device=bench.device)
    least = 0.2 if bench.quick else 1.0
    with precision.applied(precision.choose("float32", width, bench.device)):
        product = 2.0 * seeds * batch * width * width * rate(lambda: torch.bmm(one, other), bench.device, least)
    copied = 2.0 * BYTES * big.numel() * rate(lambda: big.add_(1), bench.device, least)
    reached = flops(configuration, seeds) * rate(
        stepper(engine(configuration, seeds, bench.device)), bench.device, least
    )
    bound = attainable(product, copied, intensity(batch, width))
    bench.add(f"Best float32 product of these shapes, S={seeds} B={batch} W={width}", product / 1e12, "{:.2f} TFLOP/s")
    bench.add("Memory bandwidth", copied / 1e9, "{:.0f} GB/s")
    bench.add("The step", reached / 1e12, "{:.2f} TFLOP/s")
    bench.add("The step's share of the roof", 100 * reached / bound, "{:.0f} %")


def intensity(batch: int, width: int) -> float:
    """Operations per byte of a residual layer's product when every operand crosses the memory once."""
    return 2.0 * batch * width * width / (BYTES * (2 * batch * width + width * width))


def attainable(product: float, bandwidth: float, operations_per_byte: float) -> float:
    """The roof (Williams et al. 2009): what products give, or what memory feeds."""
    return min(product, bandwidth * operations_per_byte)


def utilisation(bench: Bench) -> None:
    """How busy the card says it is while a study's pack trains."""
    need_card(bench)
    if shutil.which("nvidia-smi") is None:
        raise Skipped("no nvidia-smi")
    step, told, done = stepper(engine(configure(256, 256), 8, bench.device)), list[float](), threading.Event()

    def ask() -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not done.wait(0.5):
            told.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        rate(step, bench.device, 5.0)
    finally:
        done.set()
        thread.join()
    bench.add("Utilisation while S=8 B=256 W=256 trains", statistics.median(told[1:]), "{:.0f} %")


def fractions(bench: Bench) -> None:
    """Four trials on a quarter of the card each, against one pack of all."""
    need_card(bench)
    together = 16 * rate(stepper(engine(configure(128, 256), 16, bench.device)), bench.device)
    code = "from benchmarks.gpu import quarter; print(quarter())"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    apart = sum(float(process.communicate(timeout=120)[0]) for process in processes)
    bench.add("Four trials of S=4 on a quarter of the card each, seed-steps/s", apart, "{:.0f}")
    bench.add("One pack of S=16 against them", together / apart, "{:.2f}x")


def quarter() -> float:
    """Seed-steps per second of one of four trials; meant for a process of its own."""
    torch.cuda.set_per_process_memory_fraction(0.25)
    device = torch.device("cuda")
    return 4 * rate(stepper(engine(configure(128, 256), 4, device)), device, 6.0)


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


def need_card(bench: Bench) -> None:
    if bench.device.type != "cuda":
        raise Skipped("needs a card")


SECTIONS = (
    golden, resume, determinism, named_precision, waits, graph, two_cards, against_plain, packed, memory, roofline,
    precisions, compiled, utilisation, fractions,
)  # fmt: skip


# --- what comes of it --------------------------------------------------------------------------------------------


def table(rows: Sequence[Row], machine: str) -> str:
    """The rows as Markdown."""
    lines = [machine, "", "| | measured | |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {row.title} | {row.text} | {'' if row.state == 'ok' else row.state} |" for row in rows)]
    )


def machine() -> str:
    """The card, its driver and what runs on it."""
    card = torch.cuda.get_device_properties(0)
    size = f"{card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}"
    return (
        f"{torch.cuda.device_count()} x {card.name} ({size}), torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"Python {platform.python_version()}, {datetime.date.today()}"
    )


def measure(bench: Bench, sections: Sequence[Callable[[Bench], None]], about: str, output: Path) -> int:
    """Do all sections and write them down; the exit code: 1 if something does not hold."""
    began = time.perf_counter()
    for section in sections:
        bench.run(section)
    rows = [vars(row) for row in bench.rows]
    write_json(output, {"machine": about, "seconds": time.perf_counter() - began, "rows": json.loads(json.dumps(rows))})
    print(f"\n{table(bench.rows, about)}\n\n{time.perf_counter() - began:.0f} s; {output}")
    return int(any(row.state == "failed" for row in bench.rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("make gpu: torch sees no card here, so nothing was measured; `tips-dist doctor` says why")
        return 0
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product
    return measure(Bench(torch.device("cuda"), options.quick), SECTIONS, machine(), OUTPUT)


if __name__ == "__main__":
    sys.exit(main())
