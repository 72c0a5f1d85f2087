"""Work in a process of its own; the functions are module functions, as they are named to that process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import pytest

from tips_dist.commands import aside
from tips_dist.commands.aside import Aside


def double(number: float) -> tuple[float, int]:
    return 2 * number, os.getpid()


def die(number: float) -> None:
    os._exit(1)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "cores", lambda: 2)


def test_it_works_beside_us() -> None:
    with Aside(double, needed=["json"]) as other:
        other.start()
        other.start()  # once is enough
        other.begin(21.0)
        found = other.result()
        assert found is not None
        assert found[0] == 42.0
        assert found[1] != os.getpid()
        assert other.result() is None  # it was taken


@pytest.mark.parametrize("work", [die, math.sqrt], ids=["dies", "raises"])
def test_without_a_result_whoever_wants_one_works_it_out_himself(work: Callable[[float], object]) -> None:
    with Aside(work) as other:
        other.start()
        other.begin(-1.0)
        assert other.result() is None


def test_it_is_gone_when_nobody_waits_for_it() -> None:
    with Aside(sleep) as other:
        other.start()
        other.begin(1000.0)
        process = other._process
        assert process is not None
        assert process.is_alive()
    assert not process.is_alive()


def test_one_core_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "cores", lambda: 1)
    with Aside(double) as other:
        other.start()
        other.begin(1.0)
        assert other.result() is None
