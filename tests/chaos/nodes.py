"""A Ray cluster of several nodes on this machine, in a process of its own: ``python -m tests.chaos.nodes N``.

Prints one JSON line with its address and the process ids of GCS and of every node's raylet, then waits for its stdin to
close. The head has no CPUs, so that all trials run on the N other nodes (one CPU each).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.stage import ROOT
from tips_dist.study.cluster import prepare_environment

# A sitecustomize.py, by which a Python lacks this program.
ABSENT_PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tips_dist":
            raise ModuleNotFoundError("No module named 'tips_dist'", name="tips_dist")

sys.meta_path.insert(0, Absent())
"""


@contextlib.contextmanager
def cluster(nodes: int, loopback: bool = True, of_first: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Run one; gives ``address``, ``gcs`` (pid), ``raylets`` (node id: pid), ``environment`` (of its drivers).

    The nodes' address is 127.0.0.1, or else this machine's address in its network. ``of_first`` are environment
    variables of the first node's workers alone.
    """
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # drivers are at home where the nodes are
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0" if loopback else "1"
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    command = [sys.executable, "-m", "tests.chaos.nodes", str(nodes), json.dumps(of_first or {})]
    with subprocess.Popen(
        command, cwd=ROOT, env={**own, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            if line.startswith('{"address"'):
                yield {**json.loads(line), "environment": environment}
                break
        process.stdin.close()
        process.kill()


def main() -> None:
    prepare_environment(None)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
    own = [json.loads(sys.argv[2]), *[{}] * int(sys.argv[1])]
    others = [
        made.add_node(num_cpus=1, object_store_memory=100 * 2**20, env_vars=own[number])
        for number in range(int(sys.argv[1]))
    ]
    made.wait_for_nodes()
    gcs = made.head_node.all_processes["gcs_server"][0].process.pid
    raylets = {node.node_id: node.all_processes["raylet"][0].process.pid for node in others}
    print(json.dumps({"address": made.address, "gcs": gcs, "raylets": raylets}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
