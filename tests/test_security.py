"""docs/security.md says what tests prove: every listed sentence names one that exists."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("- ")]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[2:40])
def test_a_sentence_names_the_test_that_holds_it(line: str) -> None:
    found = re.search(r"`(tests/[\w/]+\.py)::(test_\w+)`$", line)
    assert found is not None, "no test behind this sentence"
    names = {
        node.name for node in ast.walk(ast.parse((ROOT / found[1]).read_text())) if isinstance(node, ast.FunctionDef)
    }
    assert found[2] in names


def test_no_install_without_hashes() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pinned = {line.partition("==")[0].replace("_", "-") for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^  "([\w.-]+)', text[text.index("dependencies = [") : text.index("[project.optional")], re.M)
    assert {name.lower() for name in wanted} - {"torch"} <= pinned  # see docs/security.md


def test_pods_are_not_root() -> None:
    for path in sorted((ROOT / "cluster" / "kuberay").glob("*.yaml")):
        text = path.read_text()
        assert text.count("image: ") == text.count("runAsNonRoot: true"), path
    assert "\nUSER ray\n" in (ROOT / "cluster" / "Dockerfile").read_text()


def test_a_cluster_of_our_own_gets_a_token_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    from tips_dist.study.cluster import prepare_environment

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    tokens = set()
    for _ in range(2):
        monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name[:4] != "RAY_"})
        prepare_environment(None)
        assert os.environ["RAY_AUTH_MODE"] == "token"
        tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert sorted(map(len, tokens)) == [64, 64]
