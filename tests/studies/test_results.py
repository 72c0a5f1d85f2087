"""Every number of the published results leads to a file and a command: pages hold what ``answers.json`` holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from studies.answers import claims
from studies.answers.__main__ import SECTIONS
from studies.answers.tables import Table
from tips_dist.study_file import load_study

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results"
PAGE = (RESULTS / "README.md").read_text()
STORED = json.loads((RESULTS / "answers.json").read_text())["sections"]
TABLES = {name: table for one in STORED.values() for name, table in one["tables"].items()}
NUMBER = re.compile(r"\d+\.\d+")  # whole numbers count seeds, steps and widths


def prose(text: str) -> str:
    """A page without its tables, its code blocks and its links' targets."""
    text = re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    return re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)


def test_every_section_was_answered_or_is_said_not_to_be() -> None:
    (said,) = re.findall(r"^\*\*Not run yet\*\*: (.*)$", PAGE, re.MULTILINE) or [""]
    assert set(STORED) | set(re.findall(r"`(\w+)`", said)) == set(SECTIONS)
    assert not set(STORED) & set(re.findall(r"`(\w+)`", said))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_page_shows_the_tables_that_are_stored(name: str) -> None:
    assert f"<!-- {name} -->\n{Table.read(TABLES[name]).markdown()}\n<!-- /{name} -->" in PAGE


def test_the_front_page_shows_its_table() -> None:
    shown = claims.front(Table.read(TABLES["a"]), Table.read(TABLES["over"]))
    assert f"<!-- front -->\n{shown.markdown()}\n<!-- /front -->" in (ROOT / "README.md").read_text()


def test_the_words_quote_numbers_of_the_tables() -> None:
    shown = set(NUMBER.findall("\n".join(Table.read(table).markdown() for table in TABLES.values())))
    quoted = NUMBER.findall(prose(PAGE))
    assert len(quoted) > 20
    assert [number for number in quoted if number not in shown] == []


@pytest.mark.parametrize("section", sorted(STORED))
def test_runs_are_of_the_study_files_that_are_here(section: str) -> None:
    """What a run was asked is what the file still says: nobody changed a question after the answer."""
    for name, run in STORED[section]["runs"].items():
        study = load_study(ROOT / "studies" / f"{name}.yaml")
        assert run["asked"] == json.loads(study.model_dump_json(exclude={"data"})), name


def test_results_are_small() -> None:
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 5e6
