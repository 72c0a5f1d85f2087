"""What the training engine reaches: ``make bench`` (``--quick`` is a rehearsal with small shapes).

Every figure is a ratio of two rates taken in this process in turns, so that a busy machine slows both alike; the
median over repeats is given, with the least and the most of them. Writes ``bench-results/engine.json`` and the table
between the markers of README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine, replace_between
from benchmarks.plain import Plain
from tips_dist.config import Configuration
from tips_dist.data.procedural import generate
from tips_dist.files import write_json
from tips_dist.forecast import flops
from tips_dist.models import matched_width
from tips_dist.study_file import parse_study
from tips_dist.training import precision
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.loop import train
from tips_dist.training.players import Row
from tips_dist.training.sampling import Batch
from tips_dist.training.state import State

Work = Callable[[], object]


@dataclass
class Results:
    """Figures as they are found: title, value, and the reach that issue 3 of the project asks for."""

    quick: bool
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    numbers: dict[str, list[float]] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, title: str, values: Sequence[float], form: str = "{:.2f}x", reach: str = "") -> None:
        """One row: the median of the repeats' ``values``, and their range; none: not measured here."""
        text = form.format(statistics.median(values)) if values else "not measured"
        if len(values) > 1:
            text += f" ({form.format(min(values))} to {form.format(max(values))})"
        self.rows.append((title, text, reach))
        self.numbers[title] = list(values)
        print(f"{title:<78} {text:>30}  {reach}", flush=True)


def configure(width: int, batch: int, name: str = "solo", **training: Any) -> Configuration:
    text = "{name: bench, representations: [solo], training: {steps: 1000000, evaluate_every: 50}}"
    values = {"batch_size": batch, **training}
    overrides = [f"training.{key}={json.dumps(value)}" for key, value in values.items()]
    return parse_study(text, "bench", [f"model.width={width}", *overrides]).configuration(name)


def stepper(configuration: Configuration, seeds: int, backend: precision.Backend | None = None) -> Work:
    """One step of S packed seeds at each call, sampling included."""
    return engine_of(State(configuration, tuple(range(seeds)), torch.device("cpu")), backend)


def engine_of(state: State, backend: precision.Backend | None = None) -> Work:
    poses = torch.randn(2000, 17, 2).mul_(0.1).numpy()
    engine = Engine(state, sampler_for(state, poses))
    batches = itertools.chain.from_iterable(engine.batches() for _ in itertools.count())

    def step() -> None:
        with precision.applied(backend or state.matmul):
            engine.step(next(batches))

    return step


def plain_stepper(configuration: Configuration, seeds: int) -> Work:
    """One step of S seeds of the plain program, one after another, on the engine's kind of batch."""
    name, width, losses = configuration.representation, configuration.model.width, configuration.losses
    state = State(configuration, tuple(range(seeds)), torch.device("cpu"))
    blocks = configuration.model.discriminator_blocks
    programs = [Plain(name, matched_width(name, width), width, blocks, (2e-4, 2e-4)) for _ in range(seeds)]
    engine = Engine(state, sampler_for(state, torch.randn(2000, 17, 2).mul_(0.1).numpy()))
    batch: Batch = next(iter(engine.batches()))
    weights = losses.model_dump()

    def step() -> None:
        for row, program in enumerate(programs):
            program.step(batch, row, weights)

    return step


def seconds(work: Work, least: float) -> float:
    """Seconds per call, over at least ``least`` seconds and two calls."""
    calls, began = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - began < least:
        work()
        calls += 1
    return (time.perf_counter() - began) / calls


def compare(works: Mapping[str, Work], results: Results, least: float = 0.5) -> dict[str, list[float]]:
    """Seconds per call of each work, in turns: name -> one number per repeat."""
    for work in works.values():
        work()
    repeats, least = (2, 0.1) if results.quick else (4, least)
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(seconds(work, least))
    return found


def ratios(found: Mapping[str, list[float]], slow: str, fast: str) -> list[float]:
    """How many times faster ``fast`` is than ``slow``, repeat by repeat."""
    return [a / b for a, b in zip(found[slow], found[fast], strict=True)]


def percents(factors: Sequence[float]) -> list[float]:
    """How much more each factor is than 1, in percent."""
    return [100 * (factor - 1) for factor in factors]


def products(seeds: int, batch: int, width: int) -> dict[str, Work]:
    """The batched product of a residual layer with each backend that keeps float32's accuracy here."""
    features, weight = torch.randn(seeds, batch, width), torch.randn(seeds, width, width)

    def product(backend: precision.Backend) -> Work:
        def work() -> None:
            with precision.applied(backend):
                torch.bmm(features, weight)

        return work

    return {name: product(name) for name in exact_backends()}


def exact_backends() -> list[precision.Backend]:
    """On CPUs with AMX oneDNN rounds to bfloat16, however it is asked, and is no float32 backend."""
    return ["default", "onednn"] if precision.onednn_is_exact() else ["default"]


def share_of_best(results: Results) -> None:
    shapes = ((8, 64, 64, ""), (8, 256, 256, "55 %"), (1, 1024, 1024, "75 %"))
    for seeds, batch, width, reach in shapes[: 2 if results.quick else 3]:
        configuration = configure(width, batch)
        rivals = products(seeds, batch, width)
        found = compare({"step": stepper(configuration, seeds), **rivals}, results)
        one = 2.0 * seeds * batch * width * width
        best = [one / min(turn) for turn in zip(*(found[name] for name in rivals), strict=True)]
        rates = [flops(configuration, seeds) / value for value in found["step"]]
        shares = [100 * rate / top for rate, top in zip(rates, best, strict=True)]
        results.add(f"Share of the best float32 rate, S={seeds} B={batch} W={width}", shares, "{:.0f} %", reach)
        results.numbers[f"GF/s best, S={seeds} B={batch} W={width}"] = [one / 1e9 for one in best]
        results.numbers[f"GF/s step, S={seeds} B={batch} W={width}"] = [one / 1e9 for one in rates]


def against_plain(results: Results) -> None:
    """One seed against one program: what the engine gains by itself. Eight against eight programs: and by packing."""
    kinds = [("float32", "1.5x"), *([("bf16", "")] if precision.bf16_units() else [])]
    shapes = [("solo", 1, 64), ("solo", 1, 128), ("solo", 1, 256), ("torso_legs", 1, 256)]
    shapes += [("solo", 8, 256), ("torso_legs", 8, 256)]
    for name, seeds, width in shapes[: 1 if results.quick else None]:
        works = {"plain": plain_stepper(configure(width, 256, name), seeds)}
        works |= {kind: stepper(configure(width, 256, name, precision=kind), seeds) for kind, _ in kinds}
        found = compare(works, results, 1.0)
        for kind, reach in kinds:
            title = f"{'Engine' if seeds == 1 else 'Engine and packing'} against plain PyTorch, {name}, S={seeds} "
            title += f"B=256 W={width}, {kind}"
            results.add(title, ratios(found, "plain", kind), reach=reach if (seeds, width) == (1, 256) else "")


def packing(results: Results) -> None:
    for width, batch, reach in ((64, 64, "2.5x"), (256, 256, ""))[: 1 if results.quick else 2]:
        alone = stepper(configure(width, batch), 1)

        def eight(alone: Work = alone) -> None:
            for _ in range(8):
                alone()

        found = compare({"alone": eight, "packed": stepper(configure(width, batch), 8)}, results)
        results.add(f"Packed S=8 against one after another, B={batch} W={width}", ratios(found, "alone", "packed"),
                    reach=reach)  # fmt: skip
    width = 64 if results.quick else 256
    half = State(configure(width, width), tuple(range(8)), torch.device("cpu"))
    half.compact([1, 3, 5, 7])
    found = compare({"whole": stepper(configure(width, width), 8), "half": engine_of(half)}, results)
    results.add(f"Step rate after half of S=8 is compacted away, B={width} W={width}", ratios(found, "whole", "half"),
                reach="1.7x")  # fmt: skip
    varied = State(configure(64, 64), tuple(range(8)), torch.device("cpu"))
    tensors, _ = varied.dump()
    varied.build([Row(k, configure(64, 64, generator_lr=1e-4 * (1 + k))) for k in range(8)])
    varied.set_tensors(tensors)
    found = compare({"own": engine_of(varied), "same": stepper(configure(64, 64), 8)}, results)
    results.add("Cost of values per seed, S=8 B=64 W=64", percents(ratios(found, "own", "same")), "{:+.1f} %")


def averaging(results: Results) -> None:
    """The moving average's share of a step, timed inside running steps: its memory is as cold as it is there."""
    for width, seeds in ((256, 8), (256, 1), (64, 8))[: 1 if results.quick else 3]:
        state = State(configure(width, 256), tuple(range(seeds)), torch.device("cpu"))
        step, update, spent = engine_of(state), state.update_average, [0.0]

        def timed(update: Callable[[], None] = update, spent: list[float] = spent) -> None:
            began = time.perf_counter()
            update()
            spent[0] += time.perf_counter() - began

        state.update_average = timed  # type: ignore[method-assign]
        shares = []
        step()
        for _ in range(2 if results.quick else 4):
            spent[0], began = 0.0, time.perf_counter()
            seconds(step, 0.1 if results.quick else 2.0)
            shares.append(100 * spent[0] / (time.perf_counter() - began))
        results.add(f"Averaging's share of a step, S={seeds} B=256 W={width}", shares, "{:.1f} %",
                    "2 %" if width == 256 else "")  # fmt: skip


def variants(results: Results) -> None:
    for width in (64, 256)[: 1 if results.quick else 2]:
        works: dict[str, Work] = {kind: stepper(configure(width, 256), 8, kind) for kind in exact_backends()}
        if precision.bf16_units():
            works["bf16"] = stepper(configure(width, 256, precision="bf16"), 8)
        found = compare(works, results)
        for kind in list(works)[1:]:
            title = f"{kind} against torch's default float32, S=8 B=256 W={width}"
            results.add(title, ratios(found, "default", kind))
    if shutil.which("g++") is None or results.quick:
        results.add("torch.compile against eager, S=8 B=256 W=256", [])
        return
    works = {"eager": stepper(configure(256, 256), 8), "compiled": stepper(configure(256, 256, compile=True), 8)}
    results.add("torch.compile against eager, S=8 B=256 W=256", ratios(compare(works, results), "eager", "compiled"))


KINDS = {
    "matrix products": ("bmm", "baddbmm", "mm", "addmm"),
    "ReLU, both ways": ("clamp_min_", "relu_", "threshold_backward"),
    "additions": ("add", "add_"),
    "copies and type changes": ("copy_", "cat", "index"),
    "Adam": ("_fused_adam_",),
    "sums": ("sum", "mean"),
}


def profile(results: Results) -> None:
    """Where the time of a step goes, in percent: what bounds the gain from anything but faster products."""
    shapes = [("float32", 8, 256), ("float32", 1, 256), ("float32", 8, 64), ("float32", 8, 128)]
    shapes += [("bf16", 8, 256)] if precision.bf16_units() else []
    for kind, seeds, width in shapes[: 1 if results.quick else None]:
        step = stepper(configure(width, 256, precision=kind), seeds)
        step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(3 if results.quick else 20):
                step()
        spent = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()}
        total = sum(spent.values())
        point = {kind: 100 * sum(spent.get(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
        title = f"{kind}, S={seeds} B=256 W={width}"
        results.profiles[title] = {**point, "the rest": 100 - sum(point.values())}
        print(title, {name: f"{value:.0f} %" for name, value in results.profiles[title].items()}, flush=True)


def whole_runs(results: Results) -> None:
    """Figures that need the loop: workers and checkpoints, by the clock from one evaluation step to the next."""
    poses, _ = generate(2000, 0)
    cores = os.cpu_count() or 1

    def rate(width: int, batch: int, seeds: int, *, every: int = 1000, workers: int = 1) -> float:
        """Evaluation steps per second from the first to the last, checkpoints between them included."""
        told: list[float] = []
        steps = 200
        configuration = configure(width, batch, steps=steps, checkpoint_every=every, record_depths=False)
        with tempfile.TemporaryDirectory() as folder:
            train(configuration, range(seeds), poses, Path(folder), threads=cores, workers=workers,
                  report=lambda _: told.append(time.perf_counter()))  # fmt: skip
        return (len(told) - 1) / (told[-1] - told[0])

    width = 64 if results.quick else 256
    pairs = [(rate(width, 256, 2, workers=1), rate(width, 256, 2, workers=2)) for _ in range(1 if results.quick else 2)]
    results.add(f"2 workers of 1 thread against 1 worker of {cores}, S=2 B=256 W={width}",
                [two / one for one, two in pairs])  # fmt: skip
    pairs = [(rate(width, 256, 2), rate(width, 256, 2, every=1)) for _ in range(1 if results.quick else 5)]
    cost = percents([without / often for without, often in pairs])
    results.add(f"Cost of a checkpoint every 50 steps, S=2 B=256 W={width}", cost, "{:+.1f} %", "under 2 %")


def memory(results: Results) -> None:
    def peak(seeds: int, width: int) -> float:
        code = f"from benchmarks.engine import peak_memory; print(peak_memory({seeds}, {width}))"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    results.add("Memory per seed, B=256 W=256", [(peak(9, 256) - peak(1, 256)) / 8], "{:.0f} MB")
    step = stepper(configure(16, 16), 2)
    steps = 1000 if results.quick else 10_000
    for _ in range(steps // 10):
        step()
    before = resident_megabytes()
    for _ in range(steps):
        step()
    results.add(
        f"Growth of memory over {steps:,} steps, S=2 B=16 W=16", [resident_megabytes() - before], "{:+.1f} MB", "0"
    )


def peak_memory(seeds: int, width: int) -> float:
    """Peak resident megabytes of a few steps; meant for a process of its own."""
    step = stepper(configure(width, 256), seeds)
    for _ in range(3):
        step()
    # Not ru_maxrss: a new process starts with its parent's peak there.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(peak) / 1024


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def curves(results: Results) -> None:
    for title, shapes in (
        ("S (B=64, W=64)", [(seeds, 64, 64) for seeds in (1, 2, 4, 8, 16)]),
        ("width (S=4, B=256)", [(4, 256, width) for width in (32, 64, 128, 256, 512)]),
        ("batch (S=4, W=128)", [(4, batch, 128) for batch in (32, 128, 512, 2048)]),
    ):
        points = []
        for seeds, batch, width in shapes[: 2 if results.quick else None]:
            configuration = configure(width, batch)
            # The fastest, not the median: there is nothing to set it against, and other load only adds.
            took = min(compare({"step": stepper(configuration, seeds)}, results, 0.3)["step"])
            point = {"S": seeds, "B": batch, "W": width, "seed-steps/s": seeds / took}
            points.append({**point, "GF/s": flops(configuration, seeds) / took / 1e9})
        results.curves[title] = points


def table(results: Results, machine: str) -> str:
    lines = [f"{machine}", "", "| figure | measured | reach |", "|---|---|---|"]
    lines += [f"| {title} | {value} | {reach} |" for title, value, reach in results.rows]
    head = list(next(iter(results.profiles.values())))
    lines += [
        "",
        "Share of a step's time, in percent:",
        "",
        f"| | {' | '.join(head)} |",
        "|---" * (1 + len(head)) + "|",
    ]
    for title, point in results.profiles.items():
        lines.append(f"| {title} | {' | '.join(f'{point[name]:.0f}' for name in head)} |")
    return "\n".join(lines)


def growth(results: Results, machine: str) -> str:
    lines = [f"{machine} The fastest of the repeats."]
    for title, points in results.curves.items():
        lines += ["", f"Growth over {title}:", "", "| S | B | W | seed-steps/s | GF/s |", "|---|---|---|---|---|"]
        lines += [f"| {p['S']} | {p['B']} | {p['W']} | {p['seed-steps/s']:.0f} | {p['GF/s']:.0f} |" for p in points]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes and two repeats; touches no README")
    parser.add_argument("--growth", action="store_true", help="only how rates grow with seeds, width and batch")
    parser.add_argument("--note", default="", help="written beside the machine and the date")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    began, results = time.perf_counter(), Results(options.quick)
    figures = (share_of_best, against_plain, packing, averaging, variants, profile, whole_runs, memory)
    for part in (curves,) if options.growth else (*figures, curves):
        part(results)
    told, took = machine(options.note), time.perf_counter() - began
    found = {"figures": results.numbers, "curves": results.curves, "profiles": results.profiles}
    write_json(Path("bench-results/engine.json"), {"machine": told, "seconds": took, **found})
    print(f"{took:.0f} s; bench-results/engine.json")
    if not options.quick:
        replace_between("growth", growth(results, told))
        if not options.growth:
            replace_between("engine", table(results, told))


if __name__ == "__main__":
    main()
