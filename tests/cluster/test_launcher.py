"""The files of Ray's cluster launcher: its own preparation and checks, and what it would ask the providers for."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
LAUNCHED = ("aws", "gcp", "onpremise")
OURS = {  # what a user puts in place of <...>
    "REGION": "us-east-1",
    "REGISTRY": "registry.example/lab",
    "HEAD_INSTANCE_PROFILE": "arn:aws:iam::123456789012:instance-profile/head",
    "WORKER_INSTANCE_PROFILE": "arn:aws:iam::123456789012:instance-profile/worker",
    "ZONE": "us-east1-b",
    "PROJECT": "lab",
    "IMAGE": "projects/lab/global/images/gpu",
    "WORKER_SERVICE_ACCOUNT": "worker@lab.iam.gserviceaccount.com",
    "HEAD_IP": "192.0.2.10",
    "WORKER_IP_1": "192.0.2.11",
    "WORKER_IP_2": "192.0.2.12",
    "USER": "ada",
    "AMI": "ami-00000000",
}


def config(name: str) -> dict[str, Any]:
    """A launcher file as a user fills it in."""
    text = (CLUSTER / name / "cluster.yaml").read_text()
    for hole, value in OURS.items():
        text = text.replace(f"<{hole}>", value)
    return dict(yaml.safe_load(text))


def prepared(given: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` prepares and checks it, and as the head checks it again."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    ready = prepare_config(copy.deepcopy(given))
    validate_config(ready)
    again = prepare_config(copy.deepcopy(ready))  # the autoscaler reads on the head what `ray up` wrote there
    validate_config(again)
    return dict(again)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_hole_is_known(name: str) -> None:
    assert "<" not in json.dumps(config(name))


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_it(name: str) -> None:
    ready = prepared(config(name))
    assert ready["head_node_type"] in ready["available_node_types"]
    assert ready["cluster_synced_files"] == []
    assert [
        line for line in ready["head_start_ray_commands"] if "--autoscaling-config=~/ray_bootstrap_config.yaml" in line
    ]


def test_machines_of_ones_own_are_all_used() -> None:
    ready = prepared(config("onpremise"))
    assert ready["available_node_types"] == {
        "local.cluster.node": {"node_config": {}, "resources": {}, "min_workers": 2, "max_workers": 2}
    }
    assert ready["max_workers"] == 2


def test_a_file_of_ones_own_that_names_node_types_is_refused() -> None:
    """Which the schema does not see (and this file once did)."""
    given = config("onpremise")
    given["available_node_types"] = {"local.cluster.node": {"node_config": {}, "resources": {}, "min_workers": 2}}
    given["head_node_type"] = "local.cluster.node"
    with pytest.raises(RuntimeError, match="cluster_synced_files"):
        prepared(given)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_runs_outlive_the_head_s_container(name: str) -> None:
    given = config(name)
    assert "--volume /home/ubuntu/tips-dist-runs:/home/ray/tips-dist-runs" in given["docker"]["head_run_options"]
    assert any("mkdir -p /home/ubuntu/tips-dist-runs" in line for line in given["initialization_commands"])
    assert "/shared" not in (CLUSTER / name / "cluster.yaml").read_text()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    moto = pytest.importorskip("moto", reason="pip install 'moto[ec2,iam]'")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", OURS["REGION"])
    with moto.mock_aws():
        yield


@pytest.mark.usefixtures("aws")
def test_aws_starts_what_the_file_says() -> None:
    """Ray's own provider against moto's EC2: key, network and firewall are made, a head and a spot machine started."""
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    ec2 = boto3.client("ec2", region_name=OURS["REGION"])
    iam = boto3.client("iam", region_name=OURS["REGION"])
    for name in ("head", "worker"):
        iam.create_instance_profile(InstanceProfileName=name)
    given = config("aws")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for kind in given["available_node_types"].values():
        kind["node_config"]["ImageId"] = image
    ready = bootstrap_aws(prepared(given))
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    for name, kind in ready["available_node_types"].items():
        provider.create_node(copy.deepcopy(kind["node_config"]), {"ray-user-node-type": name}, 1)
    (groups,) = {tuple(kind["node_config"]["SecurityGroupIds"]) for kind in ready["available_node_types"].values()}
    (group,) = ec2.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    from_anywhere = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_anywhere] == [(22, 22)]  # SSH, and nothing of Ray's
    machines = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            machines[tags["ray-user-node-type"]] = machine
    assert machines["head"]["InstanceType"] == "m6i.xlarge"
    assert machines["gpu_spot"]["InstanceType"] == "g5.xlarge"
    assert machines["gpu_spot"]["InstanceLifecycle"] == "spot"
    assert "InstanceLifecycle" not in machines["head"]


@pytest.mark.usefixtures("aws")
def test_a_field_that_aws_does_not_have_is_refused() -> None:
    import boto3
    from botocore.exceptions import ParamValidationError

    node = config("aws")["available_node_types"]["head"]["node_config"]
    with pytest.raises(ParamValidationError, match="InstanceTyp"):
        boto3.client("ec2").run_instances(**node, InstanceTyp="x", MinCount=1, MaxCount=1)


def fits(value: object, schema: dict[str, Any], schemas: dict[str, Any], where: str = "") -> list[str]:
    """What of a request body Google's own description of its API does not know."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    if not isinstance(value, kinds.get(schema.get("type", "any"), object)):
        return [f"{where}: expected {schema['type']}"]
    if isinstance(value, str) and value not in schema.get("enum", [value]):
        return [f"{where}: expected one of {schema['enum']}"]
    if isinstance(value, list):
        return [word for item in value for word in fits(item, schema["items"], schemas, f"{where}[]")]
    if not isinstance(value, dict):
        return []
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    found = [f"{where}.{key}: unknown" for key in value if key not in known and rest is None]
    both = [(key, item, known.get(key, rest)) for key, item in value.items() if key in known or rest is not None]
    return found + [word for key, item, kind in both for word in fits(item, kind, schemas, f"{where}.{key}")]


@pytest.mark.recipes
def test_google_knows_every_field() -> None:
    """Machines against the description of the Compute API that Google's library brings along."""
    library = pytest.importorskip("googleapiclient", reason="pip install 'tips-dist[gcp]'")
    text = (Path(library.__file__).parent / "discovery_cache" / "documents" / "compute.v1.json").read_text()
    schemas = json.loads(text)["schemas"]
    for name, kind in prepared(config("gcp"))["available_node_types"].items():
        node = kind["node_config"]
        assert fits(node, schemas["Instance"], schemas, name) == []
        node["machinetype"] = node["disks"][0]["type"] = "persistent"
        assert len(fits(node, schemas["Instance"], schemas, name)) == 2


@pytest.mark.recipes
def test_ray_s_own_provider_for_google_loads() -> None:
    pytest.importorskip("googleapiclient", reason="pip install 'tips-dist[gcp]'")
    from ray.autoscaler._private.gcp import config as google
    from ray.autoscaler._private.gcp.node import GCPNodeType

    for kind in config("gcp")["available_node_types"].values():
        assert google.get_node_type(kind["node_config"]) is GCPNodeType.COMPUTE
