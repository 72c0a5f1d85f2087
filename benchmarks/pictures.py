"""Pictures of a real study for the README: python -m benchmarks.pictures runs/cmu-...

Writes docs/images/report.png (error and risk over the steps, from a copy of the run's report.html) and
docs/images/tensorboard.png (the Stability charts) with headless Chromium; report.html must exist.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from tests import chromium
from tips_dist.report.tensorboard import launch

FOLDER = Path(__file__).parent.parent / "docs" / "images"
ONE_SECTION = "<style>body{padding:8px 16px}header,section:not(#over-the-steps),.grid+.grid,h2{display:none}</style>"


def photograph(url: str, picture: Path, width: int, height: int, left: int = 0) -> None:
    """Take a screenshot, cut ``left`` pixels off its left, keep it small: 64 colours are enough for charts."""
    assert chromium.BINARY is not None, "Chromium is needed for pictures"
    with chromium.opened(url, width, height) as (page, _):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=picture)
    with Image.open(picture) as image:
        image.convert("RGB").crop((left, 0, width, height)).quantize(64).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run: Path = parser.parse_args().run.resolve()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text((run / "report.html").read_text() + ONE_SECTION)
        photograph(page.as_uri(), FOLDER / "report.png", 1200, 510)
    address = launch(run, port=0)
    photograph(f"{address}#custom_scalars", FOLDER / "tensorboard.png", 1200, 800, left=310)


if __name__ == "__main__":
    main()
