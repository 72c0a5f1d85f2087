"""A run folder's beginning and its record, ``study.json``: made whole or not at all, extended, compared, read back."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.config import Data, Study, digest, parse_study, validate
from tips_dist.files import UserError, read_json, storage_error, write_json, write_text
from tips_dist.storage import fetch_file, is_address
from tips_dist.study import space
from tips_dist.study.records import timestamp

if TYPE_CHECKING:
    from tips_dist.data.store import Poses

STUDY_FILE = "study.yaml"
RECORD_FILE = "study.json"
PACKAGES = ("tips-dist", "torch", "ray", "optuna", "numpy", "scipy", "h5py", "pydantic", "safetensors")


def create(study: Study, poses: Poses, study_path: Path, text: str, overrides: Sequence[str], runs: Path) -> Path:
    """Make the run folder, complete or not at all, and return it.

    Raises:
        UserError: it exists already, or nothing could be decided on the poses of the study's file.
        StorageError: it cannot be written.
    """
    from tips_dist.data.store import SPLITS, check_decidable, normalisation_scale

    if study.data.poses is not None:
        check_decidable(poses)
    run = runs.resolve() / f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = study.data.poses
    if path is not None and not is_address(path):
        path = str((study_path.parent / path).resolve())
    resolved = study.model_dump(mode="json")
    record = {
        "schema": 1,
        "name": study.name,
        "digest": digest(study),
        "resolved": resolved,
        "overrides": list(overrides),
        "extensions": [],
        "data": {
            "digest": poses.digest,
            "path": path,
            "scale": float(normalisation_scale(poses)),
            "counts": {split: len(poses.rows(split)) for split in SPLITS},
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git_revision(),
        "host": socket.gethostname(),
        "command": sys.argv,
        "created": timestamp(),
    }
    if run.exists():
        raise UserError(f"{run}: this run folder exists already; resume it, or start again in a second")
    half = run.with_name(f".{run.name}.{os.getpid()}.tmp")
    try:
        (half / "trials").mkdir(parents=True)
        write_text(half / STUDY_FILE, text)
        write_json(half / RECORD_FILE, record)
        half.rename(run)
    except OSError as error:
        raise storage_error(run, error) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return run


def read_record(run: Path) -> dict[str, Any]:
    """The run's ``study.json``.

    Raises:
        UserError: this is not a run folder, or its record is damaged.
    """
    if not (run / RECORD_FILE).exists():
        raise UserError(f"{run}: not a run folder (it has no {RECORD_FILE})")
    record = read_json(run / RECORD_FILE)
    if not isinstance(record, dict) or record.get("schema") != 1:
        raise UserError(f"{run / RECORD_FILE}: not a study record of schema 1")
    return record


def recorded_study(record: dict[str, Any]) -> Study:
    """The study of a record, its budget extended as often as it was."""
    study = validate(Study, record["resolved"], where=RECORD_FILE)
    added = sum(int(extension["trials"]) for extension in record.get("extensions", []))
    return study.model_copy(update={"search": study.search.model_copy(update={"trials": study.search.trials + added})})


def extend(run: Path, record: dict[str, Any], trials: int) -> dict[str, Any]:
    """Note in the record that every representation gets so many more trials, and return the record.

    Raises:
        UserError: ``trials`` is not positive, or the search space has no further points.
    """
    if trials < 1:
        raise UserError(f"--trials +{trials}: expected at least 1 more trial")
    longer = {**record, "extensions": [*record.get("extensions", []), {"trials": trials, "at": timestamp()}]}
    before, after = recorded_study(record), recorded_study(longer)
    if all(space.budget(before, name) == space.budget(after, name) for name in before.representations):
        raise UserError(f"--trials +{trials}: the search space of {run.name} has no further points to try")
    write_json(run / RECORD_FILE, longer)
    return longer


def check_unchanged(run: Path, record: dict[str, Any], study_path: Path | None = None) -> None:
    """Refuse to go on with a study that is not the recorded one.

    Raises:
        UserError: ``study.yaml`` in the run folder, or the file given, resolves to something else; with a diff.
    """
    was = validate(Study, record["resolved"], where=RECORD_FILE)
    for path in (run / STUDY_FILE, study_path):
        if path is None:
            continue
        try:
            text = path.read_text()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        now = parse_study(text, str(path), list(record.get("overrides", [])))
        if digest(now) != digest(was):
            difference = difflib.unified_diff(_lines(was), _lines(now), "recorded", str(path), n=1, lineterm="")
            text = "\n".join(line for line in difference if not line.startswith("@@"))
            raise UserError(f"{path}: differs from the study that {run.name} was started with; start a new run\n{text}")


def _lines(study: Study) -> list[str]:
    return json.dumps(study.model_dump(mode="json"), indent=1, sort_keys=True).splitlines()


def open_data(data: Data, base: Path) -> Poses:
    """Open a study's poses; a relative path is relative to ``base``, an address is read through this machine's cache.

    Raises:
        UserError: the file is missing or unusable, or its content is not what ``data.digest`` says.
    """
    from tips_dist.data.store import open_poses

    local = data
    if data.poses is not None and is_address(data.poses):
        local = data.model_copy(update={"poses": str(fetch_file(data.poses))})
    poses = open_poses(local, base)
    if data.digest is not None and not poses.digest.startswith(data.digest):
        raise UserError(
            f"data.poses: {data.poses}: its content has the digest {poses.digest[:12]}…, the study asks for "
            f"{data.digest[:12]}… (data.digest); bring the file that was meant"
        )
    return poses


def recorded_data(run: Path, study: Study, record: dict[str, Any]) -> Poses:
    """Open the poses that a run was started with.

    Raises:
        UserError: they are gone, or are others now.
    """
    path = record["data"]["path"]
    poses = open_data(study.data if path is None else study.data.model_copy(update={"poses": path}), run)
    if poses.digest != record["data"]["digest"]:
        raise UserError(f"{path or 'procedural data'}: the poses are not those that {run.name} was started with")
    return poses


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git_revision() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
