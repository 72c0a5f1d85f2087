"""Kills aimed at every kind of write: a small real study, killed within a write and gone on with, equals its twin.

A process of its own does a whole study (two trials trained for real, selection, student, evaluation) without Ray, and
kills itself at the n-th thing it does to a file of the run folder: opening one to write, replacing one, removing one,
or half-way through an append. Another goes on. What both left together must be what an undisturbed process leaves.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.chaos.stage import without_time
from tests.study.conftest import use_inline
from tips_dist.files import read_json
from tips_dist.runfolder import layout

STUDY = """
name: kills
data: {poses: poses.pose2d.h5}
representations: [torso_legs]
seeds: 2
model: {width: 8, discriminator_blocks: 1, student_blocks: 1}
training: {steps: 40, batch_size: 16, evaluate_every: 10, checkpoint_every: 1, validation_poses: 32, candidates: 1}
search: {trials: 2, sampler: random}
space: {training.generator_lr: {log_uniform: [1.0e-4, 1.0e-3]}}
distillation: {teachers: 2, steps: 20, batch_size: 16}
"""
_WRITING = os.O_WRONLY | os.O_RDWR


@dataclass
class Outcome:
    """What many kills did."""

    kills: int = 0
    lost: list[str] = field(default_factory=list)  # what differed from the twin, or ended badly
    left: list[str] = field(default_factory=list)  # temporary files that outlived the next command
    kinds: set[str] = field(default_factory=set)


def prepare(folder: Path) -> Path:
    """A study with its data and truth in a folder; returns the study file."""
    from tips_dist.data import procedural
    from tips_dist.data.writer import write_poses, write_truth

    folder.mkdir(parents=True)
    poses, joints = procedural.generate(1500, 0)[:2]
    write_poses(folder / "poses.pose2d.h5", poses)
    write_truth(folder / "poses.truth3d.h5", joints, poses.digest)
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def work(folder: Path) -> None:
    """Bring the study of a folder to its end, evaluation included, from wherever it is."""
    import pytest

    from tips_dist.evaluation.evaluate import evaluate_run
    from tips_dist.study import run as studies
    from tips_dist.study_file import load_study

    path = folder / "study.yaml"
    with pytest.MonkeyPatch.context() as patch:
        use_inline(patch)
        _train_for_real(patch)
        begun = sorted((folder / "runs").glob("kills-*"))
        if begun:
            run = studies.resume(begun[0])
        else:
            run = studies.start(load_study(path), study_path=path, text=path.read_text(), runs=folder / "runs")
    evaluate_run(run, folder / "poses.truth3d.h5")


def _train_for_real(patch: Any) -> None:
    """Trials one after another in this process, as in :func:`use_inline`, but by the real loop."""
    from tests.study.conftest import run_trials_inline
    from tips_dist.training.loop import train

    def run_trials(study: Any, run: Any, poses: Any, search: Any, unfinished: Any, progress: Any, _: Any) -> None:
        run_trials_inline(study, run, poses, search, unfinished, progress, train)

    patch.setattr("tips_dist.study.tuning.run_trials", run_trials)


def _preload() -> None:
    """Import here what every child needs."""

    import tips_dist.dependence
    import tips_dist.distillation
    import tips_dist.evaluation.evaluate
    import tips_dist.selection
    import tips_dist.study.search
    import tips_dist.study.trainable
    import tips_dist.study.tuning
    import tips_dist.training.loop  # noqa: F401


def kind(event: str, path: str) -> str:
    """What a write is aimed at, without numbers and trials."""
    name = re.sub(r"\.(\w+-)?\d+\.tmp$", " (unfinished)", Path(path).name.lstrip("."))
    name = re.sub(r"\.lock[0-9a-f-]+\.rename$", ".lock", name)
    return f"{event} {re.sub(r'[0-9]+', 'N', name)}"


def watch(folder: Path, at: int | None, told: Callable[[str], None] | None = None) -> None:
    """Kill this process at its ``at``-th write below ``folder``; tell the kind of each."""
    count = -1
    inside = str(folder / "runs")

    def hit(event: str, path: object) -> None:
        nonlocal count
        if not str(path).startswith(inside) or str(path).endswith("lock"):
            return
        count += 1
        if told is not None:
            told(kind(event, str(path)))
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, details: Sequence[Any]) -> None:
        if event == "open" and isinstance(details[0], str | os.PathLike) and details[2] & _WRITING:
            hit("open", details[0])
        elif event == "os.rename":
            hit("replace", details[1])
        elif event == "os.remove":
            hit("remove", details[0])

    from tips_dist.runfolder import history

    whole = vars(history)["append_text"]

    def halves(path: Path, text: str) -> None:
        whole(path, text[: len(text) // 2])
        hit("half of", path)
        whole(path, text[len(text) // 2 :])

    sys.addaudithook(hook)
    vars(history)["append_text"] = halves


def apart(action: Callable[[], None], output: Path) -> int:
    """Do something in a process of its own; returns its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            action()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def left_by(folder: Path) -> dict[str, Any]:
    """Everything that must not depend on kills."""
    (run,) = (folder / "runs").glob("kills-*")
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.name == layout.TRIAL.name:
            record = read_json(path)
            outcome = record["outcome"] and [{**seed, "reason": ""} for seed in record["outcome"]["seeds"]]
            found[name] = (record["state"], record["parameters"], outcome)
        elif path.name == layout.HISTORY.name:
            found[name] = sorted(without_time(line) for line in path.read_text().splitlines())
        elif path.name in (layout.SELECTION.name, layout.DEPENDENCE.name):
            found[name] = read_json(path)
        elif path.name == layout.EVALUATION.name:
            found[name] = {key: value for key, value in read_json(path).items() if key != "truth"}
        elif path.suffix == ".npy":
            found[name] = np.load(path).tobytes()
        elif path.suffix == ".safetensors" and "checkpoint" not in name:
            found[name] = path.read_bytes()
        elif path.is_file() and path.name != "lock" and path.parent.name != layout.ARTIFACTS.name.split("/")[0]:
            found[name] = None  # that it is there
    return found


def attack(scratch: Path, kills: int) -> Outcome:
    """Kill that often, spread over every kind of write, and compare each time."""
    scratch.mkdir(parents=True, exist_ok=True)
    outcome, fresh, calm, log = Outcome(), scratch / "fresh", scratch / "calm", scratch / "log"
    prepare(fresh)
    shutil.copytree(fresh, calm)
    _preload()
    notes = scratch / "events"

    def undisturbed() -> None:
        with notes.open("w") as stream:
            watch(calm, None, lambda text: print(text, file=stream, flush=True))
            work(calm)

    if apart(undisturbed, log):
        raise AssertionError(f"the undisturbed twin failed: {log.read_text()[-3000:]}")
    twin, events = left_by(calm), notes.read_text().splitlines()
    outcome.kinds = set(events)
    for at in chosen(events, kills):
        folder = scratch / f"kill{at}"
        shutil.copytree(fresh, folder)

        def killed(folder: Path = folder, at: int = at) -> None:
            watch(folder, at)
            work(folder)

        status = apart(killed, log)
        what = f"kill {at} ({events[at]})"
        if not os.WIFSIGNALED(status):
            outcome.lost.append(f"{what}: was not killed: {log.read_text()[-300:]}")
        outcome.kills += 1
        if apart(lambda folder=folder: work(folder), log):  # type: ignore[misc]
            outcome.lost.append(f"{what}: {log.read_text()[-600:]}")
        else:
            found = left_by(folder)
            outcome.lost += [f"{what}: {n}" for n in sorted(twin.keys() | found.keys()) if twin.get(n) != found.get(n)]
        outcome.left += [f"{what}: {path.name}" for path in folder.rglob("*.tmp")]
        shutil.rmtree(folder)
    return outcome


def chosen(events: Sequence[str], kills: int) -> list[int]:
    """Which events are hit: the first of each kind, then evenly spread ones."""
    first = {name: number for number, name in reversed(list(enumerate(events)))}
    spread = [int(number) for number in np.linspace(0, len(events) - 1, min(kills, len(events)))]
    return list(dict.fromkeys([*first.values(), *spread]))[:kills]
