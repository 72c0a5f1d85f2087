"""Past this machine, by simulation: a study of 10,000 trials on 512 GPUs; which limit comes first?

``python -m benchmarks.scale [--trials 10000] [--gpus 512] [--per-gpu 4] [--json]``

What one trial costs the driver is *measured here* with the code that a study runs: proposals of the search and records
on disk (per trial, at several sizes of the journal, so that growth shows), and copies by the mirror's own rounds to
a local address that counts requests. The fleet is then simulated event by event, with training times and file sizes
that are *assumed* and printed. Not measured: Ray's own scheduling at 2,048 actors (Ray's published envelope has tens of
thousands), the network, real object stores (their documented limit of 3,500 writes a second and prefix is used).
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tips_dist.mirror import HEAVY_INTERVALS
from tips_dist.study_file import parse_study

S3_WRITES = 3500.0  # per second and prefix, as documented
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
    report_seconds: float = 0.002  # that the driver spends on one report (1 ms measured for tune.report, and our view)
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
    """Seconds to propose and to tell one trial, and journal bytes per trial, with ``size`` trials behind it."""
    import optuna

    from tips_dist.study.search import TrialSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = parse_study(STUDY.replace("SAMPLER", sampler), "scale.yaml")
    found = {}
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        (run / "trials").mkdir()
        search, done = TrialSearch(study, run), 0
        for size in sizes:
            clock = {"propose": 0.0, "tell": 0.0}
            while done < size:
                last = size - done <= probe
                begun = time.perf_counter()
                trial = search.propose()
                assert trial is not None
                proposed = time.perf_counter()
                seeds = [{"seed": 0, "best_risk": random.random(), "verdict": "healthy", "stopped_step": 6000}]
                seeds[0] |= {"reason": "", "onset": None, "best_step": 50}
                outcome = {"training_seconds": 1.0, "parameters": {"lifter": 1, "discriminator": 1}, "seeds": seeds}
                ended = trial.now(state="finished", outcome=outcome).write(run)
                written = time.perf_counter()
                search.tell(ended)
                if last:
                    clock["propose"] += (proposed - begun) / min(probe, size)
                    clock["tell"] += (time.perf_counter() - written) / min(probe, size)
                done += 1
            found[size] = {**clock, "journal_bytes_per_trial": (run / "optuna.journal").stat().st_size / done}
    return found


def mirror_costs(trials: int) -> dict[str, float]:
    """Seconds per file looked at and per small file copied in a round of the mirror."""
    from tips_dist.mirror import Mirror

    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "runs" / "scale"
        files = 0
        for number in range(trials):
            folder = run / "trials" / f"solo-{number:05d}"
            for file in ("trial.json", "history.jsonl", "depths.npy", "checkpoint/a", "checkpoint/b", "tensorboard/x"):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(b"x" * 2000)
                files += 1
        mirror = Mirror(run, f"file://{name}/mirror")
        begun = time.perf_counter()
        copied = mirror.round()
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        mirror.round()
        idle = time.perf_counter() - begun
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
    driver_peak: float  # and in the busiest tenth
    longest_wait: float  # seconds that a slot waited for its next trial


def simulate(trials: int, slots: int, assumed: Assumed, costs: dict[int, dict[str, float]]) -> Fleet:
    """One driver serves ``slots`` places: propose, take reports, tell. Work on the driver is one queue."""
    draw = random.Random(0)
    free: list[tuple[float, int]] = [(0.0, slot) for slot in range(slots)]
    heapq.heapify(free)
    driver_free, training, work, waited, done = 0.0, 0.0, [], 0.0, 0
    end = 0.0
    while done < trials:
        now, slot = heapq.heappop(free)
        service = grown(costs, "propose", done) + (grown(costs, "tell", done) if now else 0.0)
        # between two ends of trials the driver also takes the reports of all running ones
        reports = slots * assumed.reports / assumed.trial_seconds * assumed.report_seconds
        service /= max(1e-6, 1.0 - min(reports, 0.999))
        start = max(now, driver_free)
        driver_free = start + service
        waited = max(waited, driver_free - now) if now else waited
        work.append((start, service))
        seconds = assumed.trial_seconds * draw.lognormvariate(-(assumed.spread**2) / 2, assumed.spread)
        training += seconds
        end = max(end, driver_free + seconds)
        heapq.heappush(free, (driver_free + seconds, slot))
        done += 1
    tenth = max(end / 10, 1e-9)
    shares = [sum(cost for at, cost in work if k * tenth <= at < (k + 1) * tenth) / tenth for k in range(10)]
    return Fleet(end / 3600, training / (slots * end), statistics.mean(shares), max(shares), waited)


def storage_load(trials: int, slots: int, assumed: Assumed, mirror: dict[str, float], hours: float) -> dict[str, float]:
    """What the mirror asks of the object store and of the driver's network."""
    rounds = min(assumed.trial_seconds / assumed.interval, assumed.reports)
    small = 3 * rounds  # history, sign of life, TensorBoard: changed in every round
    large = min(assumed.checkpoints, rounds / HEAVY_INTERVALS)
    writes_per_trial = small + 4 * large + 16
    big = assumed.checkpoint_bytes / 2 + assumed.depths_bytes  # one new checkpoint, and all depths again
    moved = large * big + rounds * (assumed.history_bytes + assumed.tensorboard_bytes) / 2 + 8 * assumed.candidate_bytes
    rate = slots / assumed.trial_seconds
    changed = slots * (3 + 4 * large / rounds)
    return {
        "writes_per_second": writes_per_trial * rate,
        "share_of_s3_writes": writes_per_trial * rate / S3_WRITES,
        "write_dollars": writes_per_trial * trials * S3_PRICE,
        "bytes_per_second": moved * rate,
        "share_of_network": moved * rate / assumed.network_bytes_per_second,
        "seconds_per_round": 9 * trials * mirror["seconds_per_file_looked_at"]
        + changed * mirror["seconds_per_file_copied"]
        + moved * rate * assumed.interval / assumed.network_bytes_per_second,
        "stored_bytes": trials * (big + 8 * assumed.candidate_bytes / 2 + assumed.history_bytes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=512)
    parser.add_argument("--per-gpu", type=int, default=4)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 150, 400])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    slots, assumed = asked.gpus * asked.per_gpu, Assumed()
    mirror = mirror_costs(300)
    result: dict[str, Any] = {"trials": asked.trials, "slots": slots, "assumed": asdict(assumed), "mirror": mirror}
    for sampler in asked.samplers:
        costs = search_costs(sampler, asked.sizes, probe=50)
        fleet = simulate(asked.trials, slots, assumed, costs)
        load = storage_load(asked.trials, slots, assumed, mirror, fleet.hours)
        limits = {
            "driver (search and reports)": fleet.driver_peak,
            "round of the mirror against its interval": load["seconds_per_round"] / assumed.interval,
            "writes of the object store": load["share_of_s3_writes"],
            "network of the driver's node": load["share_of_network"],
        }
        result[sampler] = {
            "measured": {str(size): values for size, values in costs.items()},
            "fleet": asdict(fleet),
            "storage": load,
            "journal_bytes": asked.trials * grown(costs, "journal_bytes_per_trial", asked.trials),
            "object_store_bytes": assumed.poses_bytes * asked.gpus,
            "load_of_limits": limits,
            "first_limit": max(limits, key=lambda name: limits[name]),
        }
    if asked.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{asked.trials} trials on {asked.gpus} GPUs, {asked.per_gpu} at a time on each; assumed: {asdict(assumed)}")
    for sampler in asked.samplers:
        found = result[sampler]
        print(f"\n{sampler}: {found['fleet']['hours']:.1f} h, GPUs train {100 * found['fleet']['busy']:.0f} % of it")
        for size, values in found["measured"].items():
            print(f"  at {size} trials: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
        print("  storage: " + ", ".join(f"{key} {value:.3g}" for key, value in found["storage"].items()))
        print(f"  journal {found['journal_bytes'] / 1e6:.1f} MB")
        for name, load in sorted(found["load_of_limits"].items(), key=lambda item: -item[1]):
            print(f"  {100 * load:6.1f} % of its limit: {name}")


if __name__ == "__main__":
    main()
