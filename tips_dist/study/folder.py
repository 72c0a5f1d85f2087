"""A run folder's beginning and its record, ``study.json``: made whole or not at all, extended, compared, read back."""

from __future__ import annotations

import contextlib
import difflib
import json
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist import plugins
from tips_dist.config import Study
from tips_dist.files import UserError, half_folder, storage_error, write_text
from tips_dist.runfolder import StudyRecord, layout
from tips_dist.runfolder.lock import timestamp
from tips_dist.runfolder.records import DataRecord, Extension, PluginRecord
from tips_dist.sections import digest
from tips_dist.storage import is_address
from tips_dist.study import space
from tips_dist.study_file import check_names, load_study

if TYPE_CHECKING:
    from tips_dist.data.store import Poses

PACKAGES = ("tips-dist", "torch", "ray", "optuna", "numpy", "scipy", "h5py", "pydantic", "safetensors")


def create(study: Study, poses: Poses, study_path: Path, text: str, overrides: Sequence[str], runs: Path) -> Path:
    """Make the run folder, complete or not at all, and return it.

    Raises:
        UserError: it exists already, or nothing could be decided on the poses of the study's file.
        StorageError: it cannot be written.
    """
    from tips_dist.data.store import SPLITS, check_decidable, normalisation_scale

    check_names(study, str(study_path))
    if study.data.poses is not None:
        check_decidable(poses)
    run = runs.resolve() / f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = study.data.poses
    if path is not None and not is_address(path):
        path = str((study_path.parent / path).resolve())
    record = StudyRecord(
        name=study.name,
        digest=digest(study),
        resolved=study,
        overrides=list(overrides),
        data=DataRecord(
            digest=poses.digest,
            path=path,
            scale=float(normalisation_scale(poses)),
            counts={split: len(poses.rows(split)) for split in SPLITS},
        ),
        plugins=[_plugin_record(one) for one in plugins.used(study)],
        versions={"python": platform.python_version(), **_versions()},
        git=_git_revision(),
        host=socket.gethostname(),
        command=sys.argv,
        created=timestamp(),
        mark=secrets.token_hex(16),
    )
    if run.exists():
        raise UserError(f"{run}: this run folder exists already; resume it, or start again in a second")
    half = half_folder(run, study.name)
    try:
        (half / layout.TRIALS).mkdir(parents=True)
        write_text(layout.STUDY_TEXT.at(half), text)
        record.save(layout.STUDY.at(half))
        half.rename(run)
    except OSError as error:
        raise storage_error(run, error) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return run


def extend(run: Path, record: StudyRecord, trials: int, *, freed: bool = False) -> StudyRecord:
    """Note in the record that every representation gets so many more trials, and return the record.

    ``freed``: nobody asked for them, they use steps that stopping had saved.

    Raises:
        UserError: ``trials`` is not positive, or the search space has no further points.
    """
    if trials < 1:
        raise UserError(f"--trials +{trials}: expected at least 1 more trial")
    more = Extension(trials=trials, at=timestamp(), freed=freed)
    longer = record.model_copy(update={"extensions": [*record.extensions, more]})
    before, after = record.study, longer.study
    if all(space.budget(before, name) == space.budget(after, name) for name in before.representations):
        raise UserError(f"--trials +{trials}: the search space of {run.name} has no further points to try")
    return longer.save(layout.STUDY.at(run))


def check_unchanged(run: Path, record: StudyRecord, study_path: Path | None = None) -> None:
    """Refuse to go on with a study that is not the recorded one.

    Raises:
        UserError: ``study.yaml`` in the run folder, or the file given, resolves to something else; with a diff.
    """
    own = own_study(run, record)
    for path in (layout.STUDY_TEXT.at(run), study_path):
        if path is None:
            continue
        now = load_study(path, list(record.overrides))
        if not record.asks_for(now, own):
            difference = difflib.unified_diff(
                _lines(record.resolved), _lines(now), "recorded", str(path), n=1, lineterm=""
            )
            text = "\n".join(line for line in difference if not line.startswith("@@"))
            raise UserError(f"{path}: differs from the study that {run.name} was started with; start a new run\n{text}")


def check_plugins(run: Path, record: StudyRecord) -> list[plugins.Plugin]:
    """The plug-ins that a run was started with, loaded; refuse to go on without them, or with others.

    Raises:
        UserError: one is missing, or has another source; with both digests.
    """
    plugins.load_installed()
    here = {plugin.name: plugin for plugin in plugins.loaded()}
    for was in record.plugins:
        now = here.get(was.name)
        how = f"install {was.where} {was.version}" if was.installed else f"--plugin {was.where}"
        if now is None:
            raise UserError(f"{run}: plug-in {was.name} {was.version} of this run is not loaded; {how}")
        if now.digest != was.digest:
            raise UserError(
                f"{run}: plug-in {was.name} has another source than this run was started with: {was.digest[:12]} then, "
                f"{now.digest[:12]} now ({now.where}); bring the old one back, or start a new run"
            )
    names = {was.name for was in record.plugins}
    for plugin in plugins.used(record.study):
        if plugin.name not in names:
            raise UserError(f"{run}: was started without plug-in {plugin.name} ({plugin.where}); leave it out")
    return [here[name] for name in names]


def _plugin_record(plugin: plugins.Plugin) -> PluginRecord:
    where = plugin.where if plugin.text is None else str(Path(plugin.where).resolve())
    return PluginRecord(
        name=plugin.name, version=plugin.version, digest=plugin.digest, where=where, installed=plugin.text is None
    )


def own_study(run: Path, record: StudyRecord) -> Study:
    """What the run's own study file says, parsed by this version.

    Raises:
        UserError: it is missing or damaged.
    """
    return load_study(layout.STUDY_TEXT.at(run), list(record.overrides))


def _lines(study: Study) -> list[str]:
    return json.dumps(study.model_dump(mode="json"), indent=1, sort_keys=True).splitlines()


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
