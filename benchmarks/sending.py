"""What it costs a trial to send its records from a node without the driver's disk: ``python -m benchmarks.sending``.

One trial of the real loop works in a scratch folder and sends through Ray to an office in a process of its own, on this
machine: the network is not measured. Told are, per evaluation, the seconds that training waited for the office, the
processor's time of the courier in the background, and bytes; their share of the training is to stay below 2 %.

Then what the office writes is measured without Ray, and reckoned up for the fleet that ``benchmarks/scale.py`` assumes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
import unittest.mock
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import Assumed
from tips_dist.config import Resources, Study
from tips_dist.runfolder import Trial, layout
from tips_dist.runfolder.poses import study_poses
from tips_dist.study.cluster import connected
from tips_dist.study.courier import at_hand
from tips_dist.study.desk import AT_ONCE, RayDesk, open_office
from tips_dist.study.monitored import monitored_train
from tips_dist.study.office import PARCEL_BYTES, Office, Parcel
from tips_dist.study.trainable import Report, run_trial
from tips_dist.study_file import parse_study

STUDY = """
name: sending
data: {{procedural: {{poses: 20000}}}}
representations: [torso_legs]
seeds: {seeds}
model: {{width: {width}}}
training: {{steps: {steps}, evaluate_every: {every}}}
stopping: {{divergence: "off", plateau: "off"}}
"""


class Measured(RayDesk):
    """Counts what goes through it: by the loop's thread, which waits for it, and by the courier's."""

    waited, background, bytes = 0.0, 0.0, 0

    def take(self, session: str, parcels: Sequence[Parcel]) -> None:
        begun = time.perf_counter()
        super().take(session, parcels)
        self.bytes += sum(len(parcel.content or b"") for parcel in parcels)
        if threading.current_thread().name == "courier":
            self.background = time.thread_time()
        else:
            self.waited += time.perf_counter() - begun


def one_trial(study: Study) -> Trial:
    """The study's only trial."""
    return Trial(
        id="torso_legs-000",
        representation="torso_legs",
        number=0,
        parameters={},
        configuration=study.configuration("torso_legs", {}),
        seeds=list(range(study.seeds)),
    )


def measure(steps: int, every: int, seeds: int, width: int, threads: int) -> dict[str, Any]:
    """Train one trial of a study and say what its sending took."""
    study = parse_study(STUDY.format(steps=steps, every=every, seeds=seeds, width=width), "sending.yaml")
    poses, last = study_poses(study.data, Path()), 0.0

    def tell(report: Report) -> None:
        nonlocal last
        last = time.perf_counter()

    with tempfile.TemporaryDirectory(prefix="td-") as name, connected(Resources(), None):
        run = Path(name)
        trial = one_trial(study).write(run)
        with unittest.mock.patch("tips_dist.study.desk.at_home", return_value=False):
            real = open_office(run)
        assert real is not None
        with real:
            desk = Measured(real._clerk, run, "another disk's")
            with at_hand(run, [trial.id], desk, tell) as (folder, told):
                begun = time.perf_counter()
                run_trial(folder, trial.id, poses, monitored_train, told, threads=threads)
                seconds, waited = time.perf_counter() - begun, desk.waited
                ended = time.perf_counter()
            delivered = time.perf_counter() - ended
        size = sum(path.stat().st_size for path in layout.trial_folder(run, trial.id).rglob("*") if path.is_file())
    evaluations = steps // every
    return {
        "seconds_per_evaluation": round(seconds / evaluations, 3),
        "waited_ms_per_evaluation": round(1e3 * waited / evaluations, 2),
        "background_cpu_ms_per_evaluation": round(1e3 * desk.background / evaluations, 2),
        "share_of_training": round((waited + desk.background) / seconds, 4),
        "seconds_to_deliver_the_rest": round(delivered, 2),
        "megabytes_sent": round(desk.bytes / 1e6, 1),
        "megabytes_in_the_folder": round(size / 1e6, 1),
    }


def office_costs(evaluations: int, megabytes: int) -> dict[str, float]:
    """Seconds that the office takes to write what one evaluation sends at once, and a megabyte of what comes later."""
    study = parse_study(STUDY.format(steps=100, every=50, seeds=1, width=16), "sending.yaml")
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        trial = one_trial(study).write(run)
        layout.DRIVER.at(run).write_text("mark")
        clerk, row, alive = Office(run, "mark"), bytes(12_500), bytes(400)
        clerk.open("worker", [trial.id], direct=False)
        history, sign = (file.at(Path(), trial.id).as_posix() for file in (layout.HISTORY, layout.ALIVE))
        clerk.take("worker", [Parcel(history, b"", size=0)])
        begun = time.perf_counter()
        for number in range(evaluations):
            parcels = [Parcel(history, row, number * len(row)), Parcel(sign, alive, size=len(alive))]
            clerk.take("worker", parcels)
        small = time.perf_counter() - begun
        large, size = bytes(PARCEL_BYTES), megabytes * 1_000_000
        begun = time.perf_counter()
        for offset in range(0, size, PARCEL_BYTES):
            part = large[: min(PARCEL_BYTES, size - offset)]
            clerk.take("worker", [Parcel(f"trials/{trial.id}/checkpoint/a", part, offset, size)])
        later = time.perf_counter() - begun
    return {"office_seconds_per_evaluation": small / evaluations, "office_seconds_per_megabyte": later / megabytes}


def fleet(slots: int, assumed: Assumed, costs: dict[str, float]) -> dict[str, float]:
    """What workers without the driver's disk ask of the driver's node, ``slots`` of them together."""
    whole = assumed.checkpoints * assumed.checkpoint_bytes / 2 + 8 * assumed.candidate_bytes / 2
    whole += 2 * assumed.depths_bytes + assumed.history_bytes + assumed.tensorboard_bytes
    moved = slots / assumed.trial_seconds * whole
    evaluations = slots * assumed.reports / assumed.trial_seconds
    one = evaluations * costs["office_seconds_per_evaluation"] + moved / 1e6 * costs["office_seconds_per_megabyte"]
    return {
        "evaluations_per_second": round(evaluations, 1),
        "megabytes_per_second": round(moved / 1e6, 1),
        "share_of_network": round(moved / assumed.network_bytes_per_second, 3),
        "writers_busy": round(one, 2),
        "megabytes_under_way": 2 * AT_ONCE * PARCEL_BYTES / 1e6,  # as objects and as bytes
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--evaluate-every", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fleet", type=int, default=2048, help="trials at a time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(asked.steps, asked.evaluate_every, asked.seeds, asked.width, asked.threads)
    found |= {"load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1)}
    costs = office_costs(300, 200)
    found |= {name: float(f"{value:.3g}") for name, value in costs.items()}
    found["fleet"] = fleet(asked.fleet, Assumed(), costs)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{asked.seeds} seeds of width {asked.width}, an evaluation every {asked.evaluate_every} steps:")
    for name, value in found.items():
        if name != "fleet":
            print(f"  {name.replace('_', ' ')}: {value:g}")
    print(f"{asked.fleet} such trials at a time, as benchmarks/scale.py assumes them, ask of the driver's node:")
    for name, value in found["fleet"].items():
        print(f"  {name.replace('_', ' ')}: {value:g}")


if __name__ == "__main__":
    main()
