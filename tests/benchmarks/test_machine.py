"""The line that says where a figure was measured."""

from __future__ import annotations

import datetime

import pytest

from benchmarks import machine


@pytest.mark.parametrize(
    ("busy", "own", "share"),
    [(100.0, 100.0, 0.0), (150.0, 100.0, 0.25), (200.0, 0.0, 1.0), (99.0, 100.0, 0.0)],
    ids=["alone", "another took a quarter", "all taken", "clocks that differ a little"],
)
def test_what_others_took_is_what_this_did_not(
    monkeypatch: pytest.MonkeyPatch, busy: float, own: float, share: float
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(machine, "_BEFORE", (1000.0, 10.0))
    monkeypatch.setattr(machine, "_spent", lambda: (1000.0 + busy, 10.0 + own))
    monkeypatch.setattr(machine, "_BEGAN", datetime.datetime.now() - datetime.timedelta(seconds=100))
    assert machine.others() == pytest.approx(share, abs=0.01)


def test_the_line_names_processor_versions_and_company() -> None:
    told = machine.machine("One thread.")
    assert told.endswith("One thread.")
    for part in (machine.processor()[0], "torch", "Python", "other processes took"):
        assert part in told
