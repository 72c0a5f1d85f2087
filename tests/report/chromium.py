"""Headless Chromium for tests: opens a page and tells what it drew, said and fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
]


@dataclass(frozen=True)
class Visit:
    """A page after its scripts have run."""

    dom: str
    console: list[str]  # what the page's scripts said
    requests: list[str]  # addresses fetched over a network


def visit(url: str, width: int = 1280, height: int = 2000) -> Visit:
    """Open ``url`` in a fresh browser profile."""
    assert BINARY is not None
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        profile = [f"--user-data-dir={folder}/profile", f"--log-net-log={log}", f"--window-size={width},{height}"]
        done = subprocess.run(
            [BINARY, *FLAGS, *profile, "--dump-dom", url], capture_output=True, text=True, timeout=300, check=True
        )
        text = log.read_text()
    console = [line.split("CONSOLE", 1)[1] for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(done.stdout, console, _requests(text))


def _requests(log: str) -> list[str]:
    """Every http(s) address in the net log that the page asked for; the browser's own errands go to google hosts."""
    found = set(re.findall(r'"url":("https?://[^"]*")', log))
    addresses = {str(json.loads(address)) for address in found}
    own = ("google.com", "googleapis.com", "gvt1.com", "googleusercontent.com", "gstatic.com")
    return sorted(address for address in addresses if not (urlparse(address).hostname or "").endswith(own))
