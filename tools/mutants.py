"""A trustworthy share of noticed mutants in minutes: ``python tools/mutants.py``.

All mutants take hours. A random sample says the same with an interval: of each part of the code as many as its share of
all mutants, drawn by the seed alone, run by mutmut against the tests that reach them (``[tool.mutmut]`` in
``pyproject.toml``), in random order, so that what is done after ``--minutes`` is a fair sample. What no test reaches
counts as survived. ``--of PATTERN`` draws from some mutants alone; ``--names FILE`` runs those that a file names.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import signal
from collections import Counter
from pathlib import Path

from mutmut import __main__ as mutmut
from mutmut.mutation.data import SourceFileMutationData
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files
from scipy.stats import binomtest

NOTICED = ("killed", "caught by type check", "timeout", "segfault")
UNDECIDED = ("not checked", "check was interrupted by user")
Answers = dict[str, int | None]


def generate() -> None:
    """Write every mutant into ``mutants/``; what is there already stays."""
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    mutmut.create_mutants(1)


def answers() -> Answers:
    """Every mutant with the exit code of its last run, or None."""
    found: Answers = {}
    for path in walk_mutatable_files():
        found |= json.loads(Path("mutants", f"{path}.meta").read_text())["exit_code_by_key"]
    return found


def part(name: str) -> str:
    """The part of the code that a mutant lies in: a folder or a file of ``tips_dist``."""
    return name.split(".")[1]


def drawn(names: list[str], count: int, seed: int) -> list[str]:
    """``count`` of them, in each part as many as its share of all (largest remainders), by the seed alone."""
    parts: dict[str, list[str]] = {}
    for name in sorted(names):
        parts.setdefault(part(name), []).append(name)
    exact = {key: count * len(inside) / len(names) for key, inside in parts.items()}
    shares = {key: int(value) for key, value in exact.items()}
    for key in sorted(parts, key=lambda key: shares[key] - exact[key])[: count - sum(shares.values())]:
        shares[key] += 1
    chance = random.Random(seed)
    return [name for key, inside in parts.items() for name in chance.sample(inside, shares[key])]


def run(names: list[str], seed: int, minutes: float) -> Answers:
    """Let mutmut run these, in random order; what was not reached in time is absent."""
    for path in walk_mutatable_files():
        kept = SourceFileMutationData(path=path)
        kept.load()
        kept.exit_code_by_key |= dict.fromkeys(set(names) & kept.exit_code_by_key.keys())
        kept.save()
    rank = {name: place for place, name in enumerate(random.Random(seed).sample(names, len(names)))}
    mutmut.estimated_worst_case_time = lambda mutant_name: float(rank[mutant_name])
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # mutmut stops in order when it is interrupted
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    mutmut._run(names, max_children=1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    after = answers()
    return {name: after[name] for name in names if status_by_exit_code[after[name]] not in UNDECIDED}


def tell(of: int, ran: Answers) -> None:
    """Print who survived, a row for each part, and the share with its 95 % interval."""
    said = {name: status_by_exit_code[code] for name, code in ran.items()}
    for name in sorted(name for name, status in said.items() if status not in NOTICED):
        print(f"{said[name]}: {name}")
    for key in sorted({part(name) for name in ran}):
        counts = Counter(status for name, status in said.items() if part(name) == key)
        print(f"{key}: " + ", ".join(f"{count} {status}" for status, count in counts.most_common()))
    if not said:
        raise SystemExit("no mutant was run in time")
    noticed = sum(status in NOTICED for status in said.values())
    interval = binomtest(noticed, len(said)).proportion_ci(method="wilson")
    print(
        f"{noticed} of {len(said)} sampled mutants (of {of}) noticed: {noticed / len(said):.1%}, "
        f"95 % interval {interval.low:.1%} to {interval.high:.1%}; {dict(Counter(said.values()))}"
    )


def main() -> None:
    """Draw, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=180, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--of", default="*", help="a pattern: draw from these alone")
    parser.add_argument("--names", type=Path, help="a file of mutants, one a line, instead of a sample")
    parser.add_argument("--minutes", type=float, default=600, help="when to stop")
    given = parser.parse_args()
    generate()
    names = [name for name in answers() if fnmatch.fnmatch(name, given.of)]
    chosen = given.names.read_text().split() if given.names else drawn(names, min(given.sample, len(names)), given.seed)
    tell(len(names), run(chosen, given.seed, given.minutes))


if __name__ == "__main__":
    main()
