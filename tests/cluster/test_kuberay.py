"""The Kubernetes files: KubeRay's part against its fields, a pod against the models of the Kubernetes API.

KubeRay's own definitions (CRDs) are not part of this repository. ``make recipes CRDS=FILE`` checks against them too.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

KUBERAY = Path(__file__).parents[2] / "cluster" / "kuberay"
FIELDS = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
RESOURCES = ("raycluster.yaml", "rayjob.yaml")
CRDS = os.environ.get("CRDS", "")
Kubernetes = Callable[[dict[str, Any], str], list[str]]


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((KUBERAY / name).read_text()))


def errors(resource: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(resource)]


def ours(kind: str) -> dict[str, Any]:
    return {**FIELDS, "$ref": f"#/$defs/{kind}"}


def groups(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """Head and workers."""
    spec = resource["spec"].get("rayClusterSpec", resource["spec"])
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.fixture(scope="module")
def kubernetes() -> Kubernetes:
    """What the Kubernetes API would find wrong with a resource of a kind, unknown fields among it."""
    core = pytest.importorskip("lightkube.models.core_v1", reason="pip install lightkube")
    msgspec = pytest.importorskip("msgspec")
    return lambda resource, kind: errors(resource, strict(msgspec.json.schema(getattr(core, kind))))


@pytest.mark.parametrize("name", RESOURCES)
def test_kuberay_knows_every_field(name: str) -> None:
    resource = read(name)
    assert errors(resource, ours(resource["kind"])) == []


def test_a_wrong_field_is_found() -> None:
    resource = read("rayjob.yaml")
    resource["spec"]["submissionMode"] = "JobMode"
    resource["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    resource["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(errors(resource, ours("RayJob"))) == 3


@pytest.mark.parametrize("name", RESOURCES)
def test_kubernetes_knows_every_field_of_a_pod(name: str, kubernetes: Kubernetes) -> None:
    for group in groups(read(name)):
        assert kubernetes(group["template"], "PodTemplateSpec") == []


def test_a_wrong_field_of_a_pod_is_found(kubernetes: Kubernetes) -> None:
    template = groups(read("raycluster.yaml"))[0]["template"]
    (container,) = template["spec"]["containers"]
    container["volumeMount"] = []
    template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = 3
    assert len(kubernetes(template, "PodTemplateSpec")) == 2


def test_the_claim(kubernetes: Kubernetes) -> None:
    assert kubernetes(read("claim.yaml"), "PersistentVolumeClaim") == []
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for name in RESOURCES
        for group in groups(read(name))
        for volume in group["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {read("claim.yaml")["metadata"]["name"]}


@pytest.mark.parametrize("name", RESOURCES)
def test_only_the_head_has_a_claim(name: str) -> None:
    for number, group in enumerate(groups(read(name))):
        volumes = group["template"]["spec"]["volumes"]
        assert any("persistentVolumeClaim" in volume for volume in volumes) == (number == 0)


def test_the_job_has_the_cluster_of_the_cluster() -> None:
    cluster, job = read("raycluster.yaml")["spec"], read("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["workerGroupSpecs"] == job["workerGroupSpecs"]
    assert cluster["authOptions"] == job["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", RESOURCES)
def test_volumes_are_those_mounted(name: str) -> None:
    for group in groups(read(name)):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_a_stopped_job_gets_its_grace() -> None:
    variables = yaml.safe_load(read("rayjob.yaml")["spec"]["runtimeEnvYAML"])["env_vars"]
    assert float(variables["TIPS_DIST_GRACE"]) < float(variables["RAY_JOB_STOP_WAIT_TIME_S"])


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as the API server applies it with strict field validation: unknown fields are refused."""
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "$defs"):
            found[key] = {name: strict(part) for name, part in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            found[key] = strict(value)
        elif key == "anyOf":
            parts = [strict(part) for part in value if part != {"type": "null"}]
            found |= parts[0] if len(parts) == 1 else {key: parts}
        elif not key.startswith("x-kubernetes"):
            found[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("anyOf", None)
        found["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def definitions(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and schema of version v1 of each CRD in a file of YAML documents."""
    for document in yaml.safe_load_all(text):
        if document and document.get("kind") == "CustomResourceDefinition":
            for version in document["spec"]["versions"]:
                if version["name"] == "v1":
                    schema = strict(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    yield document["spec"]["names"]["kind"], schema


CRD = """
kind: CustomResourceDefinition
spec:
  names: {kind: RayJob}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              properties:
                cpu: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true, pattern: "^[0-9]+$"}
                labels: {type: object, additionalProperties: {type: string}}
                any: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


def test_unknown_fields_are_refused_as_the_api_server_does() -> None:
    ((kind, schema),) = definitions(CRD)
    good = {"kind": "RayJob", "metadata": {"name": "x"}, "spec": {"cpu": 2, "labels": {"a": "b"}, "any": {"x": 1}}}
    assert kind == "RayJob"
    assert errors(good, schema) == []
    for key, value in {"cpus": 2, "cpu": "two", "labels": {"a": 1}}.items():
        bad = copy.deepcopy(good)
        bad["spec"][key] = value  # type: ignore[index]
        assert len(errors(bad, schema)) == 1


@pytest.mark.recipes
@pytest.mark.skipif(
    not CRDS, reason="KubeRay's CRDs: helm show crds kuberay/kuberay-operator >FILE; make recipes CRDS=FILE"
)
def test_kuberay_s_own_definitions_take_the_files() -> None:
    schemas = dict(definitions(Path(CRDS).read_text()))
    for name in RESOURCES:
        resource = read(name)
        assert errors(resource, schemas[resource["kind"]]) == []
