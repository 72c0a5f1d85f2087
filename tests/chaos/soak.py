"""Fifty random kills: ``python -m tests.chaos.soak [--kills 50] [--minutes 20] [--seed 0] [--log soak.jsonl]``.

One study after another is run by a process of its own while somebody kills, at random moments, a worker, the driver or
the head of its Ray. Whenever no driver is left, another one resumes. At the end of each study it is compared with the
undisturbed one: every trial, its history and the selection must be equal, no finished record may have been written
again, and Optuna may hold no trial twice. Prints a summary; exit code 1 if anything was lost or repeated.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos import stage
from tests.chaos.stage import Driver, alive, decisions, kill_quietly, prepare, run_folder
from tips_dist.files import read_json

QUICK = {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
WEIGHTS = {"worker": 6, "driver": 3, "head": 1}
TRIALS = 16  # of two representations, 60 steps each


class Soak:
    """The kills of one session and what became of the studies."""

    def __init__(self, seed: int, log: Path, deadline: float) -> None:
        self.random, self.log, self.deadline = random.Random(seed), log, deadline
        self.kills: Counter[str] = Counter()
        self.drivers = self.studies = self.lost = self.repeated = 0
        self.written: dict[Path, int] = {}

    def note(self, **event: Any) -> None:
        with self.log.open("a") as stream:
            stream.write(json.dumps({"time": round(time.time(), 2), **event}) + "\n")

    def study(self, folder: Path, calm: dict[str, Any], kills: int) -> None:
        """Work one study off, with up to so many kills; compare it with the undisturbed one."""
        prepare(folder, stage.STUDY.replace("trials: 4", f"trials: {TRIALS}").replace("failures: 10", "failures: 1000"))
        while True:
            driver = Driver(folder, step_seconds=0.03, environment=QUICK)
            self.drivers += 1
            while driver.process.poll() is None:
                self.watch(folder)
                enough = sum(self.kills.values()) >= kills or time.monotonic() > self.deadline
                if not enough and self.hit(driver, folder):
                    time.sleep(self.random.uniform(0.2, 3.0))
                time.sleep(0.2)
            code, error = driver.wait()
            self.note(event="driver ended", code=code, error=error.strip()[-300:])
            if code == 0:
                break
        self.watch(folder)
        self.compare(folder, calm)

    def hit(self, driver: Driver, folder: Path) -> bool:
        """Kill somebody, once trials run."""
        run = run_folder(folder)
        working = alive(run) if run is not None else []
        if not working or not any(Path(f"/proc/{beat['pid']}").exists() for beat in working):
            return False
        time.sleep(self.random.uniform(0.0, 1.5))
        kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "driver":
            hit = kill_quietly(driver.process.pid)
        elif kind == "head":
            hit = any(kill_quietly(pid) for pid in children(driver.process.pid, "gcs_server"))
        else:
            hit = kill_quietly(self.random.choice(working)["pid"])
        if hit:
            self.kills[kind] += 1
            self.note(event="kill", kind=kind, number=sum(self.kills.values()))
        return hit

    def watch(self, folder: Path) -> None:
        """A finished trial's record must never be written again."""
        for path in folder.glob("runs/chaos-*/trials/*/trial.json"):
            changed = path.stat().st_mtime_ns
            if path in self.written:
                self.repeated += changed != self.written[path]
            if read_json(path)["state"] == "finished":
                self.written[path] = changed

    def compare(self, folder: Path, calm: dict[str, Any]) -> None:
        run = run_folder(folder)
        assert run is not None
        found = decisions(run)
        different = [name for name in calm["trials"] if found["trials"].get(name) != calm["trials"][name]]
        more = found["trials"].keys() - calm["trials"].keys()
        states = stage.journal_states(run)
        self.studies += 1
        self.lost += len(different) + (found["selection"] != calm["selection"])
        self.repeated += len(more) + max(0, states["COMPLETE"] - 2 * TRIALS) + states["RUNNING"]
        self.note(event="study ended", different=different, more=sorted(more), journal=dict(states))


def children(pid: int, name: str) -> list[int]:
    """Process ids of the children of ``pid`` with a command name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            identity, rest = path.read_text().rsplit(")", 1)
        except OSError:
            continue
        if name in identity and int(rest.split()[1]) == pid:
            found.append(int(path.parent.name))
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("soak.jsonl"))
    asked = parser.parse_args()
    begun = time.monotonic()
    soak = Soak(asked.seed, asked.log, begun + 60 * asked.minutes - 120)
    with tempfile.TemporaryDirectory(prefix="tips-dist-soak-") as scratch:
        study = stage.STUDY.replace("trials: 4", f"trials: {TRIALS}")
        calm = stage.undisturbed(Path(scratch) / "calm", study)
        while sum(soak.kills.values()) < asked.kills and time.monotonic() < soak.deadline:
            soak.study(Path(scratch) / f"study-{soak.studies}", calm, asked.kills)
    kinds = ", ".join(f"{count} {kind}s" for kind, count in soak.kills.items())
    minutes = (time.monotonic() - begun) / 60
    print(
        f"{sum(soak.kills.values())} kills ({kinds}) over {soak.studies} studies of {2 * TRIALS} trials and "
        f"{soak.drivers} drivers in {minutes:.1f} min: {soak.lost} lost, {soak.repeated} repeated"
    )
    return int(bool(soak.lost or soak.repeated))


if __name__ == "__main__":
    sys.exit(main())
