"""What the doctor finds, and that every finding that is not ok says what to do."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.study.conftest import make_study, study_text
from tips_dist.cli import app
from tips_dist.study import doctor
from tips_dist.study.preflight import Checked

Usage = namedtuple("Usage", "total used free")


def one(findings: list[Checked], name: str) -> Checked:
    found = [finding for finding in findings if finding.name.startswith(name)]
    assert len(found) == 1, findings
    return found[0]


def test_this_machine(tmp_path: Path) -> None:
    findings = list(doctor.diagnose(runs=tmp_path / "runs"))
    assert {finding.state for finding in findings} <= {"ok", "warning"}
    assert all(finding.advice for finding in findings if finding.state != "ok")
    assert "MB/s" in one(findings, "run folders").found
    assert not list(tmp_path.iterdir())  # leaves nothing


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    found = one(list(doctor.machine()), "processors")
    assert found.state == "warning"
    assert "set OMP_NUM_THREADS to at most" in found.advice


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**10, 10**10, 10**6))
    assert doctor.folder(tmp_path).state == "warning"
    if Path("/dev/shm").is_dir():
        assert "--shm-size" in one(list(doctor.machine()), "shared memory").advice


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    found = doctor.folder(tmp_path / "runs")
    assert (found.state, found.found) == ("failed", "not writable (Permission denied)")


def test_storage() -> None:
    found = list(doctor.store("memory://doctor/runs"))
    assert [finding.state for finding in found] == ["ok"]
    assert "MB/s read" in found[0].found
    assert next(doctor.store("nothing://x")).state == "failed"


def test_data(tmp_path: Path) -> None:
    study = make_study()
    assert doctor.data(study.data, tmp_path).state == "failed"
    generated = make_study(data={"procedural": {"poses": 100}})
    assert "100 poses, digest" in doctor.data(generated.data, tmp_path).found


def test_another_ray() -> None:
    ours = metadata.version("ray")
    assert doctor.same_ray(ours).state == "ok"
    found = doctor.same_ray("2.0.0")
    assert (found.state, found.found) == ("failed", f"2.0.0, here {ours}")
    assert "pip install ray==2.0.0" in found.advice


def test_a_cluster_that_is_not_there() -> None:
    found = one(list(doctor.diagnose(address="http://127.0.0.1:9")), "ray on the cluster")
    assert found.state == "failed"


@pytest.mark.parametrize(
    ("text", "cuda", "visible", "state", "advice"),
    [
        (None, None, None, "ok", ""),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104  Sat", None, None, "failed", "install a CUDA build"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue", "12.6", None, "failed", "driver 525.60.13"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release", "13.0", None, "failed",
            "driver 580 or newer",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sat", "13.0", None, "failed", "started again"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sat", "13.0", "", "warning", "hides every card"),
    ],
)  # fmt: skip
def test_driver_against_wheel(
    text: str | None, cuda: str | None, visible: str | None, state: str, advice: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import torch

    path = tmp_path / "version"
    if text is not None:
        path.write_text(text)
    told = doctor.nvidia_driver(path)
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: told)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = doctor.torch_and_cuda()
    assert found.state == state
    assert advice in found.advice


def test_precisions_without_units_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from tips_dist.training import precision

    monkeypatch.setattr(precision, "bf16_units", lambda: False)
    assert "no bf16 units; bf16 runs as float32" in doctor.precisions().found


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "torch_and_cuda", lambda: Checked("torch", "ok", "torch 2, no GPU on this machine"))
    found = doctor._gpus_here(make_study(resources={"gpus": 1}))
    assert found.state == "failed"
    assert "resources.gpus" in found.advice


def test_a_doctor_that_falls_ill() -> None:
    def look() -> Checked:
        raise KeyError("unexpected")

    assert doctor._guarded("x", look).state == "failed"


def test_every_node_is_asked(ray_session: None, tmp_path: Path) -> None:
    findings = list(doctor.cluster("auto", make_study(), tmp_path))
    assert one(findings, "cluster").found.startswith("1 nodes")
    assert one(findings, "resources of a trial").state == "ok"
    assert one(findings, "versions").state == "ok"
    assert one(findings, "clock").state == "ok"
    assert one(findings, "run folders").state == "ok"
    large = list(doctor.cluster("auto", make_study(resources={"cpus": 1000}), tmp_path))
    assert one(large, "resources of a trial").state == "failed"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(study_text())
    result = CliRunner().invoke(app, ["doctor", str(study), "--runs", str(tmp_path), "--json"])
    found = json.loads(result.output)
    assert result.exit_code == 1  # its pose file is missing
    assert found["healthy"] is False
    assert {"name", "state", "found", "advice", "where"} == set(found["findings"][0])
    study.write_text(study_text(data={"procedural": {"poses": 100}}))
    assert CliRunner().invoke(app, ["doctor", str(study), "--runs", str(tmp_path)]).exit_code == 0
