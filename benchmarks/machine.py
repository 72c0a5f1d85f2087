"""For every benchmark: the machine in words (a ratio holds on machines that are like it), and where its table goes."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import psutil
import torch

from tips_dist.files import write_text

README = Path(__file__).parent / "README.md"
CPUINFO = Path("/proc/cpuinfo")
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "bf16",
}


def processor() -> tuple[str, list[str]]:
    """Its name, and which of :data:`FEATURES` it has; as far as the system tells."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    told = dict(part.split(":", 1) for part in (line.replace("\t", "") for line in lines) if ":" in part)
    flags = (told.get("flags") or told.get("Features") or "").split()
    name = told.get("model name", "").strip() or platform.processor() or "CPU"
    return name, [words for flag, words in FEATURES.items() if flag in flags]


def _spent() -> tuple[float, float]:
    """Processor seconds of the whole machine so far, and of this process with the children that it waited for."""
    times, own = psutil.cpu_times(), os.times()
    busy = times.user + times.system  # user holds that of guests, as Linux counts it
    return busy, own.user + own.system + own.children_user + own.children_system


_BEGAN, _BEFORE = datetime.datetime.now(), _spent()


def others() -> float:
    """The share of all processors that anything but this benchmark took since it began, from 0 to 1.

    The load average does not tell: it counts the benchmark too, and forgets within a minute.
    """
    seconds = (datetime.datetime.now() - _BEGAN).total_seconds()
    busy, own = (now - before for now, before in zip(_spent(), _BEFORE, strict=True))
    return min(max((busy - own) / (seconds * (os.cpu_count() or 1)), 0.0), 1.0)


def machine(note: str = "") -> str:
    """Processor with its features, versions, date and how busy others kept it, in a line; told at a benchmark's end."""
    name, features = processor()
    has = f" ({', '.join(features)})" if features else ""
    return (
        f"{os.cpu_count()} x {name}{has}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{datetime.date.today()}; other processes took {others():.0%} of it meanwhile. {note}".strip()
    )


def replace_between(name: str, text: str, page: Path = README) -> None:
    """Put ``text`` between the comments ``NAME:begin`` and ``NAME:end`` of a Markdown page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    head, rest = page.read_text().split(begin, 1)
    write_text(page, f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")
