"""Documentation that cannot rot: its commands, links and paths exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tips_dist.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands(page: Path) -> list[list[str]]:
    """Every ``tips-dist …`` line of the page's code blocks, split like a shell would."""
    found = []
    for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("tips-dist "):
                found.append(
                    shlex.split(line.strip().replace("…", "X").replace("[", " ").replace("]", " "), comments=True)
                )
    return found


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


@pages
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pages
def test_every_make_target_and_study_exists(page: Path) -> None:
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, flags=re.MULTILINE):
        assert f"\n{target[0] or target[1]}:" in makefile
    for study in re.findall(r"\bstudies/[a-z_]+\.yaml", text):
        assert (ROOT / study).exists()


def test_the_layout_in_the_readme_is_the_real_one() -> None:
    layout = re.findall(r"## Layout\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    for line in layout.splitlines():
        folder = ""
        for word in line.split("   ")[0].split():
            folder = "tips_dist/" if word.startswith("tips_dist/") else folder
            path = word if word.startswith("tips_dist/") else folder + word
            assert (ROOT / path).exists(), path
    modules = {path.name for path in (ROOT / "tips_dist").iterdir() if path.name not in ("__pycache__", "py.typed")}
    unnamed = {name for name in modules if name.removesuffix(".py") not in layout}
    assert not unnamed - {"__init__.py"}, "modules that the layout does not name"
