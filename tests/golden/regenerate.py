"""Write the golden numbers anew: ``python -m tests.golden.regenerate`` (after a change that is meant to move them)."""

import json
import tempfile
from pathlib import Path

from tests.training.worlds import tiny, world
from tips_dist.files import read_json_lines
from tips_dist.training.loop import train


def main() -> None:
    for name in ("solo", "torso_legs"):
        with tempfile.TemporaryDirectory() as folder:
            train(tiny(name), [0, 1], world(), Path(folder))
            rows = list(read_json_lines(Path(folder) / "history.jsonl"))
        (Path(__file__).parent / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
