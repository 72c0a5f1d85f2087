"""How fast a student lifts: poses per second of ``Student.lift``, by threads.

    python benchmarks/lifting.py [--poses 400000] [--width 256] [--blocks 3]

The target is 200,000 poses a second on two cores for the default student. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch

from tips_dist.config import Model
from tips_dist.models import Lifter, initialise, weights_record
from tips_dist.models.student import Student
from tips_dist.skeleton import REPRESENTATIONS


def main() -> None:
    default = Model()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=int, default=400_000)
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--blocks", type=int, default=default.student_blocks)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    lifter = Lifter(REPRESENTATIONS["solo"], arguments.width, blocks=arguments.blocks).eval()
    initialise(lifter, [torch.Generator().manual_seed(0)])
    student = Student(lifter, weights_record(lifter, scale=2000.0, part_signs=[1]))
    poses = np.random.default_rng(0).normal(500, 100, (arguments.poses, 17, 2)).astype(np.float32)
    print(f"load of the machine before the start: {os.getloadavg()[0]:.2f}")
    for threads in sorted({1, 2, min(os.cpu_count() or 1, 16)}):
        torch.set_num_threads(threads)
        student.lift(poses[:20_000])
        seconds, busy = [], []
        for _ in range(arguments.repeat):
            start, cpu = time.perf_counter(), time.process_time()
            student.lift(poses)
            seconds.append(time.perf_counter() - start)
            busy.append(time.process_time() - cpu)
        print(
            f"{threads} threads: {len(poses) / min(seconds):,.0f} poses/s at best, "
            f"{len(poses) / float(np.median(seconds)):,.0f} in the median; "
            f"{len(poses) / min(busy):,.0f} a second of processor time"
        )


if __name__ == "__main__":
    main()
