"""Weights are judged before anything is allocated or built from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tips_dist.files import UserError
from tips_dist.models import Lifter, initialise, load_weights
from tips_dist.models.weights import network_of, seed_tensors
from tips_dist.skeleton import REPRESENTATIONS


def lifter(name: str = "torso_legs", **options: Any) -> Lifter:
    built = Lifter(REPRESENTATIONS[name], 8, 1, blocks=1, **options)
    initialise(built, [torch.Generator().manual_seed(0)])
    return built


def written(path: Path, tensors: dict[str, torch.Tensor] | None = None, **record: Any) -> Path:
    """A weights file whose record differs by ``record``; a value of ... leaves a field out."""
    network = lifter()
    full = {"format": 1, **network_of(network).model_dump(), "scale": 100.0, "part_signs": [1, -1], **record}
    told = {key: value for key, value in full.items() if value is not ...}
    content = {**seed_tensors(network, 0), **(tensors or {})}
    safetensors.torch.save_file(content, path, metadata={"record": json.dumps(told)})
    return path


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"format": 99}, "made by a newer version of tips-dist (format 99"),
        ({"format": "1"}, "format: '1'; expected a number from 1 to 1"),
        ({"format": ...}, "format: missing"),
        ({"scale": ...}, "scale: this field is missing"),
        ({"scale": "abc"}, "scale: input should be a valid number, found 'abc'"),
        ({"scale": 0.0}, "scale: input should be greater than 0"),
        ({"scale": -3.0}, "scale: input should be greater than 0"),
        ({"scale": float("nan")}, "not valid JSON"),
        ({"scale": 1e300}, "scale: input should be less than"),
        ({"part_signs": ["x", 1]}, "part_signs.0: input should be a valid integer, found 'x'"),
        ({"part_signs": [1]}, "part_signs: expected 2 of +1 or -1, got [1]"),
        ({"part_signs": [1, 2]}, "part_signs: expected 2 of +1 or -1, got [1, 2]"),
        ({"part_signs": 1}, "part_signs: input should be a valid array"),
        ({"sign_confidence": [0.5]}, "sign_confidence: expected 2 numbers, got 1"),
        ({"representation": "nobody"}, "representation 'nobody' is unknown"),
        ({"representation": ...}, "representation: this field is missing"),
        ({"width": 10_000_000}, "width: input should be less than or equal to 16384"),
        ({"width": float("inf")}, "not valid JSON"),
        ({"width": 8.0}, "width: input should be a valid integer"),
        ({"width": 16_000}, "tensors do not fit the record"),
        ({"blocks": 1_000_000}, "blocks: input should be less than or equal to 64"),
        ({"blocks": 64}, "is missing"),
        ({"blocks": 0}, "is not part of such a network"),
        ({"batch_norm": "yes"}, "batch_norm: input should be a valid boolean"),
        ({"batch_norm": True}, "is missing"),
        ({"representation": "solo", "part_signs": [1]}, "tensors do not fit the record"),
    ],
)
def test_a_record_that_cannot_be_is_refused(record: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_weights(written(tmp_path / "w.safetensors", **record))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "w.safetensors: " in str(caught.value)


def test_nothing_is_built_from_a_record_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "w.safetensors", width=16_384, blocks=64)
    before = torch.empty
    made: list[torch.device] = []

    def empty(*shape: Any, **options: Any) -> torch.Tensor:
        tensor = before(*shape, **options)
        made.append(tensor.device)
        return tensor

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(UserError, match="do not fit"):
        load_weights(path)
    assert {device.type for device in made} == {"meta"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_values_that_no_training_leaves_are_refused(value: float, tmp_path: Path) -> None:
    tensors = seed_tensors(lifter(), 0)
    tensors["heads.0.weight"][0, 3, 1] = value
    with pytest.raises(UserError, match=r"heads\.0\.weight holds values that are not finite or beyond"):
        load_weights(written(tmp_path / "w.safetensors", tensors))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int32, torch.bool])
def test_other_types_of_numbers_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    tensors = seed_tensors(lifter(), 0)
    tensors["heads.0.weight"] = tensors["heads.0.weight"].to(kind)
    with pytest.raises(UserError, match=r"heads\.0\.weight is .*, expected F32"):
        load_weights(written(tmp_path / "w.safetensors", tensors))


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    network = lifter(batch_norm=True)
    tensors = seed_tensors(network, 0)
    name = next(name for name in tensors if name.endswith("variance"))
    tensors[name][0] = -1.0
    record = {"format": 1, **network_of(network).model_dump(), "scale": 1.0}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", metadata={"record": json.dumps(record)})
    with pytest.raises(UserError, match="negative variance"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "{", "7", "null", "[" * 100_000, '{"a": ' * 5000])
def test_a_record_that_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(seed_tensors(lifter(), 0), path, metadata={"record": text})
    with pytest.raises(UserError, match="record") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)
