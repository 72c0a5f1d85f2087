"""Past this machine, by simulation: a study of 10,000 trials on 512 GPUs; which limit comes first?

``python -m benchmarks.scale [--trials 10000] [--gpus 512] [--per-gpu 4] [--json]``

What one trial costs the driver is *measured here* with the code that a study runs: proposals of the search, reports to
it and records on disk (medians, at several sizes of the journal, so that growth shows), its memory, copies by the
mirror's own rounds to a local address, and what the writer on the driver's node takes in where nodes have no disk in
common (`study/office.py`). All of that is processor time, so that a busy machine does not matter; waiting for a disk is
not in it. The fleet is then simulated event by event, with training times and file sizes that are
*assumed* and printed. Not measured: Ray's own scheduling at 2,048 actors (Ray's published envelope has tens of
thousands), the network, real object stores (their documented limit of 3,500 writes a second and prefix is used).

What is told of each limit is its load at the size asked for, and the number of GPUs at which it would be reached.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tips_dist.mirror import HEAVY_INTERVALS
from tips_dist.runfolder import Outcome, TrialState, example, layout
from tips_dist.study.office import PARCEL_BYTES, Office, Parcel
from tips_dist.study.search import DRAWN_STEPS, TrialSearch
from tips_dist.study_file import parse_study

S3_WRITES = 3500.0  # per second and prefix, as documented
REPORTED = 3  # reports to the search timed for each trial
RECORDS, WEIGHTS = 10, 4  # evaluations of each trial, and checkpoints, that the writer is timed with
S3_PRICE = 5.0e-6  # dollars per write
STUDY = """
name: scale
data: {procedural: {poses: 20000}}
representations: [solo]
seeds: 8
model: {width: 256}
training: {steps: 6000, batch_size: 256, evaluate_every: 50}
search: {trials: 100000, sampler: SAMPLER}
space:
  training.generator_lr: {log_uniform: [5.0e-5, 1.0e-3]}
  losses.consistency_90: {uniform: [0.0, 10.0]}
"""


@dataclass(frozen=True)
class Assumed:
    """What cannot be measured here."""

    trial_seconds: float = 1200.0  # of one trial with its GPU shared by ``per_gpu``
    spread: float = 0.3  # deviation of the logarithm, early stops among it
    reports: int = 120  # evaluation steps of a trial
    report_seconds: float = 0.002  # of the driver, for Ray Tune and our view; what the search does is measured
    checkpoint_bytes: float = 100e6  # width 256, 8 seeds: weights and two Adam moments, twice (the latest two)
    depths_bytes: float = 50e6
    candidate_bytes: float = 30e6
    history_bytes: float = 1.5e6
    tensorboard_bytes: float = 3e6
    checkpoints: int = 30  # written by a trial
    network_bytes_per_second: float = 1.25e9  # of the driver's node: 10 Gbit/s
    poses_bytes: float = 20000 * 17 * 2 * 4.0
    interval: float = 30.0  # between rounds of the mirror


def search_costs(sampler: str, sizes: list[int], probe: int) -> dict[int, dict[str, float]]:
    """Seconds to propose, to report and to tell, journal and memory bytes per trial, with ``size`` trials behind it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = parse_study(STUDY.replace("SAMPLER", sampler), "scale.yaml")
    found = {}
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        (run / "trials").mkdir()
        search, done = TrialSearch(study, run), 0
        search.propose()  # imports what it needs
        before = memory()
        training = study.training
        every = training.evaluate_every * math.ceil(training.steps / training.evaluate_every / DRAWN_STEPS)
        for size in sizes:
            clock: dict[str, list[float]] = {"propose": [], "report": [], "tell": []}
            while done < size:
                begun = time.process_time()
                trial = search.propose()
                assert trial is not None
                clock["propose"].append(time.process_time() - begun)
                begun = time.process_time()
                for step in range(every, REPORTED * every + 1, every):
                    search.report(trial.id, trial.representation, step, random.random())
                clock["report"].append((time.process_time() - begun) / REPORTED)
                seeds = [example.outcome(seed, random.random()) for seed in range(study.seeds)]
                outcome = Outcome(seeds=seeds, training_seconds=1.0, parameters={"lifter": 1, "discriminator": 1})
                ended = trial.now(state=TrialState.FINISHED, outcome=outcome).write(run)
                begun = time.process_time()
                search.tell(ended)
                clock["tell"].append(time.process_time() - begun)
                done += 1
            found[size] = {
                **{what: statistics.median(seconds[-probe:]) for what, seconds in clock.items()},
                "journal_bytes_per_trial": (run / "optuna.journal").stat().st_size / done,
                "memory_bytes_per_trial": (memory() - before) / done,
            }
    return found


def memory() -> float:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def writer_costs(assumed: Assumed, trials: int = 40) -> dict[str, float]:
    """What the writer on the driver's node takes in a second: records (one evaluation of a trial), bytes of weights."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        names = [f"trials/solo-{number:03d}" for number in range(trials)]
        for folder in names:
            (run / folder).mkdir(parents=True)
        mark = "0" * 32
        layout.DRIVER.at(run).write_text(mark)
        writer = Office(run, mark)
        writer.open("bench", [folder.rpartition("/")[2] for folder in names], False)
        line = b"x" * int(assumed.history_bytes / assumed.reports)
        begun = time.process_time()
        for report in range(RECORDS):
            for folder in names:
                parcels = [
                    Parcel(f"{folder}/history.jsonl", line, report * len(line), None if report else len(line)),
                    Parcel(f"{folder}/alive.json", b"y" * 300, size=300),
                ]
                writer.take("bench", parcels)
        records = trials * RECORDS / (time.process_time() - begun)
        block = os.urandom(PARCEL_BYTES)
        begun = time.process_time()
        for folder in names[:WEIGHTS]:
            size = len(block) * 8
            for part in range(8):
                parcel = Parcel(f"{folder}/checkpoint/step-000000100.safetensors", block, part * len(block), size)
                writer.take("bench", [parcel])
        return {"records_per_second": records, "bytes_per_second": WEIGHTS * size / (time.process_time() - begun)}


def mirror_costs(trials: int) -> dict[str, float]:
    """Seconds per file looked at and per small file copied in a round of the mirror."""
    from tips_dist.mirror import Mirror

    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "runs" / "scale"
        example.study_record().save(run / "study.json")
        files = 1
        for number in range(trials):
            folder = run / "trials" / f"solo-{number:05d}"
            for file in ("trial.json", "history.jsonl", "depths.npy", "checkpoint/a", "checkpoint/b", "tensorboard/x"):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(b"x" * 2000)
                files += 1
        mirror = Mirror(run, f"file://{name}/mirror")
        begun = time.process_time()
        copied = mirror.round()
        first = time.process_time() - begun
        begun = time.process_time()
        mirror.round()
        idle = time.process_time() - begun
        return {"seconds_per_file_looked_at": idle / files, "seconds_per_file_copied": (first - idle) / copied}


def grown(costs: dict[int, dict[str, float]], key: str, size: float) -> float:
    """A measured cost at any number of trials: a straight line through the two largest sizes measured."""
    (x0, low), (x1, high) = sorted(costs.items())[-2:]
    slope = (high[key] - low[key]) / (x1 - x0)
    return max(0.0, high[key] + slope * (size - x1))


@dataclass(frozen=True)
class Fleet:
    """What came out of the simulation."""

    hours: float
    busy: float  # share of GPU slots' time spent training
    driver: float  # share of the driver's time spent, mean
    driver_peak: float  # and in the busiest tenth, while all places are taken
    longest_wait: float  # seconds that a slot waited for its next trial


def simulate(trials: int, slots: int, assumed: Assumed, costs: dict[int, dict[str, float]]) -> Fleet:
    """One driver serves ``slots`` places: propose, take reports, tell. Work on the driver is one queue."""
    draw = random.Random(0)
    free: list[tuple[float, int]] = [(0.0, slot) for slot in range(slots)]
    heapq.heapify(free)
    driver_free, training, work, waited, done = 0.0, 0.0, [], 0.0, 0
    end = 0.0
    told = assumed.reports * assumed.report_seconds + DRAWN_STEPS * grown(costs, "report", trials)
    reports = slots * told / assumed.trial_seconds  # the share of the driver's time that running trials take
    while done < trials:
        now, slot = heapq.heappop(free)
        cost = grown(costs, "propose", done) + (grown(costs, "tell", done) if now else 0.0)
        start = max(now, driver_free)
        driver_free = start + cost / max(1e-6, 1.0 - min(reports, 0.999))
        waited = max(waited, driver_free - now) if now else waited
        work.append((start, cost))
        seconds = assumed.trial_seconds * draw.lognormvariate(-(assumed.spread**2) / 2, assumed.spread)
        training += seconds
        end = max(end, driver_free + seconds)
        heapq.heappush(free, (driver_free + seconds, slot))
        done += 1
    tenth = max(end / 10, 1e-9)
    shares = [sum(cost for at, cost in work if k * tenth <= at < (k + 1) * tenth) / tenth for k in range(10)]
    busy = training / (slots * end)
    return Fleet(end / 3600, busy, statistics.mean(shares) + busy * reports, max(shares) + reports, waited)


def storage_load(trials: int, slots: int, assumed: Assumed, mirror: dict[str, float], hours: float) -> dict[str, float]:
    """What the mirror asks of the object store and of the driver's network."""
    rounds = min(assumed.trial_seconds / assumed.interval, assumed.reports)
    small = 3 * rounds  # history, sign of life, TensorBoard: changed in every round
    large = min(assumed.checkpoints, rounds / HEAVY_INTERVALS)
    writes_per_trial = small + 4 * large + 16
    big = assumed.checkpoint_bytes / 2 + assumed.depths_bytes  # one new checkpoint, and all depths again
    moved = large * big + rounds * (assumed.history_bytes + assumed.tensorboard_bytes) / 2 + 8 * assumed.candidate_bytes
    sent = assumed.checkpoints * assumed.checkpoint_bytes / 2 + assumed.depths_bytes + assumed.history_bytes
    sent += 8 * assumed.candidate_bytes  # what couriers would bring if nothing slowed them down
    rate = slots / assumed.trial_seconds
    changed = slots * (3 + 4 * large / rounds)
    return {
        "writes_per_second": writes_per_trial * rate,
        "share_of_s3_writes": writes_per_trial * rate / S3_WRITES,
        "write_dollars": writes_per_trial * trials * S3_PRICE,
        "bytes_per_second": moved * rate,
        "records_per_second": assumed.reports * rate,
        "bytes_per_second_without_a_shared_disk": sent * rate,
        "share_of_network": moved * rate / assumed.network_bytes_per_second,
        "seconds_per_round": 9 * trials * mirror["seconds_per_file_looked_at"]
        + changed * mirror["seconds_per_file_copied"]
        + moved * rate * assumed.interval / assumed.network_bytes_per_second,
        "stored_bytes": trials * (big + 8 * assumed.candidate_bytes / 2 + assumed.history_bytes),
    }


def measure(
    trials: int,
    gpus: int,
    per_gpu: int,
    samplers: Sequence[str],
    sizes: list[int],
    probed: tuple[int, int] = (300, 40),  # trials that the mirror and the writer are timed with
) -> dict[str, Any]:
    """All of it: costs measured here, the fleet simulated, the load of each limit."""
    slots, assumed = gpus * per_gpu, Assumed()
    mirror, writer = mirror_costs(probed[0]), writer_costs(assumed, probed[1])
    machine = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    result: dict[str, Any] = {"trials": trials, "slots": slots, "assumed": asdict(assumed), "machine": machine}
    result |= {"mirror": mirror, "writer": writer}
    for sampler in samplers:
        costs = search_costs(sampler, sizes, probe=50)
        fleet = simulate(trials, slots, assumed, costs)
        load = storage_load(trials, slots, assumed, mirror, fleet.hours)
        limits = {
            "driver (search and reports)": fleet.driver_peak,
            "round of the mirror against its interval": load["seconds_per_round"] / assumed.interval,
            "writes of the object store": load["share_of_s3_writes"],
            "network of the driver's node": load["share_of_network"],
        }
        sent = load["bytes_per_second_without_a_shared_disk"]
        limits["network of the driver's node, nodes without its disk"] = sent / assumed.network_bytes_per_second
        records = load["records_per_second"] / writer["records_per_second"]
        limits["writer on the driver's node, nodes without its disk"] = records + sent / writer["bytes_per_second"]
        result[sampler] = {
            "measured": {str(size): values for size, values in costs.items()},
            "fleet": asdict(fleet),
            "storage": load,
            "journal_bytes": trials * grown(costs, "journal_bytes_per_trial", trials),
            "memory_bytes": trials * costs[max(costs)]["memory_bytes_per_trial"],
            "object_store_bytes": assumed.poses_bytes * gpus,
            "load_of_limits": limits,
            "first_limit": max(limits, key=lambda name: limits[name]),
            "reached_at_gpus": {name: round(gpus / share) for name, share in limits.items()},
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=512)
    parser.add_argument("--per-gpu", type=int, default=4)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 150, 400])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    result = measure(asked.trials, asked.gpus, asked.per_gpu, asked.samplers, asked.sizes)
    print(json.dumps(result, indent=2)) if asked.json else show(result, asked.gpus, asked.per_gpu)


def show(result: dict[str, Any], gpus: int, per_gpu: int) -> None:
    """Print what was found: as a table for each sampler, with what it was made of."""
    machine, assumed = result["machine"], result["assumed"]
    print(f"{result['trials']} trials on {gpus} GPUs, {per_gpu} at a time on each; {machine['cpus']} CPUs here, load")
    print(f"{machine['load']}; assumed: {assumed}")
    print(f"mirror: {result['mirror']}; writer: {result['writer']}")
    for sampler in [name for name in result if isinstance(result[name], dict) and "fleet" in result[name]]:
        found = result[sampler]
        fleet = found["fleet"]
        print(f"\n{sampler}: {fleet['hours']:.1f} h, GPUs train {100 * fleet['busy']:.0f} % of it")
        for size, values in found["measured"].items():
            print(f"  at {size} trials: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
        print("  storage: " + ", ".join(f"{key} {value:.3g}" for key, value in found["storage"].items()))
        print(
            f"  driver: {100 * fleet['driver']:.1f} % of its time, {found['memory_bytes'] / 1e6:.0f} MB for the search"
        )
        print(f"  journal {found['journal_bytes'] / 1e6:.0f} MB; longest wait of a GPU {fleet['longest_wait']:.2f} s")
        print("| limit | load | reached at GPUs |\n|---|---|---|")
        for name, load in sorted(found["load_of_limits"].items(), key=lambda item: -item[1]):
            print(f"| {name} | {100 * load:.0f} % | {found['reached_at_gpus'][name]:,} |")


if __name__ == "__main__":
    main()
