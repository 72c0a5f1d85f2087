"""What mkdocs does besides reading Markdown: the reference from the code, and pages from elsewhere in the repository.

Pages link to files as they lie in the repository (``../studies/results/README.md``), so that they also work where
the repository is browsed. Markdown, study files and pictures that they link to become part of the site; a link to
anything else, source code say, becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TAKEN_IN = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "studies/*.yaml"),
    *(f"{folder}/**/README.md" for folder in ("studies", "cluster", "benchmarks")),
)
PICTURES = ("studies/**/*.png",)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")

sys.path.insert(0, str(ROOT))


def on_files(files: Any, config: Any) -> Any:
    """Add the generated reference and the repository's own pages."""
    from mkdocs.structure.files import File

    from docs import reference

    for name, text in reference.pages().items():
        files.append(File.generated(config, name, content=text))
    for pattern in (*TAKEN_IN, *PICTURES):
        for path in sorted(ROOT.glob(pattern)):
            name = site_path(path.relative_to(ROOT).as_posix())
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to files of the repository to where those are in the site."""
    own = repository_path(page.file.src_uri)

    def lead(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, mark, heading = target.partition("#")
        there = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(own), path)))
        if files.get_file_from_path(there) is None:
            exists = (ROOT / repository_path(there)).exists()
            return text if exists and not picture else match[0]  # a link to nothing is for mkdocs to complain of
        relative = posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or ".")
        return f"{picture}[{text}]({relative}{mark}{heading})"

    return LINK.sub(lead, markdown)


def site_path(name: str) -> str:
    """Where a file of the repository is in the site: ``docs/`` is its root."""
    return name.removeprefix("docs/") if name.startswith("docs/") else {"README.md": "index.md"}.get(name, name)


def repository_path(name: str) -> str:
    """The opposite of :func:`site_path`."""
    if (ROOT / "docs" / name).exists() or name.startswith("reference/"):
        return f"docs/{name}"
    return {"index.md": "README.md"}.get(name, name)
