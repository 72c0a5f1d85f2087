"""A study file, read: its YAML, the ``key=value`` overrides, and whether what it names is registered."""

from __future__ import annotations

from pathlib import Path

from tips_dist.addresses import without_secrets
from tips_dist.config import OneOf, Study
from tips_dist.files import UserError, read_text, shown
from tips_dist.registry import BUILT_IN, UnknownName, entry
from tips_dist.sections import set_dotted, validate
from tips_dist.study_yaml import load_yaml


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read a study file and apply ``key=value`` overrides.

    Raises:
        UserError: the file is missing, is not YAML, or a key or value is wrong; the message names file and key.
    """
    return parse_study(read_text(path, "study file"), shown(path), overrides)


def parse_study(text: str, where: str, overrides: list[str] | None = None) -> Study:
    """Parse the text of a study file (see :func:`load_study`)."""
    values = load_yaml(text, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: a study file is a mapping of keys to values, this is {type(values).__name__}")
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator:
            raise UserError(
                f"--set {shown(without_secrets(override))}: expected key=value, for example training.steps=100"
            )
        set_dotted(values, key.strip(), load_yaml(value, f"--set {shown(without_secrets(key))}"))
    study = validate(Study, values, where=where)
    check_names(study, where)
    return study


def named(study: Study) -> list[tuple[str, str, str]]:
    """What a study names of the registry: (key of the study file, kind, name), the representations first."""
    found = [("representations", "representations", name) for name in study.representations]
    found += [("model.lifter", "lifters", name) for name in _searched(study, "model.lifter", study.model.lifter)]
    extra = [key.removeprefix("losses.extra.") for key in study.space if key.startswith("losses.extra.")]
    found += [("losses.extra", "losses", name) for name in dict.fromkeys([*study.losses.extra, *extra])]
    found += [("training.signals", "signals", name) for name in study.training.signals]
    found += [("stopping.detectors", "detectors", name) for name in study.stopping.detectors]
    return [*found, ("search.sampler", "samplers", study.search.sampler)]


def check_names(study: Study, where: str) -> None:
    """Refuse a study that names what is not registered.

    Raises:
        UserError: the key, the name, the nearest known one and, if a plug-in may be missing, what to do.
    """
    for key, kind, name in named(study):
        if (key, name) != ("model.lifter", "packed"):  # not worth importing torch for
            try:
                found = entry(kind, name)
            except UnknownName as error:
                raise UserError(f"{where}: {key}: {error}") from None
            if key in _FURTHER and found.source is BUILT_IN:
                raise UserError(f"{where}: {key}: {name} is built in, {_FURTHER[key]}")


_FURTHER = {
    "losses.extra": "its weight has a key of its own in losses",
    "training.signals": "it is measured anyway",
    "stopping.detectors": "it judges every seed anyway",
}


def _searched(study: Study, key: str, value: str) -> list[str]:
    dimension = study.space.get(key)
    return [value] if not isinstance(dimension, OneOf) else [str(one) for one in dimension.choice]
