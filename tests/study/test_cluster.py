from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.study.cluster import (
    PRELOAD,
    Machine,
    RayNode,
    cards_in_words,
    check_fits,
    machine_of,
    preloading,
    settled,
    share,
    trials_at_once,
)


def node(cpus: float, gpus: float = 0, alive: bool = True) -> RayNode:
    return {"NodeID": "", "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("asked", "nodes", "fits"),
    [
        ({"cpus": 2}, [node(2)], True),
        ({"cpus": 4}, [node(2), node(2)], False),  # a trial lives on one node
        ({"cpus": 1, "gpus": 0.25}, [node(2), node(1, 1)], True),
        ({"cpus": 2, "gpus": 1}, [node(2), node(1, 1)], False),
        ({"cpus": 4}, [node(8, alive=False), node(2)], False),
        ({"cpus": 4, "workers": 2}, [node(2), node(3)], True),  # but its workers on several
        ({"cpus": 4, "workers": 2}, [node(4)], True),
        ({"cpus": 6, "workers": 2}, [node(2), node(4)], False),
        ({"cpus": 1, "workers": 3}, [node(1)], True),  # a third each
        ({"cpus": 2, "gpus": 2, "workers": 2}, [node(2), node(1, 1), node(1, 1)], True),
    ],
)
def test_a_study_that_cannot_be_placed_is_refused(asked: dict[str, Any], nodes: list[Any], fits: bool) -> None:
    if fits:
        check_fits(Resources(**asked), nodes)
    else:
        each = asked["cpus"] / asked.get("workers", 1)
        with pytest.raises(UserError, match=f"asks for {each:g} CPUs and .* GPUs on one node") as caught:
            check_fits(Resources(**asked), nodes)
        assert "have: 2 CPUs and 0 GPUs" in str(caught.value) or "1 CPUs and 1 GPUs" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "nodes", "cards"),
    [
        ({}, [node(2)], 0),
        ({}, [node(2, 1)], 1),
        ({}, [node(2, 4), node(8)], 1),
        ({}, [node(2, 4, alive=False), node(8)], 0),
        ({"cpus": 4}, [node(2, 4), node(8)], 0),  # where the cards are it would not fit
        ({"workers": 2}, [node(2, 1)], 0),
        ({"workers": 2}, [node(1, 1), node(1, 1)], 2),
        ({"gpus": 0.25}, [node(2, 1)], 0.25),
        ({"gpus": 0}, [node(2, 1)], 0),
    ],
)
def test_auto_takes_a_card_for_each_worker_where_there_are_cards(
    asked: dict[str, Any], nodes: list[Any], cards: float
) -> None:
    resources = settled(Resources(**asked), nodes)
    assert resources.gpus == cards
    check_fits(resources, nodes)


@pytest.mark.parametrize(
    ("asked", "trials", "words"),
    [
        ({}, 8, "resources.gpus auto: 1 of 4 cards for each trial"),
        ({}, 2, "resources.gpus auto: 1 of 4 cards for each trial; 2 of 4 cards will stand idle (2 trials at a time)"),
        ({"gpus": 0}, 8, "4 of 4 cards will stand idle (resources.gpus is 0)"),
        ({"gpus": 0.25}, 8, "2 of 4 cards will stand idle (8 trials at a time)"),
        ({"gpus": 1, "max_concurrent": 3}, 8, "1 of 4 cards will stand idle (3 trials at a time)"),
        ({"gpus": 1}, 8, ""),
    ],
)
def test_it_is_said_what_was_chosen_and_which_cards_stand_idle(asked: dict[str, Any], trials: int, words: str) -> None:
    nodes: Any = [node(8, 2), node(8, 2), node(8)]
    bare: Any = [node(8)]
    resources = Resources(**asked)
    assert cards_in_words(resources, settled(resources, nodes), nodes, trials) == words
    assert cards_in_words(resources, settled(resources, bare), bare, trials) == ""


@pytest.mark.parametrize(
    ("asked", "nodes", "count"),
    [
        ({}, [node(2)], 2),
        ({"cpus": 2}, [node(3), node(2), node(1)], 2),
        ({"cpus": 2, "workers": 2}, [node(1), node(2)], 1),  # three workers, of which one alone trains nothing
        ({"gpus": 0.25}, [node(8, 1)], 4),
        ({}, [node(4, alive=False)], 0),
    ],
)
def test_places_for_trials_are_counted(asked: dict[str, Any], nodes: list[Any], count: int) -> None:
    assert trials_at_once(settled(Resources(**asked), nodes), nodes) == count


def test_a_study_computes_with_cores_or_with_cards() -> None:
    nodes: Any = [node(8, 2), node(4), node(16, alive=False)]
    assert machine_of(Resources(gpus=0, cpus=2), nodes) == Machine("cores", 12.0, 2.0)
    assert machine_of(Resources(gpus=0.5), nodes) == Machine("cards", 2.0, 0.5)


def test_workers_preload_only_where_most_of_them_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def preloads(trials: int, **asked: Any) -> bool:
        with preloading(Resources(**asked), trials, cores=8):
            return PRELOAD in os.environ

    monkeypatch.delenv(PRELOAD, raising=False)
    assert preloads(8)
    assert PRELOAD not in os.environ
    assert preloads(4)
    assert not preloads(3)
    assert not preloads(8, cpus=4)
    assert not preloads(8, max_concurrent=2)
    assert preloads(2, cpus=4, workers=4)


def test_workers_share_no_card() -> None:
    with pytest.raises(UserError, match=r"resources.gpus: 1 GPUs do not divide among resources.workers = 2"):
        share(Resources(gpus=1, workers=2))
    assert share(Resources(cpus=3, gpus=4, workers=2)) == {"CPU": 1.5, "GPU": 2}
    assert share(Resources(cpus=1, gpus=0.25)) == {"CPU": 1, "GPU": 0.25}


def test_importing_the_study_costs_neither_ray_nor_optuna_nor_torch() -> None:
    code = (
        "import sys, tips_dist.study.run; print([m for m in ('ray', 'optuna', 'torch', 'pandas') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_cluster_of_our_own_listens_on_loopback_alone_and_writes_nothing_home(tmp_path: Any) -> None:
    code = """
from tips_dist.config import Resources
from tips_dist.study.cluster import connected
with connected(Resources(), None):
    import psutil  # Ray brings it
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections():
            if connection.status == "LISTEN":
                print(connection.laddr.ip.removeprefix("::ffff:"))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["HOME"] = str(tmp_path / "nowhere" / "at-all")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert set(answer.stdout.split()) == {"127.0.0.1"}
    assert not (tmp_path / "nowhere").exists()
