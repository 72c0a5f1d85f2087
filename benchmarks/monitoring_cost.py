"""What TensorBoard files cost: python benchmarks/monitoring_cost.py

Writes 1,000 evaluations of 8 seeds and 16 signals, pictures included, and prints milliseconds of processor time per
evaluation (writer threads included) and bytes, scalars and pictures apart.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import numpy as np

from tips_dist.monitoring import Monitor
from tips_dist.runfolder.example import SIGNALS

EVALUATIONS, SEEDS = 1000, 8


def main() -> None:
    poses = np.random.default_rng(0).normal(0, 0.1, (512, 17, 2))
    depths = np.random.default_rng(0).normal(0, 0.3, (SEEDS, 512, 17))
    for pictures in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            monitor = Monitor(Path(folder))
            monitor.evaluation(0, [{"seed": 0, "risk": 1.0}])  # imports are not counted
            monitor.poses(0, [0], poses, depths[:1])
            before = time.process_time()
            for step in range(1, EVALUATIONS + 1):
                signals = [{name: random.random() for name in SIGNALS} for _ in range(SEEDS)]
                rows = [{"seed": seed, "risk": random.random(), **values} for seed, values in enumerate(signals)]
                monitor.evaluation(step, rows)
                if pictures:
                    monitor.poses(step, list(range(SEEDS)), poses, depths)
            monitor.close()
            cost = (time.process_time() - before) / EVALUATIONS
            size = sum(file.stat().st_size for file in Path(folder).rglob("events.*"))
        what = "with pictures" if pictures else "scalars alone"
        print(f"{what}: {1000 * cost:.1f} ms per evaluation, {size / 1e6:.1f} MB per {EVALUATIONS} evaluations")


if __name__ == "__main__":
    main()
