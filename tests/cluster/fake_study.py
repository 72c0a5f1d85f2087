"""Stand-ins for the programs that cluster/slurm/study.sbatch starts; they write what they were told into ``$LOG``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "study.sbatch"
_FAKES = {
    "venv/bin/ray": """
        echo "ray $*" >>"$LOG"
        echo "token $RAY_AUTH_TOKEN" >>"$LOG"
        trap 'echo "ray ended" >>"$LOG"; exit' TERM; while :; do sleep 0.05; done""",
    # asked for its address on the way to another node, or whether the nodes are there
    "venv/bin/python": """
        if [[ $1 == -c ]]; then
          echo "on the way to $3" >>"$LOG"; echo "${ON_THE_WAY:-10.0.0.1}"; exit
        fi
        shift; echo "$*" >>"$LOG"
        until grep -q "ray start.*--head" "$LOG" && { (( $# < 4 )) || grep -q "ray start.*--address" "$LOG"; }; do
          sleep 0.05
        done
        exit "${JOINED:-0}" """,
    "venv/bin/tips-dist": """
        echo "tips-dist $*" >>"$LOG"
        trap 'echo "state saved" >>"$LOG"; exit "${SAVED:-130}"' TERM
        for ((i = 0; i < ${STEPS:-1}; i++)); do sleep 0.05; done
        exit "${CODE:-0}" """,
}


def make_fakes(place: Path, more: Mapping[str, str] | None = None) -> None:
    """Write them into ``place/venv/bin``, and ``more`` (path: body) beside."""
    for name, body in {**_FAKES, **(more or {})}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
