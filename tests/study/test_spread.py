"""How a trial's workers are placed, met and missed, without a cluster; tests/chaos/test_spread.py has one."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from tests.training.test_execution import equal
from tests.training.worlds import golden, world
from tips_dist.config import Resources
from tips_dist.study import spread
from tips_dist.training.execution import LOOPBACK, Local, Plan
from tips_dist.training.loop import train

GLOO = "GLOO_SOCKET_IFNAME"


class FakeRay:
    """Takes an actor's options; its work goes on until ``ended`` is set, then failed with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: dict[str, Any] = {}
        self.error, self.ended, self.killed = error, threading.Event(), False

    def remote(self, cls: type) -> Any:
        def options(**asked: Any) -> Any:
            self.asked = asked
            follow = SimpleNamespace(remote=lambda *arguments: self.asked.update(arguments=arguments))
            return SimpleNamespace(remote=lambda: SimpleNamespace(follow=follow))

        return SimpleNamespace(options=options)

    def wait(self, works: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return (works, []) if self.ended.wait(min(timeout, 0.05)) else ([], works)

    def get(self, work: Any, timeout: float) -> None:
        if not self.ended.wait(min(timeout, 0.05)):
            raise GetTimeoutError
        if self.error is not None:
            raise self.error

    def kill(self, actor: Any) -> None:
        self.killed = True
        self.ended.set()


def use(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> tuple[FakeRay, list[int]]:
    """A fake Ray, and the exit statuses with which this process would have ended."""
    fake, exits = FakeRay(error), list[int]()
    monkeypatch.setattr(spread, "ray", fake)
    monkeypatch.setattr(spread, "os", SimpleNamespace(_exit=exits.append))
    return fake, exits


@pytest.mark.parametrize(
    ("nodes", "host"), [({0: "a", 1: "a"}, LOOPBACK), ({0: "a", 1: "b"}, "10.9.8.7")], ids=["one node", "two nodes"]
)
def test_each_worker_has_the_bundle_of_its_rank(
    monkeypatch: pytest.MonkeyPatch, nodes: dict[int, str], host: str
) -> None:
    monkeypatch.setattr(spread, "get_current_placement_group", lambda: "the trial's group")
    monkeypatch.setattr(spread, "placement_group_table", lambda group: {"bundles_to_node_id": nodes})
    monkeypatch.setattr(spread, "get_node_ip_address", lambda: "10.9.8.7")
    with spread.spread(Resources(cpus=4, gpus=2, workers=2), "cuda") as plan:
        assert (plan.host, plan.threads_each, str(plan.device_of(0))) == (host, 2, "cuda:0")
        assert plan.launch is not None
        fake, _ = use(monkeypatch)
        plan.launch(plan.host, 1234, 1, 2).end()
    where = fake.asked["scheduling_strategy"]
    assert (where.placement_group, where.placement_group_bundle_index) == ("the trial's group", 1)
    assert (fake.asked["num_cpus"], fake.asked["num_gpus"]) == (2, 1)
    assert fake.asked["arguments"] == (host, 1234, 1, 2, "cuda:0")  # Ray shows each worker its own card alone
    assert fake.killed


def test_a_worker_that_dies_says_how_and_one_that_did_its_work_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, how in ((None, None), (ValueError("long story\nno torch"), "ValueError: no torch")):
        fake, exits = use(monkeypatch, error)
        started = spread.Started("actor", "work")
        assert started.gone(0.01) is None
        fake.ended.set()
        assert started.gone() == how
        started.end()
        assert exits == []


def test_a_death_that_gloo_does_not_notice_ends_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, exits = use(monkeypatch, ValueError("its node is gone"))
    started = spread.Started("actor", "work", patience=0.05)
    fake.ended.set()
    for thread in threading.enumerate():
        if thread.name == "follower":
            thread.join(10)
    assert exits == [1]
    started.end()


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def test_workers_meet_at_the_address_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens between nodes, on one: gloo and the store at an address other than loopback."""
    host = own_address()
    monkeypatch.setattr(spread, "get_node_ip_address", lambda: host)
    monkeypatch.delenv(GLOO, raising=False)
    with spread.network(host):
        assert os.environ[GLOO] not in ("", "lo", "lo0")
        plan = Plan(2, 2, host=host)
        configuration, rows = golden("torso_legs")
        train(configuration, [0, 1], world(), tmp_path, plan=Plan(2, 2, host=host, launch=Local(plan).launch))
    assert GLOO not in os.environ
    equal(tmp_path, rows)


def test_the_users_choice_of_interface_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GLOO, "ib0")
    with spread.network("10.9.8.7"):
        assert os.environ[GLOO] == "ib0"
    assert os.environ[GLOO] == "ib0"
