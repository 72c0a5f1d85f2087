"""benchmarks/scale.py, small: it measures with the code that a study runs, so it must follow when that changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale


def test_it_finds_the_first_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(scale, "RECORDS", 2)
    monkeypatch.setattr(scale, "WEIGHTS", 1)
    found = scale.measure(200, gpus=4, per_gpu=2, samplers=["random"], sizes=[4, 8], probed=(3, 2))
    load = found["random"]["load_of_limits"]
    assert all(share > 0 for share in load.values())
    assert found["random"]["first_limit"] == max(load, key=lambda name: load[name])
    assert 0 < found["random"]["fleet"]["busy"] <= 1
    assert all(found["random"]["measured"]["8"][what] > 0 for what in ("propose", "report", "tell"))
