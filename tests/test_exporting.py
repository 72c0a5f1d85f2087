"""Exports give what Student.lift gives, for any number of poses, or are not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tips_dist import exporting
from tips_dist.exporting import TOLERANCE, export
from tips_dist.files import UserError
from tips_dist.models import Lifter, initialise, save_weights
from tips_dist.models.student import Student
from tips_dist.skeleton import REPRESENTATIONS

SIGNS = {"solo": [1], "torso_legs": [1, -1]}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A teacher whose legs are mirrored: exports resolve its sign."""
    return saved("torso_legs", tmp_path)


def saved(name: str, tmp_path: Path) -> Path:
    lifter = Lifter(REPRESENTATIONS[name], 24, blocks=2)
    initialise(lifter, [torch.Generator().manual_seed(1)])
    record = {"kind": "student", "scale": 2100.0, "data_digest": "d" * 64, "part_signs": SIGNS[name], "step": 7}
    save_weights(tmp_path / "student.safetensors", lifter, 0, {**record, "seed": 3, "source": "test poses"})
    return tmp_path / "student.safetensors"


@pytest.fixture
def poses() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).normal(500, 120, (33, 17, 2)).astype(np.float32)


def test_onnx_equals_pytorch(poses: np.ndarray[Any, np.dtype[np.float32]], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export is an extra: pip install 'tips-dist[export]'")
    runtime = pytest.importorskip("onnxruntime", reason="the check of ONNX needs onnxruntime")
    weights = saved("solo", tmp_path)
    result = export(weights, tmp_path / "out.onnx")
    assert result.difference_to_pytorch is not None
    assert result.difference_to_pytorch <= TOLERANCE
    session = runtime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 33):
        found = session.run(["joints"], {"poses": poses[:count]})[0]
        np.testing.assert_allclose(found, Student.load(weights).lift(poses[:count]), atol=1e-5)


def test_torch_export_equals_pytorch(
    weights: Path, poses: np.ndarray[Any, np.dtype[np.float32]], tmp_path: Path
) -> None:
    result = export(weights, tmp_path / "out.pt2")
    assert result.difference_to_pytorch is not None
    assert result.difference_to_pytorch <= TOLERANCE
    with (tmp_path / "out.pt2").open("rb") as stream:
        program = torch.export.load(stream).module()
    found = program(torch.from_numpy(poses)).detach().numpy()
    np.testing.assert_allclose(found, Student.load(weights).lift(poses), atol=1e-5)
    card = (tmp_path / "out.md").read_text()
    for fact in ("test poses", "d" * 64, "2100.0", "Not evaluated", "## Limits"):
        assert fact in card


def test_an_export_that_differs_is_not_kept(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_torch_export", lambda program, example, path: _zeros(path))
    with pytest.raises(UserError, match="differs from PyTorch"):
        export(weights, tmp_path / "out.pt2")
    assert not list(tmp_path.glob("*out*"))


def _zeros(path: Path) -> Any:
    path.write_bytes(b"wrong")
    return lambda poses: np.zeros((len(poses), 17, 3))


def test_refusals(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"unknown ending '\.pb'"):
        export(weights, tmp_path / "out.pb")
    with pytest.raises(UserError, match="no such weights"):
        export(tmp_path / "gone.safetensors", tmp_path / "out.pt2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tips-dist\[export\]'"):
        export(weights, tmp_path / "out.onnx")
    assert not list(tmp_path.glob("*out*"))
