"""Damaged files against every reader, in a process of its own so that a crash or a hang is caught and named.

``python -m tests.data.fuzzing TARGET FIRST COUNT`` runs cases and prints one line each; :func:`fuzz` drives it.
A case is fine if the reader refuses with a UserError of one line and leaves nothing behind, or succeeds and what it
wrote reads back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.data.importers.layouts import LAYOUTS, Layout
from tips_dist.data import importers, inspection, procedural, store, writer
from tips_dist.files import UserError

SECONDS = 60  # for one case, before it counts as hung
MEMORY = 6 * 2**30
TARGETS = ("pose_file", *LAYOUTS)


def fuzz(target: str, cases: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Run cases; returns how many ended how, and a description of each that is a defect."""
    counts: Counter[str] = Counter()
    defects: list[str] = []
    case, end = first, first + cases
    while case < end:
        command = [sys.executable, "-m", "tests.data.fuzzing", target, str(case), str(end - case)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            while case < end:
                if not select.select([child.stdout], [], [], SECONDS + 30)[0]:
                    child.kill()
                    defects.append(f"{target} {case}: hung")
                    break
                line = child.stdout.readline().decode()
                if not line:
                    defects.append(f"{target} {case}: the process died with {child.wait()}")
                    break
                result, _, detail = line.strip().partition("\t")
                counts[result] += 1
                if result == "defect":
                    defects.append(f"{target} {case}: {detail}")
                case += 1
            else:
                continue
        counts["crash"] += 1
        case += 1
    return counts, defects


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """The content of a file, damaged in one of the ways that happen or that somebody wishes to happen."""
    data = bytearray(content)
    n = max(len(data), 1)
    at, length = int(generator.integers(n)), int(generator.integers(1, 64))
    if generator.random() < 0.4:  # where formats keep their structure
        at = int(min(n - 1, generator.exponential(2000)))
    match generator.integers(7):
        case 0:
            return bytes(data[:at])
        case 1 | 2:
            for place in generator.integers(n, size=int(generator.integers(1, 33))):
                data[place if generator.random() < 0.5 else (place % min(n, 4096))] ^= 1 << int(generator.integers(8))
        case 3:
            data[at : at + length] = generator.bytes(length)
        case 4:
            data[at : at + length] = bytes([int(generator.choice([0, 255, 127, 128]))]) * length
        case 5:
            del data[at : at + length]
        case _:
            data[at:at] = data[at : at + length] + generator.bytes(length)
    return bytes(data)


def run_case(folder: Path, pristine: Path, make: Callable[[Path], Layout | None], case: int) -> str:
    """Damage one file of a copy of the pristine source, import it, and say how that ended."""
    generator = np.random.default_rng(case)
    source = folder / "source"
    shutil.copytree(pristine, source)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    file = files[int(generator.integers(len(files)))]
    file.write_bytes(damage(file.read_bytes(), generator))
    layout = make(source)
    try:
        if layout is None:
            inspection.inspect(source / "p.pose2d.h5")
        else:
            importers.import_data(layout.format, layout.source, folder / "out", layout.options)
            store.read_poses(folder / "out.pose2d.h5")
        return "read"
    except UserError as error:
        left = [path.name for path in folder.iterdir() if path != source]
        if left:
            return f"defect\tleft {left}"
        return "refused" if "\n" not in str(error) else f"defect\tseveral lines: {error!s:.200}"
    except BaseException:
        return "defect\t" + traceback.format_exc()[-600:].replace("\n", " | ")


def main(target: str, first: int, count: int) -> None:
    """Run the cases of one target and print a line for each."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as temporary:
        pristine = Path(temporary) / "pristine"
        pristine.mkdir()
        layout = LAYOUTS[target](pristine) if target in LAYOUTS else None
        if layout is None:
            poses = procedural.generate(200, 0)[0]
            stretch = np.repeat(np.array([-1, 0, 1, -1], np.int32), 50)
            scores = np.random.default_rng(0).uniform(0, 1, (200, 17)).astype(np.float32)
            writer.write_poses(pristine / "p.pose2d.h5", dataclasses.replace(poses, stretch=stretch, scores=scores))

        def make(source: Path) -> Layout | None:
            if layout is None:
                return None
            return Layout(layout.format, source / layout.source.relative_to(pristine), layout.options)

        for case in range(first, first + count):
            folder = Path(temporary) / "case"
            folder.mkdir()
            print(run_case(folder, pristine, make, case), flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
