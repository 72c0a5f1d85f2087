"""How long and how much memory `summary` takes on a large study: python benchmarks/summary_scale.py

Makes 1,000 trials of 8 seeds and 200 evaluations (evaluated, histories included) in a temporary folder, runs the
command in a fresh process and prints seconds, seconds of CPU and peak memory. The goal: below 5 s and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tips_dist.runfolder.example import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="over two representations")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = build(
            Path(folder) / "run",
            trials=given.trials // 2,
            seeds=given.seeds,
            steps=given.evaluations * 50,
            histories=False,
        )
        began = time.perf_counter()
        command = [sys.executable, "-m", "tips_dist.cli", "summary", str(run), "--json"]
        out = subprocess.run(command, check=True, capture_output=True).stdout
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = sum((run / name).stat().st_size for name in ("evaluation.json", "curves.npz")) / 1e6
    runs = sum(group["runs"] for group in json.loads(out)["representations"])
    print(
        f"{runs} runs, evaluation.json and curves.npz {size:.0f} MB: "
        f"{seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of CPU), {used.ru_maxrss / 1e6:.2f} GB"
    )


if __name__ == "__main__":
    main()
