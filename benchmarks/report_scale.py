"""How long a report of a large study takes to write and to open: python -m benchmarks.report_scale

Makes 18 trials of 8 seeds (144 runs, evaluated) in a temporary folder, writes report.html in a fresh process as
`tips-dist report` does, opens it in Chromium and prints seconds, memory and size. The goals: written in 15 s and 1 GB,
open in 3 s on two cores, below 2.5 MB. It is open when the first figure is drawn; then everything is scrolled through.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import chromium
from tips_dist.runfolder.example import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=18, help="over two representations")
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = build(Path(folder) / "run", trials=given.trials // 2, seeds=given.seeds, steps=12_000, every=100)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tips_dist.cli", "report", str(run)], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        page = run / "report.html"
        print(
            f"{given.trials * given.seeds} runs: written in {seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of "
            f"CPU), {used.ru_maxrss / 1e6:.2f} GB, {page.stat().st_size / 1e6:.2f} MB"
        )
        if chromium.BINARY is None:
            print("no Chromium here: not opened")
            return
        open_page(page)


def open_page(path: Path) -> None:
    with chromium.opened("about:blank", 1440, 900) as (page, _):
        began = time.perf_counter()
        page.goto(path.as_uri())
        shown = time.perf_counter() - began
        page.wait_for_selector(".js-plotly-plot .main-svg")
        drawn = time.perf_counter() - began
        for place in range(page.locator(".plot:visible").count()):
            page.locator(".plot:visible").nth(place).scroll_into_view_if_needed()
        count = page.locator("figure:visible").count()
        page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {count}")
        print(
            f"opened: words after {shown:.1f} s, first figure after {drawn:.1f} s, all {count} after "
            f"{time.perf_counter() - began:.1f} s"
        )


if __name__ == "__main__":
    main()
