"""Documentation that cannot rot: its commands, links, headings and paths exist, and the site builds strictly."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from docs import hooks, reference
from tips_dist import study_schema
from tips_dist.cli import app
from tips_dist.config import Training

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "cluster", "benchmarks", "studies", "examples")
PAGES = sorted(
    {*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))},
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
GENERATED = reference.pages()


def commands(page: Path) -> list[list[str]]:
    """Every ``tips-dist …`` line of the page's code blocks, and in backquotes, split like a shell would."""
    found, text = [], page.read_text()
    lines = [line for block in re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL) for line in joined(block)]
    lines += re.findall(r"(?<!`)`(tips-dist [^`\n]*)`(?!`)", text)
    for line in lines:
        words = re.sub(r"^(\w+=\S+ )+", "", line.strip())
        if words.startswith("tips-dist "):
            plain = words.replace("…", "X").replace("[", " ").replace("]", " ")
            found.append(shlex.split(plain, comments=True))
    return found


def joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


@pages
def test_every_command_and_option_exists(page: Path) -> None:
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"{' '.join(words)}: no command '{rest[0]}'"
            command, rest = command.commands[rest[0]], rest[1:]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in rest:
            if word.startswith("-") and word != "-":
                assert word.split("=")[0] in options | {"--help"}, f"{' '.join(words)}: no option '{word}'"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub both make them."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return {
        re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
        for heading in re.findall(r"^#+ +(.+?)\s*$", text, flags=re.MULTILINE)
    }


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for path, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        target = (page.parent / path).resolve() if path else page
        name = target.relative_to(ROOT / "docs").as_posix() if target.is_relative_to(ROOT / "docs") else ""
        if name in GENERATED:  # a page that only the site has
            content = GENERATED[name]
        else:
            assert target.exists(), f"{page.name} links to {path}"
            content = target.read_text() if target.suffix == ".md" else ""
        if heading:
            assert heading in anchors(content), f"{page.name} links to {path}#{heading}, which has no such heading"


@pages
def test_every_make_target_and_study_exists(page: Path) -> None:
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, flags=re.MULTILINE):
        assert f"\n{target[0] or target[1]}:" in makefile
    for study in re.findall(r"\bstudies/[a-z_]+\.yaml", text):
        assert (ROOT / study).exists()


def test_the_readme_is_short() -> None:
    text = re.sub(r"<!--.*?-->|\]\([^)]*\)", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(re.findall(r"\w[\w'./=-]*", text)) <= 500


def test_architecture_names_every_module_and_no_other() -> None:
    text = (ROOT / "docs/architecture.md").read_text().partition("Beside `tips_dist/`")[0]
    named = set(re.findall(r"`(\w+(?:\.py|/))`", text))
    there = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "tips_dist").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert named == there - {"__init__.py"}


def test_the_reference_says_everything() -> None:
    cli, keys = GENERATED["reference/cli.md"], GENERATED["reference/configuration.md"]
    for command in ("init", "run", "data import", "jobs list", "scorecard"):
        assert f"## `tips-dist {command}`\n" in cli
    assert "--minimum-score" in cli
    assert "--job" not in cli.replace("jobs", "")  # hidden
    for key, _, name in study_schema.knobs():
        assert f"| `{name}` |" in keys, key
    assert "| `generator_lr` | number, above 0 | `0.001` |" in keys
    assert "## StudyRecord\n" in GENERATED["reference/records.md"]
    assert "| `plateaued` |" in GENERATED["reference/verdicts.md"]
    assert "| `loop.py` |" in GENERATED["reference/modules.md"]


@pytest.mark.parametrize("name", ["README.md", "docs/data.md", "studies/results/README.md", "CHANGELOG.md"])
def test_a_page_of_the_site_is_found_again_in_the_repository(name: str) -> None:
    assert hooks.repository_path(hooks.site_path(name)) == name


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(https?:[^\s\">]*)", page.read_text())
        assert not [url for url in fetched if "canonical" not in url], page.name


def test_the_page_of_the_recipe_names_the_defaults() -> None:
    """A default that a merge takes back must not go unseen."""
    page = (ROOT / "docs" / "recipe.md").read_text()
    rows = dict(re.findall(r"^\| (learning rate|batch size) \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE))
    training = Training()
    assert training.generator_lr == training.discriminator_lr == float(rows["learning rate"].split()[0])
    assert training.batch_size == int(rows["batch size"])
