"""Where faults are staged: a study with a fake training loop, run by a process of its own that can be killed.

``python -m tests.chaos.stage start|resume FOLDER [--address A] [--train JSON] [--real]`` works on the study in FOLDER.
Exit codes are those of the command line: 0 done, 1 storage failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fakes import FakeTraining, fake_conclude, fake_poses
from tips_dist.files import StorageError, UnavailableError, UserError, read_json
from tips_dist.study_file import load_study

ROOT = Path(__file__).parents[2]
STUDY = """
name: chaos
data: {poses: fake.pose2d.h5}
representations: [solo, torso_legs]
seeds: 2
training: {steps: 60, evaluate_every: 5, checkpoint_every: 2}
search: {trials: 4, sampler: random}
space: {training.generator_lr: {log_uniform: [1.0e-5, 1.0e-2]}}
resources: {heartbeat_seconds: 5.0, max_failures: 10}
"""
REAL = """
name: chaos
data: {procedural: {poses: 600}}
representations: [solo, torso_legs]
seeds: 2
model: {width: 16, discriminator_blocks: 1, student_blocks: 1}
training: {steps: 200, batch_size: 32, evaluate_every: 10, checkpoint_every: 2, validation_poses: 64}
search: {trials: 2, sampler: random}
space: {training.generator_lr: {log_uniform: [1.0e-4, 1.0e-3]}}
distillation: {steps: 20}
"""


def prepare(folder: Path, study: str = STUDY) -> Path:
    """Write a study file (and its data) into ``folder``."""
    from tips_dist.data.writer import write_poses

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(study)
    write_poses(folder / "fake.pose2d.h5", fake_poses())
    return folder


STARTED: list[Driver] = []


def run_folder(folder: Path) -> Path | None:
    runs = [path for path in (folder / "runs").glob("chaos-*") if path.is_dir()]
    return runs[0] if runs else None


class Driver:
    """A process that runs or resumes the study in a folder."""

    def __init__(
        self,
        folder: Path,
        address: str | None = None,
        real: bool = False,
        step_seconds: float = 0.02,
        environment: dict[str, str] | None = None,
        hog: str | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        action = "resume" if run_folder(folder) else "start"
        command = [sys.executable, "-m", "tests.chaos.stage", action, str(folder), f"--step-seconds={step_seconds}"]
        command += ["--real"] if real else []
        command += [f"--address={address}"] if address else []
        command += [f"--hog={hog}"] if hog else []
        own = {k: v for k, v in os.environ.items() if address or not k.startswith("RAY_")}
        self.folder = folder
        self.process = subprocess.Popen(
            [*inside, *command], cwd=ROOT, env={**own, **(environment or {})}, stderr=subprocess.PIPE, text=True
        )
        STARTED.append(self)

    def wait(self, seconds: float = 600.0) -> tuple[int, str]:
        """Wait for the end: exit code and what stood on stderr."""
        _, error = self.process.communicate(timeout=seconds)
        return self.process.returncode, error

    def succeeds(self) -> None:
        """Wait for an end with nothing to say."""
        code, error = self.wait()
        assert (code, error) == (0, ""), f"exit code {code}: {error[-4000:]}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def until(self, condition: Callable[[Path], bool], seconds: float = 300.0) -> Path:
        """Wait until the run folder exists and fulfils a condition; returns it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run = run_folder(self.folder)
            if run is not None and condition(run):
                return run
            if self.process.poll() is not None:
                raise AssertionError(f"the driver ended with {self.process.returncode}: {self.wait()[1][-2000:]}")
            time.sleep(0.02)
        raise AssertionError("this did not happen in time")


def evaluations(run: Path) -> int:
    """Lines in all histories."""
    return sum(path.read_bytes().count(b"\n") for path in run.glob("trials/*/history.jsonl"))


def finished(run: Path) -> int:
    return states(run)["finished"]


def states(run: Path) -> Counter[str]:
    return Counter(str(read_json(path)["state"]) for path in run.glob("trials/*/trial.json"))


def alive(run: Path) -> list[dict[str, Any]]:
    """Who works on the trials that run now."""
    found = []
    for path in sorted(run.glob("trials/*/trial.json")):
        beat = path.with_name("alive.json")
        if read_json(path)["state"] == "running" and beat.exists():
            found.append(read_json(beat))
    return found


def kill_quietly(pid: int, number: int = signal.SIGKILL) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def decisions(run: Path) -> dict[str, Any]:
    """Everything that must not depend on faults: parameters, outcomes and histories of trials, the selection."""
    trials = {}
    for path in sorted(run.glob("trials/*/trial.json")):
        record = read_json(path)
        for seed in record["outcome"]["seeds"] if record["outcome"] else []:
            seed.pop("reason")
        outcome = record["outcome"] and record["outcome"]["seeds"]
        history = sorted(without_time(line) for line in path.with_name("history.jsonl").read_text().splitlines())
        trials[record["id"]] = (record["parameters"], record["state"], outcome, history)
    return {"trials": trials, "selection": read_json(run / "selection.json")}


def without_time(line: str) -> str:
    row = {key: value for key, value in json.loads(line).items() if not key.startswith("throughput/")}
    return json.dumps(row, sort_keys=True)


def journal_states(run: Path) -> Counter[str]:
    """How many Optuna trials are in which state."""
    import optuna

    from tips_dist.runfolder import RunFolder
    from tips_dist.study.search import open_storage, study_name

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = RunFolder(run).study.study
    storage = open_storage(study, run)
    names = [study_name(run, representation) for representation in study.representations]
    trials = [t for name in names for t in optuna.load_study(study_name=name, storage=storage).get_trials()]
    return Counter(trial.state.name for trial in trials)


def undisturbed(folder: Path, study: str = STUDY) -> dict[str, Any]:
    """The decisions of the same study when nobody disturbs it (in this process, without Ray)."""
    import pytest

    from tests.study.conftest import use_inline
    from tips_dist.study.run import start

    path = prepare(folder, study) / "study.yaml"
    with pytest.MonkeyPatch.context() as patch:
        use_inline(patch)
        run = start(
            load_study(path),
            study_path=path,
            text=path.read_text(),
            runs=folder / "runs",
            train=FakeTraining(),
            conclude=fake_conclude,
        )
    return decisions(run)


def main() -> int:
    from tips_dist.study.run import resume, start

    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["start", "resume"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address")
    parser.add_argument("--step-seconds", type=float, default=0.02)
    parser.add_argument("--hog", help="a trial whose worker takes all memory that it gets")
    parser.add_argument("--real", action="store_true")
    asked = parser.parse_args()
    options: dict[str, Any] = {"address": asked.address}
    if not asked.real:
        hog = {asked.hog: 3} if asked.hog else {}
        options.update(train=FakeTraining(step_seconds=asked.step_seconds, hog=hog), conclude=fake_conclude)
    try:
        path = asked.folder / "study.yaml"
        run = run_folder(asked.folder)
        if asked.action == "start":
            text = path.read_text()
            start(load_study(path), study_path=path, text=text, runs=asked.folder / "runs", **options)
        elif run is not None:
            resume(run, **options)
    except (StorageError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(interrupt, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
