"""What a study waits for, and what it does not; the cluster and the clock are fakes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.phases import listening
from tips_dist.study.cluster import RayNode
from tips_dist.study.place import grace_seconds
from tips_dist.study.waiting import await_room

SMALL: RayNode = {"NodeID": "s", "Alive": True, "Resources": {"CPU": 1.0}}
CARD: RayNode = {"NodeID": "c", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}
DEAD: RayNode = {"NodeID": "d", "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}


class Cluster:
    """Nodes that come at their seconds; ``sleep`` is its clock."""

    def __init__(self, coming: Sequence[tuple[float, RayNode]], *, grows: bool = False, until: float = 1e9) -> None:
        self.coming, self.grows, self.until, self.now = coming, grows, until, 0.0
        self.said: list[str] = []

    @contextlib.contextmanager
    def demand(self, resources: Resources) -> Iterator[None]:
        self.said.append("demand")
        yield
        self.said.append("no demand")

    def wait(self, resources: Resources) -> float:
        """Wait for a place; after how many seconds it was there."""

        def sleep(seconds: float) -> None:
            self.now += seconds

        with listening(lambda phase: self.said.append(phase.name)):
            await_room(
                resources,
                lambda: [node for second, node in self.coming if second <= self.now],
                lambda: self.grows and self.now < self.until,
                demand=self.demand,
                clock=lambda: self.now,
                sleep=sleep,
            )
        return self.now


ONE_CARD = Resources(gpus=1)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIPS_DIST_NODES", "TIPS_DIST_WAIT", "TIPS_DIST_GRACE"):
        monkeypatch.delenv(name, raising=False)


def test_what_fits_begins_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert Cluster([(0, CARD)]).wait(ONE_CARD) == 0
    assert capsys.readouterr().err == ""


def test_what_can_never_be_met_is_told_at_once() -> None:
    cluster = Cluster([(0, SMALL), (0, DEAD), (5, CARD)])
    with pytest.raises(UserError, match=r"asks for 1 CPUs and 1 GPUs on one node; the cluster's nodes have: 1 CPUs"):
        cluster.wait(ONE_CARD)
    assert (cluster.now, cluster.said) == (0, [])


def test_nodes_that_were_announced_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIPS_DIST_NODES", "3")
    cluster = Cluster([(0, SMALL), (0, DEAD), (20, CARD), (30, SMALL)])
    assert cluster.wait(ONE_CARD) == 30
    assert list(dict.fromkeys(cluster.said)) == [
        "demand",
        "waiting for a place for a trial",
        "no demand",
        "waiting for further nodes",
    ]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "waiting for a place for a trial, at most 900 s: 1 of 3 nodes have joined"
    assert second == "waiting for further nodes, at most 60 s: 2 of 3 nodes have joined"


def test_a_node_that_stays_away_holds_up_a_study_that_has_a_place_for_a_minute_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIPS_DIST_NODES", "2")
    assert Cluster([(0, CARD)]).wait(ONE_CARD) == 60
    assert "1 of 2 nodes have joined; the study begins on them" in capsys.readouterr().err


def test_all_have_come_and_none_has_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIPS_DIST_NODES", "2")
    cluster = Cluster([(0, SMALL), (10, SMALL)])
    with pytest.raises(UserError, match="asks for 1 CPUs and 1 GPUs"):
        cluster.wait(ONE_CARD)
    assert cluster.now == 10


def test_an_autoscaler_gets_its_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Cluster([(0, SMALL), (300, CARD)], grows=True).wait(ONE_CARD) == 300
    assert "at most 900 s: the autoscaler is to start a node" in capsys.readouterr().err
    monkeypatch.setenv("TIPS_DIST_WAIT", "120")
    cluster = Cluster([(0, SMALL), (300, CARD)], grows=True)
    with pytest.raises(UserError, match=r"asks for .*; nodes got 120 s to come \(TIPS_DIST_WAIT\)"):
        cluster.wait(ONE_CARD)
    assert cluster.now == 120


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e99"])
def test_what_is_no_number_is_said(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIPS_DIST_GRACE", text)
    with pytest.raises(UserError, match=rf"TIPS_DIST_GRACE={text}: expected a number, such as TIPS_DIST_GRACE=120"):
        grace_seconds()
    monkeypatch.setenv("TIPS_DIST_GRACE", " 110 ")
    assert grace_seconds() == 110
    monkeypatch.setenv("TIPS_DIST_GRACE", "")
    assert grace_seconds() == 6
