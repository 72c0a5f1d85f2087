"""What a node lacks, judged from its answer; asked of a real Ray of one node. Two nodes: tests/chaos/test_places.py."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.nodes import ABSENT_PROGRAM
from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.plugins import Plugin
from tips_dist.study import answering, preflight
from tips_dist.study.answering import ABSENT, NodeAnswer
from tips_dist.study.preflight import (
    Asked,
    Checked,
    Needs,
    ask,
    barred,
    judged_nodes,
    lacks_here,
    needs_of,
    placed_elsewhere,
)

TEXT = "import tips_dist.registry\n"
FILE = Plugin("nothing_much", "1", hashlib.sha256(TEXT.encode()).hexdigest(), "nothing_much.py", TEXT)
ABSENT_PACKAGE = Plugin("absent", "2.0", "a" * 64, "absent-package")
WANTED = Needs((("Python", "3.11.7"), ("torch", "2.13.0+cpu"), ("ray", "2.60.0")), "abc")


def answer(**changes: Any) -> NodeAnswer:
    same: NodeAnswer = {
        "host": "node1",
        "time": 100.5,
        "versions": dict(WANTED.versions),
        "source": WANTED.source,
        "free": 10**11,
        "plugins": None,
        "shared": None,
        "folder": None,
    }
    return {**same, **changes}  # type: ignore[typeddict-item]


def findings(**changes: Any) -> list[Checked]:
    found = list(judged_nodes(Asked(answer(**changes), 100.0, 101.0), WANTED, "node1"))
    return [one for one in found if one.state != "ok"]


ODD: dict[str, tuple[dict[str, Any], str, str]] = {
    "another torch": ({"versions": {**dict(WANTED.versions), "torch": "2.1.0"}}, "failed", "torch 2.13.0+cpu here; "),
    "no torch": ({"versions": {**dict(WANTED.versions), "torch": ABSENT}}, "failed", "torch missing, ray 2.60.0; "),
    "another Python": ({"versions": {**dict(WANTED.versions), "Python": "3.12.7"}}, "failed", "Python 3.12.7, "),
    "no tips-dist": ({"source": ABSENT, "plugins": None}, "failed", "node node1: tips-dist: is not installed; submit"),
    "another tips-dist": ({"source": "other"}, "failed", "has another source than the driver's; submit with --package"),
    "no plug-in": ({"plugins": "plug-in x: not installed"}, "failed", "plug-in x: not installed"),
    "no room at all": ({"free": 10**7}, "failed", "disk: 0.0 GB free; make room"),
    "little room": ({"free": 5 * 10**8}, "warning", "disk: 0.5 GB free"),
    "a slow clock": ({"time": 40.0}, "warning", "clock: within 60.0 s of ours; run NTP"),
    "a fast clock": ({"time": 161.0}, "warning", "clock: within 60.0 s of ours; run NTP"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_a_node_lacks_or_has_otherwise(name: str) -> None:
    changes, state, words = ODD[name]
    (found,) = findings(**changes)
    assert found.state == state
    assert words in found.line()
    assert found.where == "node1"
    assert "\n" not in found.line()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"versions": {**dict(WANTED.versions), "torch": "2.13.0+cu130"}},  # the driver's machine has no card
        {"versions": {**dict(WANTED.versions), "Python": "3.11.2"}},
        {"time": 104.0},
    ],
)
def test_what_changes_no_number_is_no_difference(changes: dict[str, Any]) -> None:
    assert findings(**changes) == []


@pytest.mark.parametrize(("late", "state"), [(True, "warning"), (False, "failed")])
def test_a_node_that_does_not_answer_may_yet_a_node_that_fails_to_bars_itself(late: bool, state: str) -> None:
    (found,) = judged_nodes(Asked(None, silence="silent", late=late), WANTED, "node1")
    assert (found.state, found.found, found.where) == (state, "silent", "node1")


def test_this_process_has_what_it_needs_and_a_node_that_comes_later_says_what_it_lacks() -> None:
    wanted = needs_of([FILE])
    assert lacks_here(wanted) is None
    assert "tips-dist: has another source" in (lacks_here(dataclasses.replace(wanted, source="other")) or "")
    assert "plug-in absent 2.0" in (lacks_here(needs_of([ABSENT_PACKAGE])) or "")


def test_an_answer_costs_a_node_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from tips_dist.study.answering import answer; answer(); print({'torch', 'ray'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_a_process_without_this_program_answers_and_is_told_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABSENT_PROGRAM)
    code = f"import json, runpy; print(json.dumps(runpy.run_path({answering.__file__!r})['answer']()))"
    there = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=there)
    given: NodeAnswer = json.loads(told.stdout)
    assert given["versions"] == answering.versions()
    nodes: Any = [
        {"NodeID": host, "NodeManagerHostname": host, "Alive": True, "Resources": {"CPU": 1.0}} for host in ("a", "b")
    ]
    answers = {"a": Asked(given, given["time"]), "b": Asked(answering.answer())}
    monkeypatch.setattr(preflight, "ask", lambda ids, plugins: {key: answers[key] for key in ids})
    assert barred(needs_of(), Resources(), nodes) == {
        "a": "node a: tips-dist: is not installed; submit with --package, or give all nodes the same image or runtime "
        "environment"
    }
    with pytest.raises(UserError, match=r"node a: tips-dist: is not installed; submit with --package"):
        barred(needs_of(), Resources(), nodes[:1])


def test_the_source_is_told_apart_by_any_change(tmp_path: Path) -> None:
    (tmp_path / "tips_dist").mkdir()
    (tmp_path / "tips_dist" / "__init__.py").write_text("")
    code = f"import runpy; print(runpy.run_path({answering.__file__!r})['source']())"
    digests = []
    for text in ("one", "two"):
        (tmp_path / "tips_dist" / "part.py").write_text(text)
        told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        digests.append(told.stdout.strip())
    assert len({*digests, answering.source()}) == 3


def test_nodes_are_barred_and_odd_ones_only_spoken_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"a": answer(source=ABSENT), "b": answer(time=0.0), "c": answer()}
    nodes: Any = [
        {"NodeID": key, "NodeManagerHostname": f"host-{key}", "Alive": True, "Resources": {"CPU": 2.0}}
        for key in answers
    ]
    monkeypatch.setattr(preflight, "ask", lambda ids, plugins: {key: Asked(answers[key], 99.0, 101.0) for key in ids})
    found = barred(WANTED, Resources(), nodes)
    assert list(found) == ["a"]
    assert found["a"].startswith("node host-a: tips-dist: is not installed; submit with --package")
    assert capsys.readouterr().err == "node host-b: clock: within 99.0 s of ours; run NTP on this node\n"
    with pytest.raises(UserError, match=r"node host-a: tips-dist: is not installed.*; on the other nodes: resources"):
        barred(WANTED, Resources(), nodes[:1])
    assert barred(None, Resources(gpus=0), nodes) == {}


def test_a_card_that_torch_does_not_see_is_said_before_the_first_trial() -> None:
    with pytest.raises(UserError, match=r"resources.gpus: node .*: torch sees no card \(torch .*or set it to 0"):
        barred(None, Resources(gpus=1), [])


def test_a_real_node_answers(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file travels, a package that is nowhere is named, and the question itself needs no tips_dist on the node."""
    import ray

    (node,) = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    before = time.time()
    monkeypatch.setattr(preflight, "ask", functools.partial(ask, seconds=300.0))  # a busy machine
    asked = preflight.ask([node], [FILE])[node]
    assert asked.answer is not None
    assert before <= asked.after <= asked.answer["time"] <= asked.before
    assert [one.state for one in judged_nodes(asked, needs_of([FILE]), "here")] == ["ok"] * 3
    with pytest.raises(
        UserError, match=r"plug-in absent 2\.0 .*is not installed; install the same absent-package"
    ) as one:
        barred(needs_of([FILE, ABSENT_PACKAGE]), Resources(), ray.nodes())
    assert "\n" not in str(one.value)
    (gone,) = ask(["ab" * 28], seconds=20.0).values()
    assert gone.answer is None


def test_every_bundle_of_a_trial_keeps_away() -> None:
    assert placed_elsewhere([], 2) == {}
    assert placed_elsewhere(["a", "b"], 2) == {"bundle_label_selector": [{"ray.io/node-id": "!in(a,b)"}] * 2}
