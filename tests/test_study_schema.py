"""The schema of study files says what the configuration says, and every knob has a meaning."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tips_dist import study_schema
from tips_dist.config import Study
from tips_dist.study_yaml import load_yaml

STUDIES = Path(__file__).parents[1] / "studies"
FILES = sorted(STUDIES.glob("*.yaml"))
LEAST: dict[str, Any] = {"name": "a", "representations": ["solo"]}


def test_the_committed_schema_is_current() -> None:
    written = (STUDIES / study_schema.FILE).read_text()
    assert written == study_schema.schema_text(), "python -m tips_dist.study_schema > studies/study.schema.json"


def test_every_knob_has_a_meaning_a_type_and_a_default() -> None:
    for key, owner, name in study_schema.knobs():
        assert study_schema.meanings()[owner.__name__].get(name), f"{key}: no comment ends its line in config.py"
        assert study_schema.type_of(owner, name)
    keys = {key for key, _, _ in study_schema.knobs()}
    assert {"name", "training.steps", "stopping.policy.flat", "data.procedural.seed"} <= keys


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_study_files_name_the_schema_and_fit_it(file: Path) -> None:
    assert file.read_text().startswith(f"# yaml-language-server: $schema={study_schema.FILE}\n")
    jsonschema.validate(load_yaml(file.read_text(), file.name), study_schema.schema())


@pytest.mark.parametrize(
    "change",
    [
        {"trainig": {}},
        {"training": {"stepz": 10}},
        {"training": {"generator_lr": -1.0}},
        {"seeds": 0},
        {"space": {"training.generator_lr": {"gaussian": [0, 1]}}},
        {"representations": []},
    ],
)
def test_what_the_program_refuses_the_schema_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Study.model_validate({**LEAST, **change})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**LEAST, **change}, study_schema.schema())


def test_a_search_space_is_checked_and_explained() -> None:
    found = study_schema.schema()
    jsonschema.validate({**LEAST, "space": {"losses.cycle_3d": {"uniform": [0.0, 5.0]}}}, found)
    dimension = found["properties"]["space"]["properties"]["losses.cycle_3d"]
    assert dimension["description"] == study_schema.meanings()["Losses"]["cycle_3d"]
    assert "resources.cpus" not in found["properties"]["space"]["properties"]


def test_it_is_plain_yaml_for_an_editor() -> None:
    """Editors read YAML by other rules than ours: what they see of the studies must be the same."""
    for file in FILES:
        ours, theirs = load_yaml(file.read_text(), file.name), yaml.safe_load(file.read_text())
        assert ours.keys() == theirs.keys()
