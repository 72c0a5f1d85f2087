"""Pictures of a real study for the README: python -m benchmarks.pictures runs/cmu-...

Writes to docs/images: lifted.png (two poses, lifted by the student) and, with headless Chromium, report.png (the answer
and the first figures, from a copy of the run's report.html, which must exist) and tensorboard.png (the first page).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from tests import chromium
from tips_dist.lifting import lift_file
from tips_dist.report.tensorboard import launch
from tips_dist.runfolder import RunFolder, layout

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"
ANSWER_AND_FIRST = """<style>body{padding:8px 16px} nav,section:not(#side-by-side){display:none}</style>"""


def photograph(url: str, picture: Path, width: int, box: tuple[int, int, int, int], drawn: str) -> None:
    """Take a screenshot once ``drawn`` (JavaScript) holds, cut out ``box``."""
    assert chromium.BINARY is not None, "Chromium is needed for pictures"
    with chromium.opened(url, width, box[3]) as (page, _):
        page.wait_for_function(drawn, timeout=120_000)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(3000)  # milliseconds, until lines have been drawn too
        page.screenshot(path=picture)
    shrink(picture, box)


def shrink(picture: Path, box: tuple[int, int, int, int]) -> None:
    """Cut out ``box``; 64 colours do for charts."""
    with Image.open(picture) as image:
        image.convert("RGB").crop(box).quantize(64).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run: Path = parser.parse_args().run.resolve()
    FOLDER.mkdir(parents=True, exist_ok=True)
    poses = Path(str(RunFolder(run).study.data.path))
    lift_file(layout.STUDENT_WEIGHTS.at(run), poses, None, picture=FOLDER / "lifted.png")
    shrink(FOLDER / "lifted.png", (0, 0, 720, 496))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        text = (run / "report.html").read_text()
        for place, name in ((run.parent, "runs"), (ROOT / "data", "data")):  # where it lies here is nobody's concern
            text = text.replace(f"{place}/", f"{name}/")
        page.write_text(text + ANSWER_AND_FIRST)
        drawn = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2"
        photograph(page.as_uri(), FOLDER / "report.png", 1200, (0, 0, 1200, 1060), drawn)
    board = launch(run, port=0, seeds="none")
    health = "[...document.querySelectorAll('image-card img')].some(img => img.naturalWidth > 300)"
    photograph(f"{board.address}?smoothing=0", FOLDER / "tensorboard.png", 1440, (0, 0, 1180, 960), health)


if __name__ == "__main__":
    main()
