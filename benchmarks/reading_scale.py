"""How long `status`, `summary` and `report` of a large study take, from a disk and from a slow address.

``python -m benchmarks.reading_scale [--trials 10000] [--delay 0.03] [--json]``

Makes a run of so many finished trials (a few are synthesised, the others are copies of those under ids of their own),
runs each command in a fresh process on the folder, then `status` on an S3 server on loopback that answers every request
after ``--delay`` seconds (tests/slow_s3.py), with an empty cache and with a full one. Prints seconds by the clock, of
CPU, and peak memory. The goal: `status` from the address with an empty cache in 20 s.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests import slow_s3
from tips_dist.runfolder import layout
from tips_dist.runfolder.example import build

SYNTHESISED = 20  # trials; the others are copies of them
BESIDE = (
    "alive.json",
    "depths.npy",
    "tensorboard/events",
    "checkpoint/a",
    "checkpoint/b",
    "candidates/a",
    "candidates/b",
)


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    gigabytes: float


def make(folder: Path, trials: int, seeds: int, evaluations: int) -> Path:
    """A run of so many finished trials with histories; what no command here reads is there as a name, nearly empty."""
    run = build(
        folder,
        representations=("solo",),
        trials=SYNTHESISED,
        seeds=seeds,
        steps=50 * evaluations,
        evaluated=False,
        selected=False,
    )
    texts = [layout.TRIAL.at(run, f"solo-{number:03d}").read_text() for number in range(SYNTHESISED)]
    record = json.loads(layout.STUDY.at(run).read_text())
    record["resolved"]["search"]["trials"] = trials
    layout.STUDY.at(run).write_text(json.dumps(record))
    for number in range(trials):
        identity, source = f"solo-{number:03d}", number % SYNTHESISED
        place = layout.trial_folder(run, identity)
        if number >= SYNTHESISED:
            place.mkdir()
            text = texts[source].replace(f'"solo-{source:03d}"', f'"{identity}"')
            layout.TRIAL.at(run, identity).write_text(text.replace(f'"number": {source}', f'"number": {number}'))
            os.link(layout.HISTORY.at(run, f"solo-{source:03d}"), layout.HISTORY.at(run, identity))
        for name in BESIDE:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(b"{}")
    return run


def timed(command: str, what: str, environment: dict[str, str], folder: Path) -> Cost:
    """Run a command of the program in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    script = (
        "import resource, sys; from tips_dist import cli\n"
        "try: cli.main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=open('memory', 'w'))"
    )
    words = [command, what, *(["--json"] if command != "report" else [])]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(round(seconds, 1), round(spent, 1), round(int((folder / "memory").read_text()) / 1e6, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds per request")
    parser.add_argument("--only", nargs="*", default=["status", "summary", "report", "address"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        run = make(here / "bucket" / "run", asked.trials, asked.seeds, asked.evaluations)
        for command in ("status", "summary", "report"):
            if command in asked.only:
                found[command] = timed(command, str(run), {}, here)
        if "address" in asked.only:
            with slow_s3.serving(here / "bucket", asked.delay) as environment:
                environment["XDG_CACHE_HOME"] = str(here / "cache")
                for cache in ("empty", "full"):
                    found[f"status from the address, cache {cache}"] = timed(
                        "status", "s3://bucket/run", environment, here
                    )
    if asked.json:
        print(json.dumps({command: asdict(cost) for command, cost in found.items()}, indent=2))
        return
    print(
        f"{asked.trials} trials of {asked.seeds} seeds, {asked.evaluations} evaluations; {asked.delay:g} s per request"
    )
    for command, cost in found.items():
        print(f"| {command} | {cost.seconds:.1f} s | {cost.cpu_seconds:.1f} s of CPU | {cost.gigabytes:.2f} GB |")


if __name__ == "__main__":
    main()
