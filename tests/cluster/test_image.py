"""cluster/Dockerfile: read everywhere, built and run where a container engine is (``make recipes``)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
KNOWN = {
    *("FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"),
    *("ENTRYPOINT", "ARG", "LABEL", "EXPOSE", "HEALTHCHECK"),
}


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def findings(dockerfile: str) -> set[str]:
    """What hadolint would say, of the rules that matter here."""
    found = set()
    parsed = instructions(dockerfile)
    names = [name for name, _ in parsed]
    if set(names) - KNOWN:
        found.add("unknown instruction")
    if any(name == "FROM" and not re.search(r":[0-9][\w.-]*|@sha256:", value) for name, value in parsed):
        found.add("DL3006 untagged base image")
    users = [value for name, value in parsed if name == "USER"]
    if not users or users[-1] in ("root", "0"):
        found.add("DL3002 last user is root")
    for name, value in parsed:
        found |= _of_one(name, value)
    if names.count("CMD") > 1:
        found.add("DL4003 several CMD")
    return found


def _of_one(name: str, value: str) -> set[str]:
    bad = {
        "DL3000 relative WORKDIR": name == "WORKDIR" and not value.startswith("/"),
        "DL3004 sudo or cd": name == "RUN" and re.search(r"\bsudo\b|\bcd\b", value),
        "DL3025 shell form of CMD": name == "CMD" and not value.startswith("["),
        "a secret in an image": re.search(r"(TOKEN|SECRET|PASSWORD|KEY)\s*=", value),
    }
    if name == "RUN" and "apt-get install" in value:
        bad["DL3015 recommends"] = "--no-install-recommends" not in value
        bad["DL3014 apt asks"] = "--yes" not in value and " -y" not in value
        bad["DL3009 apt lists kept"] = "rm -rf /var/lib/apt/lists" not in value
    return {finding for finding, so in bad.items() if so}


def test_nothing_is_found() -> None:
    text = DOCKERFILE.read_text()
    assert findings(text) == set()
    for name, value in instructions(text):
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), f"COPY {source}"


def test_mistakes_are_found() -> None:
    bad = 'FROM python\nENV TOKEN=x\nRUN cd /x && apt-get install curl\nWORKDIR x\nCMD tips-dist\nCMD ["x"]\n'
    assert len(findings(bad)) == 10


def test_it_has_what_the_recipes_and_compiled_training_need() -> None:
    text = DOCKERFILE.read_text()
    (installed,) = (line for line in text.splitlines() if "apt-get install" in line)
    assert {"g++", "rsync", "wget", "openssh-client"} <= set(installed.split())
    extras = re.search(r"'\.\[([\w,]+)\]'", text)
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text()
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"no extra {extra}"


def engine() -> str | None:
    """A container engine that answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    return None


@pytest.mark.recipes
def test_it_is_built_and_runs() -> None:
    name = engine()
    if name is None:
        pytest.skip("no container engine answers (docker info, podman info)")
    tag = "tips-dist-recipes-test"
    subprocess.run([name, "build", "-f", str(DOCKERFILE), "-t", tag, str(ROOT)], check=True)
    compiled = "import torch; print(torch.compile(lambda x: x * 2)(torch.ones(3)).sum().item())"
    try:
        for words, expected in {
            ("tips-dist", "--version"): "0.1.0",
            ("id", "--user"): "1000",
            ("python", "-c", compiled): "6.0",
            ("python", "-c", "import boto3, googleapiclient; print('both')"): "both",
        }.items():
            done = subprocess.run([name, "run", "--rm", tag, *words], capture_output=True, text=True, check=True)
            assert expected in done.stdout
    finally:
        subprocess.run([name, "rmi", "--force", tag], capture_output=True)
