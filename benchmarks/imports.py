"""What imports cost: ``python -m benchmarks.imports``, each in fresh processes, the median of many.

Python's own start is measured beside them and taken off.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

STATEMENTS = ("import tips_dist", "from tips_dist import RunFolder", "from tips_dist import Watch")
PROCESSES = 15


def seconds(statement: str) -> float:
    """How long a fresh Python takes for a statement, its own start included; its modules lie in the file cache."""
    found = []
    for _ in range(PROCESSES + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def main() -> None:
    bare = seconds("pass")
    print(f"| statement | ms beyond Python's start ({1000 * bare:.0f} ms) |\n|---|---|")
    for statement in STATEMENTS:
        print(f"| `{statement}` | {1000 * (seconds(statement) - bare):.0f} |", flush=True)


if __name__ == "__main__":
    main()
