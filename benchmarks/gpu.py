"""What a card makes of the engine: ``make gpu``, the one command for whoever has one; five minutes.

Each section proves or measures one thing and stands alone: one that fails says so in its row and the others go on; one
that the time does not reach is skipped with a word. Rates are of whole steps, sampling included, the card waited for at
both ends. Writes ``bench-results/gpu.json`` and prints the same as a table. Without a card: one line.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import configure
from benchmarks.gpu_bench import Bench, Row, Skipped, engine, need_card, rate, stepper
from benchmarks.gpu_proofs import determinism, golden, graph, named_precision, resume, two_cards, waits
from benchmarks.plain import Plain
from tips_dist.files import write_json
from tips_dist.forecast import flops
from tips_dist.models import matched_width
from tips_dist.training import precision
from tips_dist.training.sampling import Batch

OUTPUT = Path("bench-results/gpu.json")
BYTES = 4  # of a float


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
