"""What a study takes along to a cluster as a job: its package, its line of the shell, its id.

What travels: the study file and, where its data path is relative, the pose file, in the same places relative to each
other; and the values of the environment variables that the user named. Ray shows a job's own ``env_vars`` to whoever
may list jobs and writes them to its logs, so the values travel as a file of the package, which the driver reads and
deletes (:func:`arrive`); the package goes to the driver's node alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tips_dist.addresses import is_address
from tips_dist.config import Study
from tips_dist.files import UserError, check_file
from tips_dist.sections import digest

RUNS = "~/tips-dist-runs"  # on the cluster, where `submit` is not told another place
FORWARDED = ".forwarded.json"
PLUGINS = ".plugins"  # folder of the package
WORKS_IN = "tips-dist works in "  # begins the line of a job's log by which its run folder is found (job_folder.py)
MOST_BYTES = 256 * 2**20  # of a packed pose file; Ray takes packages of up to 512 MiB


@dataclass(frozen=True)
class Order:
    """What ``submit`` asks for, beside the study."""

    runs: str = RUNS  # folder of run folders on the node of the driver
    storage: str | None = None  # URL that the run folder is mirrored to
    poses: Path | None = None  # the study's pose file, named by the user because it lies outside the study's folder
    overrides: Sequence[str] = ()
    forward: Sequence[str] = ()  # names of environment variables
    package: bool = False  # send this tips_dist along instead of using the one installed there
    plugins: Sequence[Path] = ()  # files that travel along; packages must be installed there
    python: str | None = None  # of the cluster's environment
    again: bool = False  # start anew although the same study has succeeded
    cpus: float = 0.0  # that the driver occupies; 0 keeps it on the head node
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)  # that decide where the driver runs

    def named(self, study_file: Path) -> Path | None:
        """The pose file, if it was named by the user (``--poses`` or ``--set data.poses=``), not by the study file."""
        told = [value for key, _, value in (o.partition("=") for o in self.overrides) if key.strip() == "data.poses"]
        return self.poses or (study_file.parent / told[-1].strip() if told else None)


def submission_id(study: Study, study_file: Path, order: Order) -> str:
    """The job's id: the study's name and a digest of everything that decides what it computes and where it goes."""
    data = packed_data(study, study_file, order.named(study_file))
    content = hashlib.sha256(data.read_bytes()).hexdigest() if data else study.data.poses
    decides = [digest(study), content, order.runs, order.storage]
    foreign = [hashlib.sha256(plugin.read_bytes()).hexdigest() for plugin in order.plugins]
    return f"{study.name}-{digest(decides + ([foreign] if foreign else []))[:12]}"


def packed_data(study: Study, study_file: Path, named: Path | None = None) -> Path | None:
    """The pose file that travels with the study: one whose path is relative to the study's file. None if there is none.

    A study file may come from somebody else, and what is packed leaves this machine: so only what opens as a pose file
    is, and outside the study's own folder (also by ``..`` or a link) only what the user named as well.

    Args:
        study: as parsed.
        study_file: where from.
        named: what the user named as the study's pose file.

    Raises:
        UserError: the file is missing, no pose file, too large to pack, or lies outside and was not named.
    """
    told = study.data.poses
    if told is None or is_address(told) or Path(told).is_absolute():
        return None
    path, where = study_file.parent / told, f"{study_file}: data.poses: {told}"
    if not path.exists():
        raise UserError(f"{where}: no such file")
    check_file(path, "pose file")
    if named is not None and not (named.exists() and named.samefile(path)):
        raise UserError(f"--poses {named}: is not the file that the study names ({where})")
    if named is None and not path.resolve().is_relative_to(study_file.resolve().parent):
        raise UserError(
            f"{where}: lies outside of the study's folder and would leave this machine; if it is meant to, name it as "
            f"well: --poses {path}"
        )
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(
            f"{where} has {size / 2**20:.0f} MiB, more than the {MOST_BYTES // 2**20} MiB that travel with a job; put "
            "it on storage that the cluster reads and name that place: --set data.poses=/shared/NAME.pose2d.h5 or "
            "s3://BUCKET/NAME.pose2d.h5"
        )
    from tips_dist.data.store import read_poses

    read_poses(path)
    return path


def pack(study: Study, study_file: Path, folder: Path, named: Path | None = None) -> Path:
    """Copy a study file and its data (see :func:`packed_data`) into ``folder``, as they lie to each other.

    Returns:
        Where the study file lies, relative to ``folder``.
    """
    source = study_file.resolve()
    data = packed_data(study, study_file, named)
    files = {source: source}
    if data is not None:
        files[Path(os.path.normpath(source.parent / str(study.data.poses)))] = data
    root = Path(os.path.commonpath([path.parent for path in files]))
    for path, content in files.items():
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content, copy)
    return source.relative_to(root)


def entrypoint(inside: Path, order: Order, address: str) -> str:
    """The shell line that a job runs; nothing secret stands in it."""
    words = ["-m", "tips_dist.cli", "run", str(inside), "--job", "--address", "auto"]
    for override in order.overrides:
        words += ["--set", override]
    if order.storage:
        words += ["--storage", order.storage]
    for plugin in order.plugins:
        words += ["--plugin", f"{PLUGINS}/{plugin.name}"]
    runs = order.runs
    quoted = '"$HOME"' + shlex.quote(runs[1:]) if runs.startswith("~/") else shlex.quote(runs)
    line = f"{shlex.join(words)} --runs {quoted}"
    if order.python is None and urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1"):
        # A head on this very machine may run in this environment without it being on PATH. Behind a tunnel it is not
        # this machine at all, so look first.
        here = shlex.quote(sys.executable)
        return f"if [ -x {here} ]; then exec {here} {line}; else exec python {line}; fi"
    return f"exec {shlex.quote(order.python or 'python')} {line}"


def arrive() -> None:
    """What the driver does first inside a job: take over the forwarded variables and keep the package to itself.

    The file with the values is deleted, and Ray is not told to copy the package to the nodes of the trials.
    """
    path = Path(FORWARDED)
    if path.exists():
        variables = json.loads(path.read_text())["variables"]
        path.unlink()
        os.environ.update(variables)
    name = "RAY_JOB_CONFIG_JSON_ENV_VAR"
    if name in os.environ:
        config = json.loads(os.environ[name])
        config.get("runtime_env", {}).pop("working_dir", None)
        os.environ[name] = json.dumps(config)
