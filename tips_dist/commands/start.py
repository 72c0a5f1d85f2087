"""``init``: a study file to start from, and the commands that come next."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

from tips_dist.commands.output import say
from tips_dist.files import UserError, write_text

STUDY = "study.yaml"
DATA = "data/quickstart"  # as the study file has it


def init(folder: Path) -> None:
    """Write ``study.yaml`` and the schema that editors check it by, and print what to do next.

    Raises:
        UserError: there is a study file already, or the folder cannot be written.
    """
    from tips_dist import study_schema

    study = folder / STUDY
    if study.exists():
        raise UserError(f"{study}: exists already and is left as it is; name another folder, `tips-dist init DIR`")
    write_text(folder / study_schema.FILE, study_schema.schema_text())
    write_text(study, files(__package__).joinpath("starter.yaml").read_text(encoding="utf-8"))
    say(f"{study}: the quickstart study, every part explained; change what you like")
    say(f"{folder / study_schema.FILE}: editors that know YAML check and complete the study file by it")
    say("Next:")
    if folder != Path():
        say(f"  {shlex.join(['cd', str(folder)])}")
    say(f"  tips-dist data generate -o {DATA}")
    say(f"  tips-dist run {STUDY} --truth {DATA}.truth3d.h5")
