"""Pictures of a real study for the README: python -m benchmarks.pictures runs/cmu-...

Writes docs/images/report.png (the answer and the first figures, from a copy of the run's report.html) and
docs/images/tensorboard.png (the first page) with headless Chromium; report.html must exist.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from tests import chromium
from tips_dist.report.tensorboard import launch

FOLDER = Path(__file__).parent.parent / "docs" / "images"
ANSWER_AND_FIRST = """<style>body{padding:8px 16px} nav,section:not(#side-by-side){display:none}</style>"""


def photograph(url: str, picture: Path, width: int, box: tuple[int, int, int, int], drawn: str) -> None:
    """Take a screenshot once ``drawn`` (JavaScript) holds, cut out ``box``, keep it small: 64 colours do for charts."""
    assert chromium.BINARY is not None, "Chromium is needed for pictures"
    with chromium.opened(url, width, box[3]) as (page, _):
        page.wait_for_function(drawn, timeout=120_000)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=picture)
    with Image.open(picture) as image:
        image.convert("RGB").crop(box).quantize(64).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run: Path = parser.parse_args().run.resolve()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text((run / "report.html").read_text() + ANSWER_AND_FIRST)
        drawn = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2"
        photograph(page.as_uri(), FOLDER / "report.png", 1200, (0, 0, 1200, 800), drawn)
    board = launch(run, port=0, seeds="none")
    health = "[...document.querySelectorAll('image-card img')].some(img => img.naturalWidth > 300)"
    photograph(f"{board.address}?smoothing=0", FOLDER / "tensorboard.png", 1440, (0, 0, 1180, 960), health)


if __name__ == "__main__":
    main()
