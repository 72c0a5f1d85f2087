"""What the published install is made of: ``python tools/supply.py hashes|licences``.

``hashes`` asks pip which files the installed versions come from on this platform and writes them with their SHA-256 to
``requirements.lock``; ``licences`` writes what each of them says about its licence to ``docs/licences.md``.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK, LICENCES = ROOT / "requirements.lock", ROOT / "docs" / "licences.md"


def closure() -> list[str]:
    """What an install needs on this platform, by pyproject.toml and the installed packages' own metadata."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    waiting, found = [(text, "") for text in wanted], dict[tuple[str, str], str]()
    while waiting:
        text, extra = waiting.pop()
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        key = canonicalize_name(one.name)
        for part in ("", *one.extras):
            if (key, part) not in found:
                found[key, part] = metadata.version(key)
                waiting += [(more, part) for more in metadata.requires(key) or []]
    return sorted({f"{key}=={version}" for (key, _), version in found.items()})


def hashes() -> None:
    """Write ``requirements.lock``."""
    pins = closure()
    local = [pin for pin in pins if "+" in pin]  # builds that the package index does not have
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    answer = subprocess.run(
        [*command, "--no-deps", *(pin for pin in pins if pin not in local)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(answer.stdout[answer.stdout.index("{") :])["install"]
    lines = []
    for item in found:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise SystemExit(f"{name}: the index tells no SHA-256")
        lines.append(f"{canonicalize_name(name)}=={version} --hash=sha256:{digest}")
    where = f"{platform.system()} {platform.machine()}, Python {sys.version_info.major}.{sys.version_info.minor}"
    lines += [f"# {pin}: a build of this machine; `make hashes` where the published one is installed" for pin in local]
    head = f"# Made by `make hashes` for {where}; see docs/security.md\n"
    LOCK.write_text(head + "\n".join(sorted(lines)) + "\n")
    print(f"{LOCK.name}: {len(lines)} files")


def licences() -> None:
    """Write ``docs/licences.md`` from what ``requirements.lock`` names and is installed here."""
    names = re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)
    rows = []
    for name in names:
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            rows.append(f"| {name} | not installed here | |")
            continue
        classes = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line[:7] == "License"]
        told = {key: about[key] for key in ("License", "License-Expression") if key in about}
        text = (told.get("License") or "not said").strip().partition("\n")[0]
        said = told.get("License-Expression") or ", ".join(classes) or text
        rows.append(f"| {name} | {about['Version']} | {said.replace('|', '/')[:120]} |")
    head = (
        "# Licences of what an install brings\n\nMade by `make licences` from each package's own metadata.\n\n"
        "| package | version | licence |\n|---|---|---|\n"
    )
    LICENCES.write_text(head + "\n".join(rows) + "\n")
    print(f"{LICENCES.relative_to(ROOT)}: {len(rows)} packages")


if __name__ == "__main__":
    {"hashes": hashes, "licences": licences}[sys.argv[1]]()
