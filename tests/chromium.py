"""A real browser for tests: the system's Chromium, driven by Playwright; tells what a page drew, said and fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, sync_playwright

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needed = pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine: the page is not opened")


@dataclass
class Told:
    """What a page's scripts said and what it asked the network for, while it is open."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # http and https addresses


@contextmanager
def opened(url: str, width: int = 1280, height: int = 900) -> Iterator[tuple[Page, Told]]:
    """A page in a fresh browser profile, loaded; what it does is told until the end of the block."""
    told = Told()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BINARY, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: told.console.append(message.text))
        page.on("pageerror", lambda error: told.console.append(str(error)))
        page.on("request", lambda request: told.requests.append(request.url) if request.url[:4] == "http" else None)
        page.goto(url)
        yield page, told
        browser.close()
