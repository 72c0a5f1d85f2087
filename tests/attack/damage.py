"""Damage between a kill and a resume: every file of a run folder, damaged in every way; the study goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attack import kills
from tips_dist.files import UserError, read_json
from tips_dist.runfolder import layout

ENDED, UNDER_WAY = "trials/torso_legs-000", "trials/torso_legs-001"
EARLY = [
    "study.json",
    "study.yaml",
    "optuna.journal",
    *(f"{ENDED}/{name}" for name in ("trial.json", "history.jsonl", "depths.npy", "candidates", "checkpoint")),
    *(f"{UNDER_WAY}/{name}" for name in ("trial.json", "history.jsonl", "depths.npy", "candidates", "checkpoint")),
    f"{UNDER_WAY}/alive.json",
]
LATE = ["selection.json", "dependence.json", "student/student.json", "student/student.safetensors", "optuna.journal"]
MAY_REFUSE = ("study.json",)  # without it there is no telling what was studied; one line says so


def _garbage(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) > 2:
        return b"".join([*lines[: len(lines) // 2], b"\x00garbage \xff{\n", *lines[len(lines) // 2 :]])
    middle = len(content) // 2
    return content[:middle] + b"\x00garbage \xff{" + content[middle + 12 :]


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "missing": None,
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "garbage in the middle": _garbage,
    "replaced": lambda content: b'{"schema": 1}\n',
}


class Stage:
    """Two interrupted states of a study, and its undisturbed twin."""

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.scratch, self.log = scratch, scratch / "log"
        kills._preload()
        fresh, notes = kills.prepare(scratch / "calm").parent, scratch / "events"

        def noted() -> None:
            with notes.open("w") as stream:
                kills.watch(fresh, None, lambda text: print(text, file=stream, flush=True))
                kills.work(fresh)

        shutil.copytree(fresh, scratch / "early")
        shutil.copytree(fresh, scratch / "late")
        assert kills.apart(noted, self.log) == 0, self.log.read_text()
        events = notes.read_text().splitlines()
        self.twin = outcomes(fresh)
        checkpoints = [number for number, name in enumerate(events) if name == "replace step-N.safetensors"]
        self._killed("early", checkpoints[-2] + 1)  # the second trial has a checkpoint, and work to do
        self._killed("late", next(n for n, name in enumerate(events) if "evaluation.json" in name))

    def _killed(self, name: str, at: int) -> None:
        def work() -> None:
            kills.watch(self.scratch / name, at)
            kills.work(self.scratch / name)

        assert os.WTERMSIG(kills.apart(work, self.log)) == signal.SIGKILL

    def attack(self, state: str, file: str, damage: str) -> str | None:
        """Damage a file (in a folder: its last) and go on; returns what went wrong, if anything did."""
        folder = self.scratch / "damaged"
        shutil.copytree(self.scratch / state, folder)
        try:
            (run,) = (folder / "runs").glob("kills-*")
            path = run / file
            if path.is_dir():
                path = max(path.iterdir())
            change = DAMAGES[damage]
            if change is None:
                path.unlink()
            else:
                path.write_bytes(change(path.read_bytes()))
            refused = folder / "refused"

            def go_on() -> None:
                try:
                    kills.work(folder)
                except UserError as error:
                    refused.write_text(str(error))

            status = kills.apart(go_on, self.log)
            if status:
                return f"{file} {damage}: {self.log.read_text()[-700:]}"
            if refused.exists():
                said = refused.read_text()
                return None if file in MAY_REFUSE and "\n" not in said else f"{file} {damage}: refused: {said}"
            if not layout.STUDENT.at(run).exists() or not layout.EVALUATION.at(run).exists():
                return f"{file} {damage}: did not reach its end"
            found = outcomes(folder)
            return None if found == self.twin else f"{file} {damage}: {found} instead of {self.twin}"
        finally:
            shutil.rmtree(folder)

    def matrix(self) -> list[tuple[str, str, str]]:
        """Every state, file and damage."""
        files = [("early", file) for file in EARLY] + [("late", file) for file in LATE]
        return [(state, file, damage) for state, file in files for damage in DAMAGES]


def outcomes(folder: Path) -> dict[str, Any]:
    """How the trials of a study ended."""
    (run,) = (folder / "runs").glob("kills-*")
    found = {}
    for path in sorted(run.glob("trials/*/trial.json")):
        record = read_json(path)
        seeds = [{**seed, "reason": ""} for seed in record["outcome"]["seeds"]] if record["outcome"] else None
        found[path.parent.name] = (record["state"], record["parameters"], seeds)
    return found
