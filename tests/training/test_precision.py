"""A precision without hardware for it runs as float32, and says so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.worlds import tiny, world
from tips_dist.training import precision
from tips_dist.training.loop import Progress, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(major: int, minor: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")

    return of


@pytest.mark.parametrize("asked", ["tf32", "bf16"])
def test_cards_have_units_from_ampere_on(asked: precision.Precision, card: Any) -> None:
    card(8, 6)
    assert precision.effective(asked, CUDA) == (asked, "")
    card(7, 5)
    found, said = precision.effective(asked, CUDA)
    assert found == "float32"
    assert (
        said == f"training.precision: Card (compute capability 7.5) has no {asked} units; {asked} runs as float32 here"
    )


@pytest.mark.parametrize(
    ("library", "able", "units"),
    [
        (False, {"architecture": "x86_64", "avx512_bf16": True}, False),
        (True, {"architecture": "x86_64", "avx512_bf16": False, "avx512_f": True}, False),  # imitated: 26 times slower
        (True, {"architecture": "x86_64", "avx512_bf16": True}, True),
        (True, {"architecture": "x86_64", "amx_bf16": True}, True),
        (True, {"architecture": "aarch64"}, True),
    ],
)
def test_processors_are_asked(
    library: bool, able: dict[str, Any], units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: library)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert precision.bf16_units.__wrapped__() is units
    monkeypatch.setattr(precision, "bf16_units", lambda: units)
    assert precision.effective("bf16", CPU)[0] == ("bf16" if units else "float32")


def test_a_run_without_units_is_that_of_float32_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_units", lambda: False)
    told: list[Progress] = []
    runs = {}
    for name in ("float32", "bf16"):
        configuration = tiny("solo", f"training.precision={name}", "training.steps=10")
        runs[name] = train(configuration, [0], world(), tmp_path / name, report=told.append)
        assert runs[name].execution.precision == "float32"
    assert [one.message for one in told] == [
        "",
        "training.precision: this processor has no bf16 units; bf16 runs as float32 here",
    ]
    first, second = ((tmp_path / name / "history.jsonl").read_bytes() for name in runs)
    assert first == second
