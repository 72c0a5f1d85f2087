"""Write golden numbers anew: ``python -m tests.golden.regenerate [NAME…]`` (after a change meant to move them)."""

import json
import sys
import tempfile
from pathlib import Path

from tests.training.worlds import GOLDEN, tiny, world
from tips_dist.files import read_json_lines
from tips_dist.training.loop import train


def main() -> None:
    for name in sys.argv[1:] or GOLDEN:
        with tempfile.TemporaryDirectory() as folder:
            train(tiny(*GOLDEN[name]), [0, 1], world(), Path(folder))
            rows = list(read_json_lines(Path(folder) / "history.jsonl"))
        (Path(__file__).parent / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
