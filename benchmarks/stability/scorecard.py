"""The scorecard of the bank: detectors and selection replayed over a set, beside trivial baselines.

    make scorecard        # seconds, from the committed bank

Every figure comes with a 95 % bootstrap interval over runs: a run is drawn with all its seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.stability.histories import load
from tips_dist.commands.evaluating import plain_scorecard, print_scorecard
from tips_dist.evaluation.scorecard import scorecard
from tips_dist.files import write_json


def main() -> None:
    """Print the tables; ``--json FILE`` also writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motion", default="cmu", choices=["cmu", "procedural"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = scorecard(load(arguments.motion))
    print_scorecard(arguments.motion, found, called=False)
    if arguments.json:
        write_json(arguments.json, plain_scorecard(found))


if __name__ == "__main__":
    main()
