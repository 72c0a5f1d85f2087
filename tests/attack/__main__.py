"""``python -m tests.attack [--cases 1200] [--kills 100] [--damages 1] [--seed 0]``: attack the program and count.

Prints how the cases ended and every defect; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.attack import arena, cases, damage, kills


def attack(number: int, seed: int, scratch: Path) -> arena.Count:
    """Do the collected and that many drawn cases."""
    arena.preload()
    count, pristine = arena.Count(), arena.build(scratch / "pristine")
    for case in cases.all_cases(number, seed):
        arena.run(case, pristine, scratch / "arena", count)
        if count.cases % 100 == 0:
            print(f"{count.cases} cases, {count.wrong} defects", file=sys.stderr, flush=True)
            for kind, found in count.defects.items():
                print("".join(f"  {kind}: {line}\n" for line in found), end="", file=sys.stderr, flush=True)
    return count


def main() -> int:
    """Run both attacks and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--damages", type=int, default=1, help="0 leaves the matrix of damages out")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begun, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="tips-dist-attack-") as scratch:
        if asked.cases:
            count = attack(asked.cases, asked.seed, Path(scratch))
            codes = ", ".join(f"{number} {kind}" for kind, number in sorted(count.codes.items()))
            print(f"{count.cases} hostile cases: {codes}")
            print("  " + ", ".join(f"{len(found)} {kind}" for kind, found in count.defects.items()))
            for kind, found in count.defects.items():
                print("".join(f"  {kind}: {line}\n" for line in found), end="")
            wrong += count.wrong
        if asked.kills:
            outcome = kills.attack(Path(scratch) / "kills", asked.kills)
            print(
                f"{outcome.kills} kills at {len(outcome.kinds)} kinds of write: "
                f"{len(outcome.lost)} lost or different, {len(outcome.left)} leftovers"
            )
            for line in outcome.lost + outcome.left:
                print(f"  {line}")
            wrong += len(outcome.lost) + len(outcome.left)
        if asked.damages:
            stage = damage.Stage(Path(scratch) / "damages")
            said = [problem for one in stage.matrix() if (problem := stage.attack(*one)) is not None]
            print(f"{len(stage.matrix())} damages between kill and resume: {len(said)} where the study did not go on")
            print("".join(f"  {line}\n" for line in said), end="")
            wrong += len(said)
    print(f"in {(time.monotonic() - begun) / 60:.1f} min: {wrong} defects")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
